"""First hits of the three cameras on surface meshes: the same `HitMap` as from labels.

An orthographic z-buffer: every triangle is drawn into the pixels whose lines of sight it crosses,
the nearest wins, normals are computed afterwards for the triangles that won. Nothing is allocated
per triangle and only one number per vertex, so a mesh of any size needs little more than itself.

What is drawn depends on the encoding that the hits are for.

========== ================================== ==================================================
           ``clean``                          ``cb2``, as ConnectomeBench2 (arXiv 2606.21116)
========== ================================== ==================================================
reach      the view box, lines are cut there  triangles with all corners within 1.2 half widths
open ends  closed: a line that begins inside  open: the inner side of the far wall is seen
           the segment hits the box's face
normals    vertex normals weighted by area,   unit face normals averaged at vertices without
           interpolated; the camera's side at weights, interpolated, never flipped
           closed ends
lines      through pixel centres              a quarter pixel off (`hitmap.SAMPLE_SHIFT_PX`)
========== ================================== ==================================================

``clean`` so shows a segment as solid, exactly as labels do; that needs faces that look outwards
(`datasets.source.Mesh`). Both sides of a triangle are hit in either.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.channels import VIEW_SIZE_PX
from cb2_assist.core.errors import BadRequestError
from cb2_assist.core.geometry import PointNm
from cb2_assist.datasets.source import Mesh
from cb2_assist.views.encode import check_profile
from cb2_assist.views.hitmap import (
    CAMERAS,
    EMPTY,
    MAX_DEPTH_NM,
    NORMAL_SCALE,
    HitMap,
    line_offsets,
)
from cb2_assist.views.jit import kernel

CB2_REACH = 1.2
"""ConnectomeBench2 keeps triangles within this many half widths of the anchor, on each axis."""

Array = NDArray[Any]


class _Style(NamedTuple):
    """How a mesh is drawn.

    Attributes:
        reach_nm: Triangles with a corner farther than this from the anchor along an axis are left
            out.
        near_nm: Lines of sight begin here.
        far_nm: What they first hit beyond this is not shown.
        solid: Whether a line that first meets a back face began inside the segment.
        by_area: Whether a face counts by its area in its corners' normals.
    """

    reach_nm: float
    near_nm: float
    far_nm: float
    solid: bool
    by_area: bool


def _style(profile: str, extent_nm: float) -> _Style:
    check_profile(profile)
    if profile == "cb2":
        reach = CB2_REACH * float(extent_nm)
        return _Style(reach, -reach, reach, solid=False, by_area=False)
    return _Style(np.inf, -float(extent_nm), float(extent_nm), solid=True, by_area=True)


def mesh_reach_nm(extent_nm: float, profile: str) -> float:
    """How far from the anchor, along each axis, `mesh_hits` must know a segment's surface.

    For ``clean`` a surface behind the view box decides whether a line without a hit runs inside the
    segment; one box more is asked for, and a segment that fills even that needs its whole mesh.
    """
    return (CB2_REACH if profile == "cb2" else 3.0) * extent_nm


def mesh_hits(
    meshes: tuple[Mesh | None, Mesh | None],
    point: PointNm,
    extent_nm: float,
    profile: str,
    size_px: int = VIEW_SIZE_PX,
) -> HitMap:
    """Look at the meshes of segments A and B from the three cameras.

    A pure function. Triangles seen edge-on cover no line of sight and are not drawn; an edge that
    two triangles share leaves no gap. Of a front and a back face at the same depth the front wins.

    Args:
        meshes: Surfaces of A and B; None is nothing to see.
        point: The anchor, nm.
        extent_nm: Half width of every view.
        profile: The encoding that the hits are for.
        size_px: Rows and columns.

    Raises:
        BadRequestError: Unknown profile or extent out of range.
    """
    style = _style(profile, extent_nm)
    if not (extent_nm > 0 and style.far_nm <= MAX_DEPTH_NM):
        largest = MAX_DEPTH_NM / (CB2_REACH if profile == "cb2" else 1)
        raise BadRequestError(
            f"The half width of a view of meshes must lie between 0 and {largest:g} nm, got "
            f"{extent_nm:g}."
        )
    first = line_offsets(extent_nm, size_px, profile)[0]
    lines = np.array([first, size_px / (2 * extent_nm)])
    views = len(CAMERAS)
    depth = np.full((views, 2, size_px, size_px), EMPTY, np.int16)
    normal = np.zeros((views, 2, 3, size_px, size_px), np.int8)
    cameras = np.array([tuple(CAMERAS[v]) for v in sorted(CAMERAS)], np.int64)
    anchor = np.array(tuple(point), np.float64)
    for k, mesh in enumerate(meshes):
        if mesh is None or not len(mesh.faces):
            continue
        nearest, face = _draw(mesh.vertices, mesh.faces, anchor, cameras, lines, size_px, style)
        row, used = _rows_of_hit_corners(len(mesh.vertices), mesh.faces, face)
        bend = _vertex_normals(mesh.vertices, mesh.faces, anchor, row, used, style)
        _shade(
            mesh.vertices, mesh.faces, anchor, cameras, lines, style,
            nearest, face, row, bend, depth[:, k], normal[:, k],
        )  # fmt: skip
    return HitMap(depth, normal)


@kernel
def _corners(
    vertices: Array, faces: Array, t: int, anchor: Array, camera: Array, lines: Array, out: Array
) -> None:
    """Column, row and depth of a face's corners, (corner, 3); line of sight i lies at i."""
    for k in range(3):
        v = vertices[faces[t, k]]
        right = camera[3] * (np.float64(v[camera[2]]) - anchor[camera[2]])
        up = np.float64(v[camera[4]]) - anchor[camera[4]]
        out[k, 0] = (right - lines[0]) * lines[1]
        out[k, 1] = (-up - lines[0]) * lines[1]
        out[k, 2] = camera[1] * (np.float64(v[camera[0]]) - anchor[camera[0]])


