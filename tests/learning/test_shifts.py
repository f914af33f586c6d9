"""Shifts of a volume: what each does, and that the shipped file says only what can be done."""

import numpy as np
import pytest

from cb2_assist.core.errors import UsageError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.learning import shifts
from cb2_assist.learning.examples import Volume, touching_pairs
from cb2_assist.learning.shifts import SHIPPED, read_shifts

LO = (3, 5, 1)


def volume(shape=(24, 20, 16), res=(10.0, 10.0, 10.0), seed=0):
    """Noise over slabs of labels; it starts at no whole block."""
    rng = np.random.default_rng(seed)
    em = rng.integers(60, 200, shape).astype(np.uint8)
    seg = (1 + np.indices(shape)[0] // 6).astype(np.uint64)
    box = BoxVx(PointVoxel(*LO), PointVoxel(*(a + n for a, n in zip(LO, shape, strict=True))))
    em, seg = np.asfortranarray(em), np.asfortranarray(seg)
    return Volume("v", box, Resolution(*res), em, seg, (seg + 1) // 2)


CELLS = read_shifts().cells


def test_there_are_eight_families_at_four_severities():
    families = list(dict.fromkeys(c.family for c in CELLS))

    assert len(families) == 8
    assert [(c.family, c.severity) for c in CELLS] == [
        (f, s) for f in families for s in range(1, 5)
    ]
    assert len({c.code for c in CELLS}) == len({c.name for c in CELLS}) == 32
    assert {c.severity for c in CELLS if c.far} == {3, 4}


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: c.name)
def test_every_shift_gives_a_volume_that_views_can_be_made_of(cell):
    before = volume(res=(20.0, 20.0, 20.0))
    after = cell.apply(cell.prepare(before))
    at = PointNm(150.0, 190.0, 110.0)
    after = cell.apply_at(after, at)

    assert after.em.dtype == np.uint8
    assert after.seg.dtype == after.truth.dtype == np.uint64
    for array in (after.em, after.seg, after.truth):
        assert array.shape == after.box.shape
        assert array.flags.f_contiguous
    assert after.box.contains(at.to_voxel(after.resolution))
    changed = after.em.shape != before.em.shape or any(
        (getattr(after, k) != getattr(before, k)).any() for k in ("em", "seg")
    )
    # what only leaves views out, or is another dataset, leaves EM and labels alone
    assert changed or cell.absent or cell.dataset


def test_a_shift_leaves_its_volume_as_it_was():
    before = volume()
    for cell in CELLS:
        cell.apply_at(cell.apply(cell.prepare(before)), PointNm(150.0, 150.0, 90.0))

    for name in ("em", "seg", "truth"):
        np.testing.assert_array_equal(getattr(before, name), getattr(volume(), name))


def test_blur_is_as_wide_in_nm_along_every_axis():
    point = volume((41, 41, 11), (10.0, 10.0, 40.0))
    point.em[...] = 0
    point.em[20, 20, 5] = 255
    sharp = shifts.blur(point, sigma_nm=20.0).em

    assert sharp[22, 20, 5] == sharp[20, 22, 5] > sharp[20, 20, 6]
    # a Gaussian of 2 x 2 x 0.5 voxels, at its peak
    along = [np.exp(-0.5 * (np.arange(-9, 10) / s) ** 2).sum() for s in (2.0, 2.0, 0.5)]
    assert sharp[20, 20, 5] == pytest.approx(255 / np.prod(along), abs=0.6)


def test_noise_has_the_asked_deviation_and_is_always_the_same():
    flat = volume((40, 40, 40))
    noisy = [shifts.noise(flat, deviations=0.25).em.astype(float) for _ in range(2)]

    np.testing.assert_array_equal(*noisy)
    assert (noisy[0] - flat.em).std() == pytest.approx(0.25 * flat.em.std(), rel=0.02)


def test_contrast_turned_over_swaps_dark_and_light():
    before = volume()
    over = shifts.contrast(before, gain=-1.0).em.astype(float)

    assert over + before.em == pytest.approx(2 * before.em.mean(), abs=0.51)
    assert shifts.contrast(before, gain=6.0).em.min() == 0


def test_a_coarser_level_has_the_blocks_of_a_pyramid():
    before = volume()
    after = shifts.coarser(before, factor=2, labels=True)

    assert tuple(after.resolution) == (20.0, 20.0, 20.0)
    assert tuple(after.box.lo) == (1, 2, 0)
    assert tuple(after.box.hi) == (14, 13, 9)
    # voxel 1 of the coarse level is 2..3 of the fine one, of which only 3 is there along x
    assert after.em[0, 1, 1] == round(before.em[0:1, 1:3, 1:3].mean())
    assert after.em[4, 3, 2] == pytest.approx(before.em[7:9, 5:7, 3:5].mean(), abs=0.51)
    assert after.seg[4, 3, 2] in before.seg[7:9, 5:7, 3:5]


def test_coarser_em_alone_stays_on_the_grid_of_the_labels():
    before = volume()
    after = shifts.coarser(before, factor=4, labels=False)

    assert after.box == before.box
    np.testing.assert_array_equal(after.seg, before.seg)
    block = after.em[1:5, 3:7, 3:7]
    assert (block == block[0, 0, 0]).all()
    assert block[0, 0, 0] == pytest.approx(before.em[1:5, 3:7, 3:7].mean(), abs=0.51)


@pytest.mark.parametrize("voxel_nm", [(10.0, 10.0, 30.0), (4.0, 7.0, 13.0), (20.0, 20.0, 20.0)])
def test_sections_show_the_same_place_at_another_voxel_size(voxel_nm):
    before = volume()
    after = shifts.sections(before, voxel_nm=voxel_nm)

    assert tuple(after.resolution) == voxel_nm
    rng = np.random.default_rng(0)
    for _ in range(40):
        v = PointVoxel(
            *(int(rng.integers(a, b)) for a, b in zip(after.box.lo, after.box.hi, strict=True))
        )
        i = tuple(a - b for a, b in zip(v, after.box.lo, strict=True))
        there = v.to_nm(after.resolution).to_voxel(before.resolution)
        k = tuple(a - b for a, b in zip(there, before.box.lo, strict=True))
        assert after.seg[i] == before.seg[k]
        assert after.em[i] == pytest.approx(average(before, v, voxel_nm), abs=1.2)


def average(before, v, voxel_nm):
    """Mean over the voxel's extent, by fine sampling."""
    n = 60
    at = []
    for axis in range(3):
        nm = (v_ := tuple(v)[axis]) * voxel_nm[axis] + (np.arange(n) + 0.5) / n * voxel_nm[axis]
        assert v_ >= 0
        k = np.floor(nm / tuple(before.resolution)[axis]).astype(int) - tuple(before.box.lo)[axis]
        at.append(k.clip(0, before.em.shape[axis] - 1))
    return before.em[np.ix_(*at)].mean()


def test_black_sections_are_counted_from_the_start_of_the_dataset():
    after = shifts.black_sections(volume(), every=8).em

    assert np.flatnonzero((after == 0).all((0, 1))).tolist() == [7, 15]


def test_labels_are_known_only_near_the_site():
    before, at = volume(), PointNm(140.0, 150.0, 90.0)
    after = shifts.labels_near(before, at, radius_nm=45.0)

    centres = (np.argwhere(before.seg >= 0) + np.array(LO) + 0.5) * 10.0
    near = np.linalg.norm(centres - np.array(tuple(at)), axis=1) <= 45.0
    np.testing.assert_array_equal(after.seg.ravel() > 0, near)
    np.testing.assert_array_equal(after.seg.ravel()[near], before.seg.ravel()[near])
    np.testing.assert_array_equal(after.em, before.em)


def test_pieces_are_cut_across_the_longest_side_and_their_truth_is_the_segment():
    before = volume((24, 60, 16))
    after = shifts.pieces(before, pieces_nm=200.0)

    for piece in np.unique(after.seg):
        at = np.argwhere(after.seg == piece)
        assert len(np.unique(before.seg[after.seg == piece])) == 1
        assert (np.ptp(at, axis=0) + 1)[1] <= 20
    pairs = touching_pairs(after)
    assert pairs.pure().all()
    assert pairs.same.any()
    assert not pairs.same.all()


WORDS = SHIPPED.read_text()
DAMAGE = {
    "not TOML": ("version = 1", "version = ", "not TOML"),
    "no families": ("[families.", "[family.", "families"),
    "an unknown shift": ('does = "blur"', 'does = "smear"', "known are blur"),
    "an unknown parameter": ("sigma_nm = 10.0", "sigma = 10.0", "takes .'sigma_nm'"),
    "a parameter too few": ("factor = 2, labels = false", "factor = 2", "takes .'factor'"),
    "three severities": ("{ gain = 1.5 }, ", "", "index"),
    "unknown views": ('absent = ["geometry"]', 'absent = ["meshes"]', "leaves out"),
    "nothing to look at": (
        'absent = ["geometry"]',
        'absent = ["geometry", "em", "features"]',
        "leaves out",
    ),
    "another volume without a name": ('dataset = "tiny_fib"', "pieces_nm = 9.0", "dataset"),
    "far from nowhere": ("far_from = 3", "", "far_from"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_file_that_says_something_else_is_refused_in_words(what, tmp_path):
    old, new, words = DAMAGE[what]
    assert old in WORDS
    (tmp_path / "s.toml").write_text(WORDS.replace(old, new))

    with pytest.raises(UsageError, match=words) as refused:
        read_shifts(tmp_path / "s.toml")
    assert "\n" not in str(refused.value)


def test_an_absent_file_is_refused_in_words(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_shifts(tmp_path / "s.toml")
