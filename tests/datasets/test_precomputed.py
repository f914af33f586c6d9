"""Written volumes: lossless, with coarser scales that lie on the right voxels."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dataset_makers import blocks, grey

from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.layer import Layer
from cb2_assist.datasets.precomputed import block_mean, write_em, write_segmentation


def open_layer(key: str, folder) -> Layer:
    return Layer(key, f"precomputed://file://{folder}", complete=True)


def test_block_mean_is_the_mean_over_each_block():
    array = np.arange(4 * 6 * 2, dtype=np.uint8).reshape(4, 6, 2)
    wanted = array.reshape(2, 2, 2, 3, 2, 1).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(block_mean(array, (2, 3, 1)), wanted)


@pytest.mark.parametrize(
    ("voxel_nm", "second_nm"), [((10, 10, 10), (20, 20, 20)), ((4, 4, 40), (8, 8, 40))]
)
def test_coarser_scales_halve_the_fine_axes_from_even_voxels(tmp_path, voxel_nm, second_nm):
    shape, first = (131, 70, 45), (-3, 7, 5)
    offset_nm = tuple(a * b for a, b in zip(first, voxel_nm, strict=True))
    em, seg = grey(shape), blocks(shape)
    grid = grid_of(voxel_nm, offset_nm)
    write_em(tmp_path / "em", em, grid)
    write_segmentation(tmp_path / "seg", seg, grid, mesh=False)
    ems, segs = open_layer("em", tmp_path / "em"), open_layer("segmentation", tmp_path / "seg")
    np.testing.assert_array_equal(ems.read(0, ems.scales[0].bounds), em)
    np.testing.assert_array_equal(segs.read(0, segs.scales[0].bounds), seg)
    scale = ems.scales[1]
    assert scale == segs.scales[1]
    assert tuple(scale.resolution) == second_nm
    factors = tuple(int(b / a) for a, b in zip(voxel_nm, second_nm, strict=True))
    lo = [v // f for v, f in zip(first, factors, strict=True)]
    assert list(scale.bounds.lo) == lo
    # coarse voxel w covers absolute fine voxels [w f, (w + 1) f)
    w = (5, 6, 7)
    fine = tuple(
        slice((a + i) * f - o, (a + i + 1) * f - o)
        for a, i, f, o in zip(lo, w, factors, first, strict=True)
    )
    assert ems.read(1, scale.bounds)[w] == round(float(em[fine].mean()))
    assert segs.read(1, scale.bounds)[w] == seg[tuple(s.start for s in fine)]


def test_small_volume_has_one_scale(tmp_path):
    write_em(tmp_path / "em", grey((20, 20, 20)), grid_of((10, 10, 10)))
    assert len(open_layer("em", tmp_path / "em").scales) == 1


def test_info_names_the_meshes_and_the_voxel_size(tmp_path):
    write_segmentation(tmp_path / "s", blocks((20, 20, 20)), grid_of((7.5, 8, 33.3)), mesh=True)
    info = json.loads((tmp_path / "s" / "info").read_text())
    assert info["mesh"] == "mesh"
    assert info["scales"][0]["resolution"] == [7.5, 8, 33.3]
    assert info["data_type"] == "uint64"
