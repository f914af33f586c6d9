"""The same real segments seen by their meshes and by their labels: FIB-25, FFN segmentation."""

import numpy as np
import pytest
from fixtures_fib25 import fib25_ffn

from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.views.hitmap import EMPTY, render_hits
from cb2_assist.views.mesh_hits import mesh_hits, mesh_reach_nm
from cb2_assist.views.site import build_window

CROP = (slice(0, 130), slice(40, 170), slice(60, 190))
EXTENT = 400.0
VOXEL_NM = 10.0
PAIRS = 8

pytestmark = pytest.mark.shared


def largest_contacts(cutout, n):
    """(segment, partner, point) in the middle of the largest contacts, largest first."""
    found = {}
    for axis in range(3):
        low = cutout.seg.take(range(cutout.seg.shape[axis] - 1), axis)
        high = cutout.seg.take(range(1, cutout.seg.shape[axis]), axis)
        touch = (low != high) & (low > 0) & (high > 0)
        for at, a, b in zip(np.argwhere(touch), low[touch], high[touch], strict=True):
            found.setdefault((int(min(a, b)), int(max(a, b))), []).append(at)
    for pair in sorted(found, key=lambda p: -len(found[p]))[:n]:
        voxels = np.array(found[pair])
        middle = voxels[((voxels - voxels.mean(0)) ** 2).sum(1).argmin()]
        point = (middle + np.array(tuple(cutout.box.lo)) + 0.5) * VOXEL_NM
        yield SegmentId(pair[0]), SegmentId(pair[1]), PointNm.of(point)


@pytest.fixture(scope="module")
def figures(shared_data, tmp_path_factory):
    """Silhouette IoU, depth differences (nm) and angles (degrees), one row per contact."""
    source = open_dataset_file(fib25_ffn(shared_data, tmp_path_factory.mktemp("fib25"), CROP))
    cutout = source.cutout(source.bounds)
    reach = mesh_reach_nm(EXTENT, "clean")
    rows = []
    for segment, partner, point in largest_contacts(cutout, PAIRS):
        site = Site(Kind.JOIN, segment, partner, point)
        labels = render_hits(build_window(cutout, site, EXTENT, source.bounds), EXTENT)
        surfaces = tuple(source.mesh(s, point, reach) for s in (segment, partner))
        meshes = mesh_hits(surfaces, point, EXTENT, "clean")
        a, b = labels.depth_nm != EMPTY, meshes.depth_nm != EMPTY
        apart = meshes.depth_nm.astype(int)[a & b] - labels.depth_nm.astype(int)[a & b]
        n, m = (h.normal_i8.transpose(0, 1, 3, 4, 2)[a & b].astype(float) for h in (labels, meshes))
        cosine = (n * m).sum(1) / np.linalg.norm(n, axis=1) / np.linalg.norm(m, axis=1)
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        rows.append(
            (
                (a & b).sum() / (a | b).sum(),
                np.median(np.abs(apart)),
                np.percentile(np.abs(apart), 90),
                np.median(apart),
                np.median(angle),
            )
        )
    names = ("IoU", "depth p50", "depth p90", "depth bias", "angle p50")
    table = dict(zip(names, np.array(rows).T, strict=True))
    for name, values in table.items():
        print(f"{name:12s} median {np.median(values):6.3f}  worst {values.min():6.3f} .. "
              f"{values.max():6.3f}  n = {len(values)}")  # fmt: skip
    return table


def test_silhouettes_agree(figures):
    assert len(figures["IoU"]) == PAIRS
    assert np.median(figures["IoU"]) > 0.95
    assert figures["IoU"].min() > 0.9


def test_depths_agree_within_a_voxel(figures):
    # the meshes are made of blocks of two voxels and lie up to a voxel outside (datasets.meshes)
    assert figures["depth p50"].max() <= VOXEL_NM
    assert figures["depth p90"].max() <= 2 * VOXEL_NM
    assert (figures["depth bias"] >= -VOXEL_NM).all()
    assert (figures["depth bias"] <= 0).all()


def test_normals_agree(figures):
    assert figures["angle p50"].max() < 12
