"""The site window: everything that the model may see of one question.

A window is a pure function of dataset, site and half width. It is centred on the voxel that holds
the site's point and clipped by nothing but the dataset's bounds, so that a site gives the same
numbers whether its window was cropped from a large cutout or read alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import SegmentNotFoundError
from cb2_assist.core.geometry import BoxVx, PointNm, Resolution
from cb2_assist.core.records import Kind, Site
from cb2_assist.datasets.source import Cutout
from cb2_assist.views.jit import kernel
from cb2_assist.views.partition import partition

SIDE_A, SIDE_B = 1, 2
"""Values of a window's label array; 0 is everything else."""


@dataclass(frozen=True, slots=True)
class SiteWindow:
    """EM and labels around one site.

    Attributes:
        box: Absolute voxels of the window, clipped by the dataset's bounds.
        half_width_nm: Half width before clipping.
        em: uint8, shape ``box.shape`` (x, y, z).
        seg: uint64, same shape.
        label: uint8, same shape: 1 = A, 2 = B, 0 = neither. In a join A is the segment and B its
            partner; in a cut A and B are the two sides of the segment, A the larger.
    """

    site: Site
    resolution: Resolution
    box: BoxVx
    half_width_nm: float
    em: NDArray[np.uint8]
    seg: NDArray[np.uint64]
    label: NDArray[np.uint8]

    @property
    def point_vx(self) -> tuple[float, float, float]:
        """The site's point in voxels from the window's corner; voxel 0 spans 0..1."""
        p, r, lo = self.site.point, self.resolution, self.box.lo
        return (p.x / r.x - lo.x, p.y / r.y - lo.y, p.z / r.z - lo.z)


def window_box(
    point: PointNm, half_width_nm: float, resolution: Resolution, bounds: BoxVx
) -> BoxVx:
    """Voxels of the window around ``point``."""
    return BoxVx.around(point, half_width_nm, resolution).clip(bounds)


def build_window(cutout: Cutout, site: Site, half_width_nm: float, bounds: BoxVx) -> SiteWindow:
    """Take a site's window out of a cutout that covers it.

    Args:
        cutout: Must cover `window_box` of the site.
        site: The question.
        half_width_nm: Half width of the window.
        bounds: The dataset's bounds, the only thing that may clip the window.

    Raises:
        SegmentNotFoundError: Segment or partner do not occur in the window, or the segment of a
            cut is too small to have two sides.
        ValueError: The cutout does not cover the window.
    """
    box = window_box(site.point, half_width_nm, cutout.resolution, bounds)
    if box.is_empty or not cutout.box.covers(box):
        raise ValueError(f"cutout {cutout.box} does not cover the site window {box}")
    part = cutout.crop(box)
    if site.kind is Kind.JOIN:
        assert site.partner is not None
        label = _pair_label(part.seg, np.uint64(site.segment), np.uint64(site.partner))
        wanted = (site.segment, site.partner)
    else:
        mask = part.seg == np.uint64(site.segment)
        p, r, lo = site.point, cutout.resolution, box.lo
        at = (p.x / r.x - lo.x, p.y / r.y - lo.y, p.z / r.z - lo.z)
        label = partition(mask, at, r) if mask.any() else mask.astype(np.uint8)
        wanted = (site.segment, site.segment)
    for side, wanted_id in zip((SIDE_A, SIDE_B), wanted, strict=True):
        if not (label == side).any():
            raise SegmentNotFoundError(
                f"Segment {wanted_id} is not within {half_width_nm:.0f} nm of the point "
                f"{tuple(site.point)} nm, or too small there to be judged. The segmentation may "
                "have changed: propose again at the cursor."
            )
    return SiteWindow(site, cutout.resolution, box, half_width_nm, part.em, part.seg, label)


def whole_window(cutout: Cutout, site: Site, half_width_nm: float, bounds: BoxVx) -> SiteWindow:
    """A window for views alone: as `build_window`, but the segment of a cut is A as a whole.

    For views that reach much further than what is asked about; segment and partner may be absent.

    Raises:
        ValueError: The cutout does not cover the window.
    """
    box = window_box(site.point, half_width_nm, cutout.resolution, bounds)
    if box.is_empty or not cutout.box.covers(box):
        raise ValueError(f"cutout {cutout.box} does not cover the site window {box}")
    part = cutout.crop(box)
    if site.partner is None:
        label = SIDE_A * (part.seg == np.uint64(site.segment)).astype(np.uint8)
    else:
        label = _pair_label(part.seg, np.uint64(site.segment), np.uint64(site.partner))
    return SiteWindow(site, cutout.resolution, box, half_width_nm, part.em, part.seg, label)


@kernel
def _pair_label(seg: NDArray[np.uint64], a: np.uint64, b: np.uint64) -> NDArray[np.uint8]:
    out = np.zeros(seg.shape[::-1], np.uint8).T  # Fortran order, as the cutout is
    for z in range(seg.shape[2]):
        for y in range(seg.shape[1]):
            for x in range(seg.shape[0]):
                s = seg[x, y, z]
                if s == a:
                    out[x, y, z] = 1
                elif s == b:
                    out[x, y, z] = 2
    return out
