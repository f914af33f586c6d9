"""import-volume: what it takes, what it refuses, and that a failure leaves nothing behind."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest
from dataset_makers import BIG, blocks, grey

from cb2_assist.core.errors import AssistError, BadVolumeError, DatasetError, UsageError
from cb2_assist.core.geometry import PointNm
from cb2_assist.datasets.importer import import_volume
from cb2_assist.datasets.local import open_dataset_file

SHAPE = (30, 24, 20)
"""x, y, z of the volumes below."""


class Case:
    """Files of one import, axes x, y, z, and its options."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.em, self.seg, self.truth = grey(SHAPE), blocks(SHAPE, 10), blocks(SHAPE, 15)
        self.options: dict = {"axes": "xyz", "voxel_nm": (10, 10, 10), "mesh_min_voxels": 100}

    @property
    def out(self):
        return self.folder / "out"

    def save(self) -> None:
        np.save(self.folder / "em.npy", self.em)
        np.save(self.folder / "seg.npy", self.seg)
        np.save(self.folder / "truth.npy", self.truth)

    def run(self, **options):
        files = {
            "em": str(self.folder / "em.npy"),
            "segmentation": str(self.folder / "seg.npy"),
            "out": self.out,
        }
        return import_volume(**{**files, **self.options, **options})


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def assert_refused(case, error, message, **options):
    """The import fails with the message and leaves the folder as it was."""
    before = sorted(p.name for p in case.folder.iterdir())
    with pytest.raises(error, match=message) as caught:
        case.run(**options)
    assert isinstance(caught.value, AssistError)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in case.folder.iterdir()) == before


@pytest.mark.parametrize("axes", ["zyx", "xyz"])
def test_axes_say_how_the_files_are_ordered(case, axes):
    case.save()
    if axes == "zyx":
        np.save(case.folder / "em.npy", case.em.T)
        np.save(case.folder / "seg.npy", case.seg.T)
    source = open_dataset_file(case.run(axes=axes))
    cut = source.cutout(source.bounds)
    np.testing.assert_array_equal(cut.em, case.em)
    np.testing.assert_array_equal(cut.seg, case.seg)


def test_everything_given_is_kept(case):
    case.save()
    path = case.run(
        truth=str(case.folder / "truth.npy"),
        voxel_nm=(4, 8, 40),
        offset_nm=(-8, 80, 400),
        name="mine",
        species="fly",
        licence='CC "BY"',
        citation="Å et al.",
    )
    assert path == case.out / "dataset.toml"
    source = open_dataset_file(path)
    assert tuple(source.resolution) == (4, 8, 40)
    assert tuple(source.bounds.lo) == (-2, 10, 10)
    info = source.info
    assert (info.name, info.species, info.licence) == ("mine", "fly", 'CC "BY"')
    assert info.citation == "Å et al."
    np.testing.assert_array_equal(source.truth_cutout(source.bounds), case.truth)
    assert source.em_statistics.mean == pytest.approx(float(case.em.mean()))
    assert source.segment_at(PointNm(-6, 84, 420)) == int(case.seg[0, 0, 0])


def test_name_is_the_folders_unless_given(case):
    case.save()
    assert open_dataset_file(case.run()).info.name == "out"


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">u2", "<i4", ">i8", "<u8", ">u8"])
def test_any_whole_number_type_is_exact(case, dtype):
    small = (case.seg % 100).astype(dtype)
    high = {"u8": 2**64 - 1, "i8": 2**63 - 1}.get(dtype[1:], 100)
    case.seg = np.where(small == 3, np.array(high, dtype), small).astype(dtype)
    case.save()
    source = open_dataset_file(case.run())
    np.testing.assert_array_equal(source.cutout(source.bounds).seg, case.seg.astype("u8"))


def test_id_offset_shifts_all_ids_but_background(case):
    case.seg = (case.seg % 50).astype("u2")
    case.save()
    source = open_dataset_file(case.run(id_offset=2**60))
    shifted = case.seg.astype("u8") + np.uint64(2**60)
    np.testing.assert_array_equal(
        source.cutout(source.bounds).seg, np.where(case.seg == 0, 0, shifted)
    )


def test_id_offset_may_reach_the_last_id_and_not_beyond(case):
    case.seg = (case.seg % 50).astype("u2")
    case.save()
    room = 2**64 - 1 - int(case.seg.max())
    assert_refused(case, UsageError, f"from 0 to {room} here", id_offset=room + 1)
    assert_refused(case, UsageError, "id offset", id_offset=-1)
    source = open_dataset_file(case.run(id_offset=room))
    assert int(source.cutout(source.bounds).seg.max()) == 2**64 - 1


