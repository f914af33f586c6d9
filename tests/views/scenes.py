"""Site windows with known content."""

import numpy as np

from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.views.site import SiteWindow

ISO = Resolution(10, 10, 10)
STATISTICS = EmStatistics(mean=120.0, std=30.0)


def window_of(label, *, resolution=ISO, lo=(0, 0, 0), anchor=None, em=None):
    """A window that holds `label`; the anchor defaults to the middle voxel's centre."""
    label = np.asarray(label, np.uint8)
    if anchor is None:
        middle = PointVoxel(*(n // 2 + o for n, o in zip(label.shape, lo, strict=True)))
        anchor = middle.to_nm(resolution)
    if em is None:
        em = np.full(label.shape, 120, np.uint8)
    hi = (n + o for n, o in zip(label.shape, lo, strict=True))
    site = Site(Kind.JOIN, SegmentId(1), SegmentId(2), PointNm.of(anchor))
    box = BoxVx(PointVoxel(*lo), PointVoxel(*hi))
    return SiteWindow(site, resolution, box, 0.0, em, label.astype(np.uint64), label)


def part_of(window, box):
    """The same window cropped to `box`, on the same memory."""
    box = box.clip(window.box)
    s = tuple(slice(a - o, b - o) for a, b, o in zip(box.lo, box.hi, window.box.lo, strict=True))
    return SiteWindow(
        window.site, window.resolution, box, 0.0, window.em[s], window.seg[s], window.label[s]
    )


def voxel_centres(shape, resolution=ISO):
    """Coordinates of all voxel centres relative to the middle voxel's, nm."""
    return np.meshgrid(
        *((np.arange(n) - n // 2) * r for n, r in zip(shape, resolution, strict=True)),
        indexing="ij",
    )


def random_blobs(rng, shape):
    """Labels 0, 1, 2 (and a 3 that nobody asked for) in coarse random cubes."""
    coarse = rng.choice([0, 0, 0, 1, 2, 3], [n // 3 + 1 for n in shape])
    for axis in range(3):
        coarse = coarse.repeat(3, axis)
    return coarse[tuple(slice(n) for n in shape)].astype(np.uint8)


def fixed_window():
    """Two crossing neurites in whole-number arithmetic: no library's release can change a voxel."""
    x, y, z = np.indices((65, 65, 65)) - 32
    label = np.zeros(x.shape, np.uint8)
    label[(y - 5) ** 2 + (z + x // 3) ** 2 < 150] = 1
    label[((y + 12) ** 2 + x**2 + (z // 4) ** 2 < 140) & (label == 0)] = 2
    em = ((x // 6 * 7 + y // 5 * 13 + z // 7 * 3) % 97 + 80).astype(np.uint8)
    return window_of(label, em=em, resolution=Resolution(8, 8, 10))


FIXED_FEATURES = np.array([0.5, -3, 1e-30, 7], np.float32)
FIXED_EXTENT_NM = 250.0
