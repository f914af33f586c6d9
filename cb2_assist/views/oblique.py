"""The EM plane that shows most of both segments of a join, at any of 51 tilts.

ConnectomeBench2 (arXiv 2606.21116) calls this view ``em_best``. **Only joins have it.** The plane
is the one that cuts both segments' masks best. In a join these are two segments, which the question
itself names. In a cut they are the two sides, which are the answer: a plane chosen from them would
show the model where to cut, whether or not there is anything to cut, so a cut never has this view.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.channels import VIEW_SIZE_PX, EmChannel
from cb2_assist.core.records import Kind
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.views.em import CLEAN_OUTSIDE, SLAB_SAMPLES, grey_scale, stretched
from cb2_assist.views.encode import check_profile
from cb2_assist.views.hitmap import crop, view_box
from cb2_assist.views.jit import kernel
from cb2_assist.views.site import SIDE_A, SIDE_B, SiteWindow

STEP_DEG = 10
"""Candidate planes are this far apart."""
SAME_PLANE = 0.99
"""Two normals with a greater cosine are one candidate."""
SEARCH_PX = 64
"""Rows and columns on which a candidate's areas are measured ..."""
INNER_SHARE = 0.75
"""... within this central share of them along each axis."""

Array = NDArray[Any]


class Frame(NamedTuple):
    """A plane through the site's point; unit vectors, x, y, z."""

    row: Array
    column: Array
    normal: Array