def test_npz_with_one_array_needs_no_key_and_several_need_one(case):
    case.save()
    one, several = case.folder / "one.npz", case.folder / "several.npz"
    np.savez_compressed(one, anything=case.em)
    np.savez_compressed(several, em=case.em, seg=case.seg)
    source = open_dataset_file(case.run(em=str(one), segmentation=f"{several}:seg"))
    np.testing.assert_array_equal(source.cutout(source.bounds).seg, case.seg)
    case.options["out"] = case.folder / "second"
    assert_refused(case, UsageError, r"Say which array .* Arrays: em, seg", em=str(several))
    assert_refused(case, UsageError, r"no array 'x' .* Arrays: em, seg", em=f"{several}:x")


def test_progress_is_told(case):
    case.save()
    lines = []
    case.run(progress=lines.append)
    assert "writing segmentation" in lines
    assert any("meshes" in line for line in lines)


BAD_ARRAYS = {
    "shapes differ": ({"seg": blocks((30, 24, 21))}, r"one shape, got \(30, 24, 20\) and"),
    "transposed": ({"seg": blocks(SHAPE).T}, "when one is transposed"),
    "EM is 2-D": ({"em": np.zeros((5, 5), "u1")}, "has 2 dimensions"),
    "EM has channels": ({"em": np.zeros((*SHAPE, 3), "u1")}, r"array\[\.\.\., 0\]"),
    "seg is a number": ({"seg": np.array(5)}, "has 0 dimensions"),
    "empty": ({"em": np.zeros((0, 5, 5), "u1"), "seg": np.zeros((0, 5, 5), "u1")}, "is empty"),
    "EM uint16": (
        {"em": grey(SHAPE).astype("u2") * 200},
        r"uint16; EM must be uint8.*--em-range \d+,\d+",
    ),
    "EM float": ({"em": grey(SHAPE).astype("f4")}, "float32; EM must be uint8"),
    "EM bool": ({"em": grey(SHAPE) > 100}, "bool; EM must be uint8"),
    "seg float": ({"seg": blocks(SHAPE).astype("f8")}, "whole numbers"),
    "seg bool": ({"seg": blocks(SHAPE) > 0}, "whole numbers"),
    "seg complex": ({"seg": blocks(SHAPE).astype("c8")}, "whole numbers"),
    "seg text": ({"seg": np.full(SHAPE, "a")}, "whole numbers"),
    "seg negative": ({"seg": np.full(SHAPE, -4, "i4")}, "for instance -4"),
    "seg background": ({"seg": np.zeros(SHAPE, "u4")}, "only background"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_array_is_refused(case, name):
    arrays, message = BAD_ARRAYS[name]
    case.__dict__.update(arrays)
    case.save()
    assert_refused(case, BadVolumeError, message)


def test_bad_truth_is_refused(case):
    case.truth = blocks((30, 24, 21))
    case.save()
    assert_refused(case, BadVolumeError, "one shape", truth=str(case.folder / "truth.npy"))


BAD_OPTIONS = {
    "no size": ({"voxel_nm": (0, 10, 10)}, UsageError, "three positive numbers"),
    "negative size": ({"voxel_nm": (-4, 4, 40)}, UsageError, "three positive numbers"),
    "nan size": ({"voxel_nm": (float("nan"), 4, 40)}, UsageError, "three positive numbers"),
    "infinite size": ({"voxel_nm": (float("inf"), 4, 40)}, UsageError, "three positive"),
    "two sizes": ({"voxel_nm": (4, 40)}, UsageError, "three numbers"),
    "offset": ({"offset_nm": (0, 5, 0)}, UsageError, "along y, 5 nm, is not a whole number"),
    "nan offset": ({"offset_nm": (0, 0, float("nan"))}, UsageError, "along z"),
    "axes": ({"axes": "yxz"}, UsageError, "zyx or xyz"),
    "species": ({"species": "cat"}, UsageError, "Known: mouse"),
    "name": ({"name": "a/b"}, UsageError, "letters, digits"),
    "empty name": ({"name": ""}, UsageError, "letters, digits"),
    "licence": ({"licence": "a\nb"}, UsageError, "one line"),
    "mesh size": ({"mesh_min_voxels": -1}, UsageError, "negative"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_option_is_refused(case, name):
    options, error, message = BAD_OPTIONS[name]
    case.save()
    assert_refused(case, error, message, **options)


def npy_bytes(array, **kwargs) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **kwargs)
    return buffer.getvalue()


def huge_npy() -> bytes:
    """A header that promises 2**50 voxels, and no voxels."""
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**20, 2**20, 2**10)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def npz_bytes(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def npz_damaged() -> bytes:
    good = bytearray(npz_bytes("a.npy", npy_bytes(grey(SHAPE))))
    good[500:600] = bytes(100)
    return bytes(good)


BAD_FILES = {
    "em.npy": {
        "objects": (npy_bytes(np.array([{}], object), allow_pickle=True), "can run code"),
        "a pickle": (pickle.dumps([1]), "can run code"),
        "truncated": (npy_bytes(grey(SHAPE))[:5000], "damaged"),
        "only a header": (npy_bytes(grey(SHAPE))[:60], "damaged"),
        "empty": (b"", "damaged"),
        "text": (b"hello world, not an array", "not a NumPy file|damaged"),
        "header that never ends": (npy_bytes(grey(SHAPE)).replace(b")", b" ", 1), "damaged"),
        "promises too much": (huge_npy(), "memory|damaged"),
        "an archive": (npz_bytes("a.npy", npy_bytes(grey(SHAPE))), "npy is an .npz archive"),
    },
    "em.npz": {
        "objects": (
            npz_bytes("a.npy", npy_bytes(np.array([{}], object), allow_pickle=True)),
            "can run code",
        ),
        "truncated": (npz_bytes("a.npy", npy_bytes(grey(SHAPE)))[:900], "damaged|NumPy"),
        "bad bytes": (npz_damaged(), "damaged"),
        "text": (b"hello", "damaged|NumPy"),
        "no array inside": (npz_bytes("a.txt", b"hello"), "not an array"),
        "empty archive": (npz_bytes("x/", b""), "damaged|not an array|Arrays"),
        "an npy": (npy_bytes(grey(SHAPE)), "npz is an .npy file"),
    },
    "em.mat": {"unknown kind": (b"x", r"ending in \.npy, \.npz")},
}


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file, cases in BAD_FILES.items() for name in cases]
)
def test_bad_file_is_refused(case, file, name):
    content, message = BAD_FILES[file][name]
    case.save()
    (case.folder / file).write_bytes(content)
    assert_refused(case, AssistError, message, em=str(case.folder / file))


def test_missing_file_and_folder_are_refused(case):
    case.save()
    assert_refused(case, BadVolumeError, "does not exist", em=str(case.folder / "no.npy"))
    (case.folder / "dir.npy").mkdir()
    assert_refused(case, BadVolumeError, "is a folder", em=str(case.folder / "dir.npy"))
    assert_refused(case, UsageError, "leave ':x' out", em=str(case.folder / "em.npy") + ":x")


def test_a_dataset_is_never_overwritten(case):
    case.save()
    path = case.run()
    kept = path.read_bytes()
    with pytest.raises(DatasetError, match=r"already holds a dataset\. Choose another --out"):
        case.run()
    assert path.read_bytes() == kept


def test_folder_in_use_is_refused_and_an_empty_one_is_taken(case):
    case.save()
    case.out.mkdir()
    (case.out / "notes.txt").write_text("mine")
    assert_refused(case, DatasetError, "is not empty")
    (case.out / "notes.txt").unlink()
    assert case.run().is_file()


def test_file_in_place_of_the_folder_is_refused(case):
    case.save()
    case.out.write_text("mine")
    assert_refused(case, DatasetError, "is a file")
    assert case.out.read_text() == "mine"


def test_folder_that_cannot_be_made_is_refused(case):
    case.save()
    (case.folder / "file").write_text("mine")
    assert_refused(
        case, DatasetError, "Cannot write .* Nothing was kept", out=case.folder / "file" / "x"
    )


def test_folders_above_are_made(case):
    case.save()
    path = case.run(out=case.folder / "a" / "b")
    assert open_dataset_file(path).info.name == "b"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_import_that_stops_midway_leaves_nothing(case, monkeypatch, error):
    case.save()

    def stop(*_args, **_kwargs):
        raise error

    monkeypatch.setattr("cb2_assist.datasets.writer.write_meshes", stop)
    before = sorted(p.name for p in case.folder.iterdir())
    expected = DatasetError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        case.run()
    assert sorted(p.name for p in case.folder.iterdir()) == before
    if isinstance(error, OSError):
        assert "the disk is full" in str(caught.value)
    monkeypatch.undo()
    assert case.run().is_file()


def test_segments_keep_neighbouring_ids_apart(case):
    # 2**60 and 2**60 + 1 are one number as doubles
    case.seg = np.full(SHAPE, BIG, "u8")
    case.seg[15:] = BIG + 1
    case.save()
    source = open_dataset_file(case.run())
    assert source.segment_at(PointNm(145, 5, 5)) == BIG
    assert source.segment_at(PointNm(155, 5, 5)) == BIG + 1
