"""How many of the sites that the finder proposes are true, where the truth is known."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cb2_assist.candidates.finder import cutout_half_width_nm, find
from cb2_assist.core.errors import SegmentNotFoundError
from cb2_assist.core.geometry import BoxVx, PointVoxel
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.learning.examples import Volume, cut_answer
from cb2_assist.settings import SEARCH_RADIUS_NM
from cb2_assist.views.site import build_window

PROBES = 150
_CLEAR = 0.75
"""Share of a segment that a truth body must have to be what the segment is."""


def proposed_rates(
    volumes: Iterable[Volume], extent_nm: float, seed: int
) -> tuple[dict[str, float], dict[str, int]]:
    """Share of true sites among what the finder proposes.

    `PROBES` random voxels of segments of each volume are pointed at, as a cursor would; sites
    without a clear answer are left out. Laplace's rule keeps the rates off 0 and 1.

    Args:
        volumes: With truth.
        extent_nm: Half width of a site's window.
        seed: Of the voxels.

    Returns:
        Share and number of sites, by question.
    """
    yes = dict.fromkeys(Kind, 0)
    n = dict.fromkeys(Kind, 0)
    rng = np.random.default_rng(seed)
    half = cutout_half_width_nm(SEARCH_RADIUS_NM)
    for volume in volumes:
        ids, index, size = np.unique(volume.seg, return_inverse=True, return_counts=True)
        body = _bodies(volume)
        places = np.flatnonzero((ids[index.ravel()] > 0) & (size[index.ravel()] >= 1000))
        for flat in rng.choice(places, min(PROBES, len(places)), replace=False):
            v = np.unravel_index(int(flat), volume.seg.shape)
            at = PointVoxel(*(int(a) + lo for a, lo in zip(v, volume.box.lo, strict=True))).to_nm(
                volume.resolution
            )
            segment = SegmentId(int(volume.seg[v]))
            cutout = volume.cutout.crop(BoxVx.around(at, half, volume.resolution))
            for candidate in find(cutout, segment, at, radius_nm=SEARCH_RADIUS_NM):
                answer = _truth_of(candidate.site, volume, extent_nm, body)
                if answer is not None:
                    n[candidate.site.kind] += 1
                    yes[candidate.site.kind] += answer
    rates = {k.value: round((yes[k] + 1) / (n[k] + 2), 4) for k in Kind}
    return rates, {k.value: n[k] for k in Kind}


def _bodies(volume: Volume) -> dict[int, int]:
    """Majority truth body of each segment; segments without a clear one are absent."""
    pair = np.stack([volume.seg.ravel("K"), volume.truth.ravel("K")], 1)
    rows, count = np.unique(pair, axis=0, return_counts=True)
    total: dict[int, int] = {}
    best: dict[int, tuple[int, int]] = {}
    for (seg, body), c in zip(rows.tolist(), count.tolist(), strict=True):
        total[seg] = total.get(seg, 0) + c
        if c > best.get(seg, (0, 0))[0]:
            best[seg] = (c, body)
    return {s: b for s, (c, b) in best.items() if b and c >= _CLEAR * total[s]}


def _truth_of(site: Site, volume: Volume, extent_nm: float, body: dict[int, int]) -> bool | None:
    if site.partner is not None:
        a, b = body.get(site.segment), body.get(site.partner)
        return None if a is None or b is None else a == b
    try:
        window = build_window(volume.cutout, site, extent_nm, volume.box)
    except SegmentNotFoundError:
        return None  # too thin there to have two sides
    s = tuple(
        slice(i - o, j - o)
        for i, j, o in zip(window.box.lo, window.box.hi, volume.box.lo, strict=True)
    )
    found = cut_answer(window, volume.truth[s])
    return None if found is None else found[0]
