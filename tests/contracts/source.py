"""What every `Source` must do, whatever lies behind it."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cb2_assist.core.errors import OutOfBoundsError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel
from cb2_assist.datasets.dataset_file import SPECIES
from cb2_assist.datasets.source import Cutout, Source


def shifted(box: BoxVx, by: tuple[int, int, int]) -> BoxVx:
    """The same box elsewhere."""
    lo = PointVoxel(*(a + d for a, d in zip(box.lo, by, strict=True)))
    hi = PointVoxel(*(b + d for b, d in zip(box.hi, by, strict=True)))
    return BoxVx(lo, hi)


def inner(box: BoxVx, part: float = 0.5) -> BoxVx:
    """A box in the middle with `part` of each edge, at least one voxel."""
    lo, hi = [], []
    for a, b in zip(box.lo, box.hi, strict=True):
        n = max(1, int((b - a) * part))
        lo.append(a + (b - a - n) // 2)
        hi.append(a + (b - a - n) // 2 + n)
    return BoxVx(PointVoxel(*lo), PointVoxel(*hi))


def assert_same(got: Cutout, wanted: Cutout) -> None:
    """Same box, same voxels."""
    assert got.box == wanted.box
    assert got.resolution == wanted.resolution
    np.testing.assert_array_equal(got.em, wanted.em)
    np.testing.assert_array_equal(got.seg, wanted.seg)


class SourceContract:
    """Subclass with a fixture `source`: an open, small dataset with some segments."""

    @pytest.fixture
    def source(self) -> Source:
        raise NotImplementedError("the subclass provides the dataset")

    def test_info_says_what_every_label_carries(self, source):
        info = source.info
        assert info.name
        assert info.version
        assert info.species in SPECIES
        assert all(isinstance(v, str) for v in dataclasses.asdict(info).values())

    def test_cutout_has_the_agreed_types_order_and_shape(self, source):
        box = inner(source.bounds)
        cut = source.cutout(box)
        assert cut.box == box
        assert cut.resolution == source.resolution
        assert cut.em.dtype == np.uint8
        assert cut.seg.dtype == np.uint64
        assert cut.em.shape == cut.seg.shape == box.shape
        assert cut.em.flags.f_contiguous
        assert cut.seg.flags.f_contiguous

    def test_cutout_is_clipped_to_the_bounds(self, source):
        bounds = source.bounds
        over = shifted(bounds, tuple(n // 2 for n in bounds.shape))
        cut = source.cutout(over)
        assert cut.box == over.clip(bounds)
        assert cut.em.shape == cut.seg.shape == cut.box.shape

    def test_cutout_outside_is_empty(self, source):
        far = shifted(source.bounds, tuple(3 * n for n in source.bounds.shape))
        cut = source.cutout(far)
        assert cut.box.is_empty
        assert cut.em.size == cut.seg.size == 0

    def test_crop_equals_the_cutout_of_the_crop(self, source):
        whole = source.cutout(source.bounds)
        for part in (0.9, 0.5, 0.1):
            box = inner(source.bounds, part)
            assert_same(source.cutout(box), whole.crop(box))

    def test_changing_a_cutout_does_not_change_the_next(self, source):
        box = inner(source.bounds, 0.3)
        first = source.cutout(box)
        kept = Cutout(first.box, first.resolution, first.em.copy(), first.seg.copy())
        first.em.fill(7)
        first.seg.fill(7)
        assert_same(source.cutout(box), kept)

    def test_ids_are_above_what_a_double_can_hold(self, source):
        ids = np.unique(source.cutout(source.bounds).seg)
        ids = ids[ids > 0]
        assert len(ids) >= 2
        assert int(ids.min()) > 2**53

    def test_segment_at_equals_the_cutout(self, source):
        cut = source.cutout(source.bounds)
        rng = np.random.default_rng(0)
        for index in zip(*(rng.integers(0, n, 50) for n in cut.seg.shape), strict=True):
            voxel = PointVoxel(*(int(i) + o for i, o in zip(index, cut.box.lo, strict=True)))
            got = source.segment_at(voxel.to_nm(source.resolution))
            assert type(got) is int
            assert got == int(cut.seg[index])

    def test_segment_at_outside_is_refused_on_every_side(self, source):
        bounds, size = source.bounds, source.resolution
        middle = inner(bounds, 0.01).lo.to_nm(size)
        for axis in range(3):
            for edge in (list(bounds.lo)[axis] - 1, list(bounds.hi)[axis]):
                point = list(middle)
                point[axis] = (edge + 0.5) * list(size)[axis]
                with pytest.raises(OutOfBoundsError, match="outside"):
                    source.segment_at(PointNm.of(point))

    def test_corner_voxels_belong_to_the_volume(self, source):
        bounds = source.bounds
        last = PointVoxel(*(v - 1 for v in bounds.hi))
        for voxel in (bounds.lo, last):
            assert source.segment_at(voxel.to_nm(source.resolution)) >= 0

    def test_a_segment_is_located_by_its_id_alone(self, source):
        cut = source.cutout(source.bounds)
        ids, counts = np.unique(cut.seg[cut.seg > 0], return_counts=True)
        order = np.argsort(counts)
        for segment in {int(ids[order[i]]) for i in (0, len(ids) // 2, -1)}:
            found = source.locate(segment)
            assert found is not None
            assert source.segment_at(found) == segment
        assert source.locate(int(ids.max()) + 1) is None

    def test_em_statistics_describe_the_em(self, source):
        stats = source.em_statistics
        em = source.cutout(source.bounds).em
        assert stats == source.em_statistics
        assert stats.mean == pytest.approx(float(em.mean()), abs=5)
        assert stats.std == pytest.approx(float(em.std()), abs=5)

    def test_layers_name_a_root_for_every_path_on_our_port(self, source):
        layers = source.layers
        for path in (layers.em, layers.seg):
            if "://" not in path:
                prefix, _, rest = path.partition("/")
                assert (layers.roots[prefix] / rest / "info").is_file()
        assert all(v > 0 for v in layers.resolution)

    def test_two_threads_read_the_same(self, source):
        boxes = [inner(source.bounds, p) for p in (1.0, 0.8, 0.6, 0.4)] * 2
        whole = source.cutout(source.bounds)
        with ThreadPoolExecutor(2) as pool:
            for box, cut in zip(boxes, pool.map(source.cutout, boxes), strict=True):
                assert_same(cut, whole.crop(box))