def render_oblique(
    window: SiteWindow, extent_nm: float, profile: str, statistics: EmStatistics
) -> NDArray[np.uint8] | None:
    """Cut the best plane out of a join's window; None for a cut (the module says why).

    Rows and columns follow `plane_frame`; a plane is `SLAB_SAMPLES` samples thick, one finest voxel
    edge apart: mean of the grey values, union of the masks (0 or 255). EM is sampled linearly,
    masks to the nearest voxel.

    ``clean``: pixel centres span ``±extent_nm`` round the site's point, grey is scaled as in
    `em.render_em`, `CLEAN_OUTSIDE` beyond the volume and beyond the view box.
    ``cb2``: a grid from edge to edge of the cube of `em.render_em`, round the voxel that holds the
    point, EM replicated beyond the cube, zero beyond the volume, stretched by its percentiles.

    Returns:
        uint8, (`channels.EmChannel`, row, column).

    Raises:
        BadRequestError: Unknown profile, extent out of range, or statistics without spread.
    """
    check_profile(profile)
    if window.site.kind is not Kind.JOIN:
        return None
    resolution = window.resolution
    box = view_box(window.site.point, extent_nm, resolution)
    em, inside = crop(window.em, window.box, box)
    label, _ = crop(window.label, window.box, box)
    # small copies in one layout, so that compiled code needs one version
    em, label = np.array(em, order="C"), np.array(label, order="C")
    voxel = np.array(tuple(resolution), np.float64)
    finest = resolution.finest
    half = (2 * math.ceil(extent_nm / finest) + 1) / 2 * finest
    centre = np.array(tuple(window.site.point.to_voxel(resolution).to_nm(resolution)))
    corner = np.array(tuple(inside.lo)) * voxel
    frame = best_plane(label, voxel, centre - corner, half)
    size = VIEW_SIZE_PX
    at: Array = (np.arange(size) + 0.5) * (2 * extent_nm / size) - extent_nm
    middle = np.array(tuple(window.site.point))
    cube = np.array([[-np.inf] * 3, [np.inf] * 3])
    if profile == "cb2":
        at, middle = np.linspace(-half, half, size), centre
        edges = np.array([tuple(box.lo), tuple(box.hi)]) * voxel
        low, high = np.maximum(centre - half, edges[0]), np.minimum(centre + half, edges[1])
        cube = np.stack([low, high]) - corner
    steps = (np.arange(SLAB_SAMPLES) - SLAB_SAMPLES // 2) * finest
    grey, bits, found = _sample(em, label, voxel, middle - corner, np.stack(frame), at, steps, cube)
    out = np.zeros((len(EmChannel), size, size), np.uint8)
    if profile == "cb2":
        out[EmChannel.EM] = stretched(grey)
    else:
        gain, offset = grey_scale(statistics)
        scaled = np.rint(np.clip(gain * grey + offset, 0, 255))
        out[EmChannel.EM] = np.where(found, scaled, CLEAN_OUTSIDE)
    out[EmChannel.MASK_A] = 255 * (bits & SIDE_A)
    out[EmChannel.MASK_B] = 255 * (bits & SIDE_B > 0)
    return out


def candidate_normals() -> Array:
    """The x, y and z axis turned from -90 to 90 degrees about y, z and x: 51 planes, (51, 3).

    Each is given by the normal whose first component that is not zero is positive.
    """
    kept: list[Array] = []
    for axis, about in ((0, 1), (1, 2), (2, 0)):
        for angle in np.deg2rad(np.arange(-90, 91, STEP_DEG)):
            start, pole = np.eye(3)[axis], np.eye(3)[about]
            turned = math.cos(angle) * start + math.sin(angle) * np.cross(pole, start)
            clear = np.where(np.abs(turned) < 1e-9, 0.0, turned)
            normal: Array = clear * np.sign(clear[np.flatnonzero(clear)[0]])
            if all(float(normal @ k) <= SAME_PLANE for k in kept):
                kept.append(normal)
    return np.array(kept)


def plane_frame(normal: NDArray[np.float64]) -> Frame:
    """Columns follow u = n x (axis along which n is smallest), rows v = n x u."""
    u = np.cross(normal, np.eye(3)[int(np.argmin(np.abs(normal)))])
    u = u / np.linalg.norm(u)
    return Frame(np.cross(normal, u), u, normal)


@functools.cache
def _frames() -> list[Frame]:
    return [plane_frame(n) for n in candidate_normals()]


def best_plane(label: Array, voxel_nm: Array, centre_nm: Array, half_nm: float) -> Frame:
    """The first of the candidates with the greatest geometric mean of both segments' areas.

    Args:
        label: uint8, 1 = A, 2 = B, axes x, y, z.
        voxel_nm: Edges of a voxel, (3,).
        centre_nm: Where the planes meet, from the array's corner, (3,).
        half_nm: Half width of the planes.
    """
    frames = _frames()
    at = np.linspace(-half_nm, half_nm, SEARCH_PX)
    inner = at[np.abs(at) <= INNER_SHARE * half_nm]
    areas = _areas(label, voxel_nm, centre_nm, np.array([np.stack(f) for f in frames]), inner)
    return frames[int(np.argmax(np.sqrt(np.maximum(areas, 1).prod(1))))]


@kernel
def _areas(label: Array, voxel: Array, centre: Array, frames: Array, at: Array) -> Array:
    """Grid points on A and on B in each plane, int64 (plane, 2)."""
    count = np.zeros((frames.shape[0], 2), np.int64)
    index = np.zeros(3, np.int64)
    for f in range(frames.shape[0]):
        for r in at:
            for c in at:
                inside = True
                for k in range(3):
                    place = centre[k] + r * frames[f, 0, k] + c * frames[f, 1, k]
                    index[k] = int(np.floor(place / voxel[k]))
                    inside = inside and 0 <= index[k] < label.shape[k]
                if inside:
                    value = label[index[0], index[1], index[2]]
                    if value == 1 or value == 2:
                        count[f, value - 1] += 1
    return count


@kernel
def _linear(em: Array, voxel: Array, place: Array) -> float:
    """Trilinear grey at a place in nm from the array's corner; edges replicated."""
    total = 0.0
    for corner in range(8):
        weight = 1.0
        index = (0, 0, 0)
        for k in range(3):
            at = place[k] / voxel[k] - 0.5
            low = np.floor(at)
            upper = (corner >> k) & 1
            weight *= (at - low) if upper else (1 - (at - low))
            i = min(max(int(low) + upper, 0), em.shape[k] - 1)
            if k == 0:
                index = (i, index[1], index[2])
            elif k == 1:
                index = (index[0], i, index[2])
            else:
                index = (index[0], index[1], i)
        if weight > 0.0:
            total += weight * em[index]
    return total


@kernel
def _sample(
    em: Array,
    label: Array,
    voxel: Array,
    centre: Array,
    frame: Array,
    at: Array,
    steps: Array,
    cube: Array,
) -> tuple[Array, Array, Array]:
    """Mean grey (0 where nothing is), union of mask bits, and where there is anything."""
    size = at.shape[0]
    grey = np.zeros((size, size), np.float32)
    bits = np.zeros((size, size), np.uint8)
    found = np.zeros((size, size), np.bool_)
    if em.size == 0:
        return grey, bits, found
    place = np.zeros(3)
    index = np.zeros(3, np.int64)
    for r in range(size):
        for c in range(size):
            total, n = 0.0, 0
            for step in steps:
                in_cube, inside = True, True
                for k in range(3):
                    p = centre[k] + at[r] * frame[0, k] + at[c] * frame[1, k] + step * frame[2, k]
                    in_cube = in_cube and cube[0, k] <= p <= cube[1, k]
                    place[k] = min(max(p, cube[0, k]), cube[1, k] - 1e-6 * voxel[k])
                    index[k] = int(np.floor(place[k] / voxel[k]))
                    inside = inside and 0 <= index[k] < em.shape[k]
                if not inside:
                    continue
                total += _linear(em, voxel, place)
                n += 1
                value = label[index[0], index[1], index[2]]
                if in_cube and (value == 1 or value == 2):
                    bits[r, c] |= value
            if n > 0:
                grey[r, c] = total / n
                found[r, c] = True
    return grey, bits, found
