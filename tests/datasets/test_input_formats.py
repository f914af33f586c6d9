"""import-volume: every format gives the same voxels, in one block or in many."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorstore
import tifffile
from dataset_makers import blocks, grey
from PIL import Image

from cb2_assist.core.errors import AssistError, BadVolumeError, DatasetError, UsageError
from cb2_assist.datasets.importer import import_volume
from cb2_assist.datasets.local import open_dataset_file

SHAPE = (70, 66, 131)
"""x, y, z; two chunks along each axis."""
ONE_CHUNK = 64**3

EM, SEG = grey(SHAPE), blocks(SHAPE, 20)
ZYX = {"em": EM.T, "seg": SEG.T}


def npy(folder, name, array):
    np.save(folder / f"{name}.npy", np.ascontiguousarray(array))
    return f"{folder / name}.npy"


def npy_fortran(folder, name, array):
    np.save(folder / f"{name}.npy", np.asfortranarray(array))
    return f"{folder / name}.npy"


def npz(folder, name, array):
    np.savez_compressed(folder / f"{name}.npz", a=array)
    return f"{folder / name}.npz"


def npz_fortran(folder, name, array):
    return npz(folder, name, np.asfortranarray(array))


def h5(folder, name, array, **options):
    with h5py.File(folder / "both.h5", "a") as file:
        file.create_dataset(f"volumes/{name}", data=array, **options)
    return f"{folder / 'both.h5'}:/volumes/{name}"


def h5_chunked(folder, name, array):
    return h5(folder, name, array, chunks=(48, 32, 32), compression="gzip")


def h5_pages(folder, name, array):
    return h5(folder, name, array, chunks=(1, *array.shape[1:]), compression="gzip")


def tif(folder, name, array, **options):
    tifffile.imwrite(folder / f"{name}.tif", array, **options)
    return f"{folder / name}.tif"


def tif_deflate(folder, name, array):
    return tif(folder, name, array, compression="zlib", photometric="minisblack")


def tif_big_tiled(folder, name, array):
    return tif(folder, name, array, bigtiff=True, tile=(32, 32), photometric="minisblack")


def tif_big_endian(folder, name, array):
    return tif(folder, name, array, byteorder=">", photometric="minisblack")


def tif_sections(folder, name, array):
    (folder / name).mkdir()
    for k, section in enumerate(array):
        tifffile.imwrite(folder / name / f"s{k}.tif", section)
    return f"{folder / name}"


def tif_pattern(folder, name, array):
    tif_sections(folder, name, array)
    return f"{folder / name}/s*.tif"


def tensor(folder, driver, array, **more):
    store = tensorstore.open(
        {"driver": driver, "kvstore": {"driver": "file", "path": f"{folder}/"}, **more},
        create=True,
        dtype=array.dtype.name,
        shape=array.shape,
    ).result()
    store.write(array).result()


def zarr2(folder, name, array):
    tensor(folder / "both.zarr" / name, "zarr", array, metadata={"chunks": [50, 40, 30]})
    return f"{folder / 'both.zarr'}:{name}"


def zarr2_below(folder, name, array):
    return zarr2(folder, name, array).replace(":", "/")


def zarr2_fortran(folder, name, array):
    tensor(folder / f"{name}.zarr", "zarr", array, metadata={"order": "F"})
    return f"{folder / name}.zarr"


def zarr3_sharded(folder, name, array):
    inner = {"chunk_shape": [32, 32, 32], "codecs": [{"name": "bytes"}, {"name": "gzip"}]}
    metadata = {
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [64, 64, 64]}},
        "codecs": [{"name": "sharding_indexed", "configuration": inner}],
    }
    tensor(folder / f"{name}.zarr", "zarr3", array, metadata=metadata)
    return f"{folder / name}.zarr"


def n5(folder, name, array):
    # N5 names the fastest axis first
    metadata = {"compression": {"type": "gzip"}, "blockSize": [40, 50, 60]}
    tensor(folder / "both.n5" / name, "n5", array.T, metadata=metadata)
    return f"{folder / 'both.n5'}:{name}"


WRITERS = [
    npy,
    npy_fortran,
    npz,
    npz_fortran,
    h5,
    h5_chunked,
    h5_pages,
    tif_deflate,
    tif_big_tiled,
    tif_big_endian,
    tif_sections,
    tif_pattern,
    zarr2,
    zarr2_below,
    zarr2_fortran,
    zarr3_sharded,
    n5,
]


def run(folder, files, **options):
    given = {"voxel_nm": (8, 8, 40), "mesh_min_voxels": 10**9, "out": folder / "out"}
    return import_volume(em=files[0], segmentation=files[1], **{**given, **options})


def saved(folder, write):
    return [write(folder, name, array) for name, array in ZYX.items()]


@pytest.mark.parametrize("write", WRITERS, ids=lambda w: w.__name__)
def test_every_voxel_is_kept_block_by_block(tmp_path, write):
    files = saved(tmp_path, write)
    before = sorted(p.name for p in tmp_path.iterdir())
    source = open_dataset_file(run(tmp_path, files, most_vx=ONE_CHUNK))
    cut = source.cutout(source.bounds)
    np.testing.assert_array_equal(cut.em, EM)
    np.testing.assert_array_equal(cut.seg, SEG)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "out"])


@pytest.mark.parametrize("write", [npz, h5_pages, tif_deflate, n5], ids=lambda w: w.__name__)
@pytest.mark.parametrize("axes", ["xyz", "zyx"])
def test_axes_are_taken_as_given(tmp_path, write, axes):
    files = [write(tmp_path, n, a if axes == "zyx" else a.T) for n, a in ZYX.items()]
    source = open_dataset_file(run(tmp_path, files, axes=axes, most_vx=ONE_CHUNK))
    np.testing.assert_array_equal(source.cutout(source.bounds).seg, SEG)


def test_many_blocks_write_the_same_bytes_as_one(tmp_path):
    files = saved(tmp_path, h5)
    folders = []
    for n, most in enumerate((ONE_CHUNK, 2**24)):
        out = tmp_path / f"o{n}" / "same"
        options = {"offset_nm": (24, -8, 40), "mesh_min_voxels": 100, "em_range": (10, 200)}
        folders.append(run(tmp_path, files, out=out, most_vx=most, **options).parent)
    listed = [
        {p.relative_to(f).as_posix(): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in folders
    ]
    # meshes come in parts
    parts, whole = ({k: v for k, v in d.items() if "/mesh/" not in k} for d in listed)
    assert parts == whole
    assert "seg/32_32_40/" in " ".join(whole)


def test_png_sections_are_ordered_by_number(tmp_path):
    for name, array in {"em": EM.T, "seg": (SEG.T % 200).astype(np.uint16)}.items():
        (tmp_path / name).mkdir()
        for k, section in enumerate(array[:12]):
            Image.fromarray(section).save(tmp_path / name / f"{k}.png")
    source = open_dataset_file(run(tmp_path, [str(tmp_path / "em"), str(tmp_path / "seg")]))
    np.testing.assert_array_equal(source.cutout(source.bounds).em, EM[:, :, :12])


# -- what files say of themselves


def told(folder, files, **options):
    lines = []
    source = open_dataset_file(run(folder, files, progress=lines.append, **options))
    return source, [line for line in lines if str(folder) in line]


def ome_zarr(folder, name, array, axes="zyx", key="0"):
    root = folder / f"{name}.ome.zarr"
    tensor(root / "0", "zarr", array)
    tensor(root / "1", "zarr", np.ascontiguousarray(array[..., ::2, ::2]))
    scales = [[1.0] * (array.ndim - 3) + s for s in ([0.04, 0.008, 0.008], [0.04, 0.016, 0.016])]
    image = {
        "axes": [{"name": a, "unit": "micrometer"} for a in axes],
        "datasets": [
            {"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
            for k, scale in enumerate(scales)
        ],
    }
    (root / ".zattrs").write_text(json.dumps({"multiscales": [image]}))
    (root / ".zgroup").write_text('{"zarr_format": 2}')
    return f"{root}{key and ':' + key}"


def test_ome_zarr_opens_at_its_finest_level_or_the_one_named(tmp_path):
    em, seg = (ome_zarr(tmp_path, n, a, key="") for n, a in ZYX.items())
    source, notes = told(tmp_path, [em, seg])
    assert source.bounds.shape == SHAPE
    assert all("axes zyx, as OME-Zarr metadata says" in n for n in notes)
    source, notes = told(
        tmp_path, [f"{em}:1", f"{seg}/1"], voxel_nm=(16, 16, 40), out=tmp_path / "second"
    )
    assert source.bounds.shape == (35, 33, 131)
    np.testing.assert_array_equal(source.cutout(source.bounds).seg, SEG[::2, ::2])
    assert len(notes) == 2


def test_axes_of_length_one_are_left_out_and_told(tmp_path):
    files = [
        ome_zarr(tmp_path, n, np.ascontiguousarray(a.T)[None, None], "tcxyz")
        for n, a in ZYX.items()
    ]
    source, notes = told(tmp_path, files)
    np.testing.assert_array_equal(source.cutout(source.bounds).em, EM)
    assert any("axes of length 1 are left out" in n for n in notes)
    assert any("axes xyz, as OME-Zarr metadata says" in n for n in notes)


def test_another_voxel_size_than_the_files_is_reported(tmp_path):
    files = [ome_zarr(tmp_path, n, a) for n, a in ZYX.items()]
    _, notes = told(tmp_path, files, voxel_nm=(4, 4, 40), axes="zyx")
    assert any("voxels are 8 x 8 x 40 nm (x, y, z), but 4 x 4 x 40 was given" in n for n in notes)


def test_axes_that_contradict_the_files_are_used_and_reported(tmp_path):
    files = [ome_zarr(tmp_path, n, a) for n, a in ZYX.items()]
    source, notes = told(tmp_path, files, axes="xyz")
    assert source.bounds.shape == SHAPE[::-1]
    assert any("axes are zyx, but xyz was given and is used" in n for n in notes)


def test_voxel_sizes_of_hdf5_n5_and_tiff_are_understood(tmp_path):
    files = [h5(tmp_path, n, a) for n, a in ZYX.items()]
    with h5py.File(tmp_path / "both.h5", "a") as file:
        file["volumes/em"].attrs["resolution"] = [40.0, 4.0, 4.0]
    _, notes = told(tmp_path, files, out=tmp_path / "a")
    assert any("voxels are 4 x 4 x 40 nm" in n for n in notes)

    em, seg = (n5(tmp_path, n, a) for n, a in ZYX.items())
    attributes = tmp_path / "both.n5" / "em" / "attributes.json"
    extra = {"pixelResolution": {"dimensions": [5.0, 8.0, 40.0], "unit": "nm"}, "axes": list("xyz")}
    attributes.write_text(json.dumps(json.loads(attributes.read_text()) | extra))
    source, notes = told(tmp_path, [em, seg], out=tmp_path / "b")
    np.testing.assert_array_equal(source.cutout(source.bounds).em, EM)
    assert any("voxels are 5 x 8 x 40 nm" in n for n in notes)

    ome = {"axes": "ZYX", "PhysicalSizeX": 0.006, "PhysicalSizeXUnit": "µm"}
    em = str(tmp_path / "e.ome.tif")
    tifffile.imwrite(em, ZYX["em"], ome=True, metadata=ome)
    _, notes = told(tmp_path, [em, seg], out=tmp_path / "c")
    assert any("axes zyx, as OME metadata says" in n for n in notes)
    assert any("voxels are 6 x ? x ? nm" in n for n in notes)


# -- what is refused


def refused(folder, error, message, files, **options):
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(error, match=message) as caught:
        run(folder, files, **options)
    assert isinstance(caught.value, AssistError)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in folder.iterdir()) == before


def test_missing_keys_list_what_there_is(tmp_path):
    em, seg = saved(tmp_path, h5)
    refused(tmp_path, UsageError, r"/volumes/em \(131, 66, 70\) uint8", [f"{em}x", seg])
    refused(tmp_path, UsageError, "Say which dataset .*/volumes/seg", [em.split(":")[0], seg])
    em, seg = saved(tmp_path, zarr2)
    refused(tmp_path, UsageError, "no array 'nope' .*Arrays: em, seg", [f"{em[:-2]}nope", seg])
    refused(tmp_path, UsageError, "Say which array .*Arrays: em, seg", [em[:-3], seg])
    refused(tmp_path, UsageError, "leaves", [f"{em[:-2]}../..", seg])
    em, seg = saved(tmp_path, tif_deflate)
    refused(tmp_path, UsageError, "no series '3' .*it has 1", [f"{em}:3", seg])


def test_files_cut_short_or_damaged_are_refused(tmp_path):
    good = saved(tmp_path, npy)
    for write in (h5, tif_deflate, tif_big_endian):
        path = write(tmp_path, "em", ZYX["em"]).split(":")[0]
        with Path(path).open("r+b") as file:
            file.truncate(300_000)
        key = ":/volumes/em" if write is h5 else ""
        refused(tmp_path, BadVolumeError, "damaged", [path + key, good[1]], most_vx=ONE_CHUNK)
    zarr = zarr2(tmp_path, "em", ZYX["em"])
    (tmp_path / "both.zarr" / "em" / "1.1.1").write_bytes(b"not blosc")
    refused(tmp_path, BadVolumeError, "damaged", [zarr, good[1]])
    for name in ("x.h5", "x.tif"):
        (tmp_path / name).write_text("not such a file")
        refused(tmp_path, BadVolumeError, "damaged or not a", [str(tmp_path / name), good[1]])


def test_a_section_that_differs_is_named(tmp_path):
    em, seg = saved(tmp_path, tif_sections)
    tifffile.imwrite(tmp_path / "em" / "s5.tif", np.zeros((4, 4), np.uint8))
    refused(tmp_path, BadVolumeError, r"section .*s5\.tif is \(4, 4\)", [em, seg])
    (tmp_path / "em" / "s5.tif").write_text("no")
    refused(tmp_path, BadVolumeError, r"s5\.tif is damaged", [em, seg])
    (tmp_path / "none").mkdir()
    refused(tmp_path, BadVolumeError, "holds no section", [str(tmp_path / "none"), seg])
    refused(tmp_path, BadVolumeError, "No section fits", [str(tmp_path / "q*.tif"), seg])


def test_a_disk_that_is_full_while_unpacking_is_said_so(tmp_path, monkeypatch):
    files = saved(tmp_path, npz)

    def full(**_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    refused(tmp_path, DatasetError, "the disk is full. Nothing was kept", files, most_vx=ONE_CHUNK)


def test_a_missing_codec_says_what_to_install(tmp_path, monkeypatch):
    em, seg = saved(tmp_path, tif_deflate)

    def fail(*_arguments, **_options):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr("tifffile.TiffPage.asarray", fail)
    refused(tmp_path, BadVolumeError, r"pip install 'cb2-assist\[formats\]'", [em, seg])


def test_zarr_without_tensorstore_says_what_to_install(tmp_path, monkeypatch):
    em, seg = saved(tmp_path, zarr2)
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    refused(tmp_path, BadVolumeError, "pip install tensorstore", [em, seg])


def test_channels_and_colours_are_refused(tmp_path):
    seg = npy(tmp_path, "seg", ZYX["seg"])
    rgb = tif(tmp_path, "rgb", np.zeros((131, 66, 70, 3), np.uint8), photometric="rgb")
    refused(tmp_path, BadVolumeError, "has 4 dimensions", [rgb, seg])
    em = ome_zarr(tmp_path, "em", np.stack([ZYX["em"]] * 2), "czyx")
    refused(tmp_path, BadVolumeError, "axes czyx; a volume has 3", [em, seg])


def test_em_of_another_type_is_scaled_only_when_asked(tmp_path):
    deep = ZYX["em"].astype(np.uint16) * 100 + 1000
    files = [h5(tmp_path, "em", deep), h5(tmp_path, "seg", ZYX["seg"])]
    refused(tmp_path, BadVolumeError, r"uint16; EM must be uint8.*--em-range", files)
    for bad in ((5, 5), (9, 1), (0, float("nan")), (1, 2, 3)):
        refused(tmp_path, UsageError, "EM range", files, em_range=bad)
    source = open_dataset_file(run(tmp_path, files, em_range=(1000, 26500), most_vx=ONE_CHUNK))
    np.testing.assert_array_equal(source.cutout(source.bounds).em, EM)
    beyond = run(tmp_path, files, em_range=(10000, 12000), out=tmp_path / "second")
    source = open_dataset_file(beyond)
    clipped = source.cutout(source.bounds).em
    assert (clipped[deep.T < 10000] == 0).all()
    assert (clipped[deep.T > 12000] == 255).all()


def test_negative_ids_and_bad_offsets_are_found_in_any_block(tmp_path):
    seg = (ZYX["seg"] % 100).astype(np.int64)
    seg[-1, -1, -1] = -7
    files = [npy(tmp_path, "em", ZYX["em"]), npy(tmp_path, "seg", seg)]
    refused(tmp_path, BadVolumeError, "for instance -7", files, most_vx=ONE_CHUNK)
    seg[-1, -1, -1] = 1000
    np.save(tmp_path / "seg.npy", seg)
    room = 2**64 - 1 - 1000
    message = f"from 0 to {room} here"
    refused(tmp_path, UsageError, message, files, most_vx=ONE_CHUNK, id_offset=room + 5)