@kernel
def _weights(p: Array, c: float, r: float, out: Array) -> float:
    """Shares of the three corners in what line (c, r) hits, times the area that is returned.

    The area is positive for a face that looks away from the camera, as rows run down. Two faces
    compute the sign at their common edge from equal products, so one of them has the line.
    """
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        out[k] = (p[i, 0] - c) * (p[j, 1] - r) - (p[j, 0] - c) * (p[i, 1] - r)
    return float(out[0] + out[1] + out[2])


@kernel
def _beyond(vertices: Array, faces: Array, t: int, anchor: Array, reach: float) -> bool:
    """Whether a corner of the face is farther than the reach along any axis."""
    if reach == np.inf:
        return False
    for k in range(3):
        for axis in range(3):
            if abs(np.float64(vertices[faces[t, k], axis]) - anchor[axis]) > reach:
                return True
    return False


@kernel
def _in_no_column(vertices: Array, faces: Array, t: int, anchor: Array, half: float) -> bool:
    """Whether the face misses every camera: a column is bounded along two axes."""
    a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
    missed = 0
    for axis in range(3):
        low, high = anchor[axis] - half, anchor[axis] + half
        u, v, w = vertices[a, axis], vertices[b, axis], vertices[c, axis]
        missed += (u < low and v < low and w < low) or (u > high and v > high and w > high)
    return missed > 1


@kernel
def _draw(
    vertices: Array,
    faces: Array,
    anchor: Array,
    cameras: Array,
    lines: Array,
    size: int,
    style: _Style,
) -> tuple[Array, Array]:
    """Depth in nm and face of the first hit, (view, row, column); infinity and -1 without one."""
    nearest = np.full((cameras.shape[0], size, size), np.inf)
    face = np.full((cameras.shape[0], size, size), np.int64(-1))
    from_front = np.zeros((cameras.shape[0], size, size), np.bool_)
    p = np.empty((3, 3))
    half = max(-lines[0], lines[0] + (size - 1) / lines[1])
    for t in range(faces.shape[0]):
        # most triangles of a large mesh end here
        if _in_no_column(vertices, faces, t, anchor, half) or _beyond(
            vertices, faces, t, anchor, style.reach_nm
        ):
            continue
        for view in range(cameras.shape[0]):
            _corners(vertices, faces, t, anchor, cameras[view], lines, p)
            x0, x1, x2 = p[0, 0], p[1, 0], p[2, 0]
            left, right = min(x0, x1, x2), max(x0, x1, x2)
            if right < 0 or left > size - 1:
                continue
            y0, y1, y2 = p[0, 1], p[1, 1], p[2, 1]
            top, bottom = min(y0, y1, y2), max(y0, y1, y2)
            if bottom < 0 or top > size - 1 or max(p[0, 2], p[1, 2], p[2, 2]) < style.near_nm:
                continue
            c_from, c_to = int(np.ceil(max(left, 0.0))), int(np.floor(min(right, size - 1.0))) + 1
            for r in range(int(np.ceil(max(top, 0.0))), int(np.floor(min(bottom, size - 1.0))) + 1):
                u0, u1, u2 = y0 - r, y1 - r, y2 - r
                for c in range(c_from, c_to):
                    # `_weights` in scalars: most lines of a triangle's bounds miss it
                    a = (x1 - c) * u2 - (x2 - c) * u1
                    b = (x2 - c) * u0 - (x0 - c) * u2
                    d = (x0 - c) * u1 - (x1 - c) * u0
                    if (a < 0 or b < 0 or d < 0) and (a > 0 or b > 0 or d > 0):
                        continue
                    area = a + b + d
                    if area == 0:
                        continue
                    z = (a * p[0, 2] + b * p[1, 2] + d * p[2, 2]) / area
                    if z < style.near_nm or z > nearest[view, r, c]:
                        continue
                    front = area < 0
                    if z < nearest[view, r, c] or (front and not from_front[view, r, c]):
                        nearest[view, r, c] = z
                        face[view, r, c] = t
                        from_front[view, r, c] = front
    return nearest, face


@kernel
def _face_normal(vertices: Array, faces: Array, t: int) -> tuple[float, float, float]:
    """Cross product of two edges: twice the area long, outwards."""
    a, b, c = faces[t, 0], faces[t, 1], faces[t, 2]
    ux = np.float64(vertices[b, 0]) - np.float64(vertices[a, 0])
    uy = np.float64(vertices[b, 1]) - np.float64(vertices[a, 1])
    uz = np.float64(vertices[b, 2]) - np.float64(vertices[a, 2])
    vx = np.float64(vertices[c, 0]) - np.float64(vertices[a, 0])
    vy = np.float64(vertices[c, 1]) - np.float64(vertices[a, 1])
    vz = np.float64(vertices[c, 2]) - np.float64(vertices[a, 2])
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@kernel
def _rows_of_hit_corners(n: int, faces: Array, face: Array) -> tuple[Array, int]:
    """A number for each vertex of the faces that were hit, -1 for the others: int32 (n,)."""
    row = np.full(n, np.int32(-1), np.int32)
    used = 0
    for t in face.flat:
        if t >= 0:
            for k in range(3):
                if row[faces[t, k]] < 0:
                    row[faces[t, k]] = used
                    used += 1
    return row, used


@kernel
def _vertex_normals(
    vertices: Array, faces: Array, anchor: Array, row: Array, used: int, style: _Style
) -> Array:
    """Normals at the vertices that have a row, (row, 3); unit or zero."""
    total = np.zeros((used, 3))
    for t in range(faces.shape[0]):
        if row[faces[t, 0]] < 0 and row[faces[t, 1]] < 0 and row[faces[t, 2]] < 0:
            continue
        if _beyond(vertices, faces, t, anchor, style.reach_nm):
            continue
        nx, ny, nz = _face_normal(vertices, faces, t)
        length = np.sqrt(nx * nx + ny * ny + nz * nz)
        if length == 0.0:
            continue
        scale = 1.0 if style.by_area else 1.0 / length
        for k in range(3):
            i = row[faces[t, k]]
            if i >= 0:
                total[i, 0] += scale * nx
                total[i, 1] += scale * ny
                total[i, 2] += scale * nz
    for i in range(used):
        length = np.sqrt(total[i, 0] ** 2 + total[i, 1] ** 2 + total[i, 2] ** 2)
        if length > 0.0:
            for axis in range(3):
                total[i, axis] /= length
    return total


@kernel
def _shade(
    vertices: Array,
    faces: Array,
    anchor: Array,
    cameras: Array,
    lines: Array,
    style: _Style,
    nearest: Array,
    face: Array,
    row: Array,
    bend: Array,
    depth: Array,
    normal: Array,
) -> None:
    """Depths and normals of one segment, quantised."""
    p, w, n = np.empty((3, 3)), np.empty(3), np.empty(3)
    for view in range(cameras.shape[0]):
        depth_axis, toward = cameras[view, 0], -cameras[view, 1]
        for r in range(face.shape[1]):
            for c in range(face.shape[2]):
                t = face[view, r, c]
                if t < 0:
                    continue
                _corners(vertices, faces, t, anchor, cameras[view], lines, p)
                area = _weights(p, c, r, w)
                if style.solid and area > 0:
                    depth[view, r, c] = np.int16(np.rint(style.near_nm))
                    normal[view, depth_axis, r, c] = np.int8(toward * NORMAL_SCALE)
                    continue
                if nearest[view, r, c] > style.far_nm:
                    continue
                depth[view, r, c] = np.int16(np.rint(nearest[view, r, c]))
                for axis in range(3):
                    n[axis] = 0.0
                    for k in range(3):
                        n[axis] += w[k] / area * bend[row[faces[t, k]], axis]
                length = np.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2])
                if length == 0.0:  # the corners' normals cancel out
                    n[0], n[1], n[2] = _face_normal(vertices, faces, t)
                    length = np.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2])
                for axis in range(3):
                    normal[view, axis, r, c] = np.int8(np.rint(n[axis] / length * NORMAL_SCALE))
