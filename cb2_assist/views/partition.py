"""Where a segment is narrow, and the two sides that it falls into when it is cut there.

The segment's thickness (Euclidean distance transform, H. Blum's medial axis distance) is flooded
from thick to thin as in S. Beucher and C. Lantuéjoul's watershed; basins whose saddle is hardly
below the lower peak become one, and so does dust. What is left is a graph of blobs, tubes and arms
whose edges are the places to cut. Everything is a pure function of the mask, so the model sees the
same two sides wherever and whenever it is asked about them.

Coordinates are voxels from the mask's corner: voxel 0 spans 0..1, its centre is 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.geometry import Resolution
from cb2_assist.views import basins, cells

CELL_NM = 20.0
"""Thickness is measured on cells of about this edge: half of the thinnest neck worth a question."""
KEEP_RATIO = 0.8
"""Two basins stay apart where the saddle is below this share of the lower of their two peaks ..."""
KEEP_NM = 10.0
"""... and this far below it: half a cell, the step in which thickness is measured."""
DUST_NM3 = 1e6
"""Smaller basins, 1,000 voxels of 10 nm, join their neighbour: surface bumps, not sides."""
REACH_NM = 300.0
"""A point farther than this from every interface is cut by a plane instead."""
BAND_NM = 60.0
"""Junctions are looked for in level sets of the path length that are this thick."""
ARM_NM3 = 2e6
"""A junction has at least three arms of this volume, a tube 80 nm across and 400 nm long, ..."""
ARM_NM = 240.0
"""... that reach this far along the segment ..."""
ARM_THICKNESSES = 2.5
"""... and as many times the thickness at the junction, so that no bulge of a blob is an arm."""
JUNCTION_SHARE = 0.9
"""A junction lies in one basin with at least this share of its volume."""
AXIS_RADIUS_NM = 200.0
"""The plane stands across the axis of the voxels within this distance of the point."""


@dataclass(frozen=True, slots=True)
class Neck:
    """An interface between two parts of one segment.

    Attributes:
        point_vx: Centre of a voxel face at the interface's thickest place, voxels from the mask's
            corner; both voxels at that face belong to the segment.
        area_nm2: Area of the cut surface, as the length of its summed face vectors: exact for a
            plane at any angle, less than the area of a bent surface.
        ratio: Greatest distance to the surface on the interface over the smaller of the greatest
            distances within the two basins beside it; low is narrow.
        side_nm3: Volumes of the two sides within the mask, the smaller first.
        radius_nm: Radius of the circle of that area.
        reason: ``neck`` or ``junction``.
    """

    point_vx: tuple[float, float, float]
    area_nm2: float
    ratio: float
    side_nm3: tuple[float, float]
    radius_nm: float
    reason: str


@dataclass(frozen=True, slots=True)
class Grid:
    """The mask's bounding box in cells; places and numbers as in `cb2_assist.views.cells`."""

    mask: NDArray[np.uint8]
    whole: tuple[int, ...]
    """Shape of the array that the mask was cropped from."""
    corner: NDArray[np.int64]
    factor: NDArray[np.int64]
    voxel_nm: NDArray[np.float64]
    order: NDArray[np.int64]
    """Cells from thick to thin."""
    place: NDArray[np.int32]
    number: NDArray[np.int32]
    beside: NDArray[np.int32]
    touch: NDArray[np.int32]
    voxels: NDArray[np.int32]
    depth: NDArray[np.float32]

    @property
    def cell_nm(self) -> NDArray[np.float64]:
        """Edges of a cell."""
        return self.voxel_nm * self.factor

    @property
    def voxel_nm3(self) -> float:
        """Volume of a voxel."""
        return float(self.voxel_nm.prod())


@dataclass(frozen=True, slots=True)
class _Graph:
    """Basins and their interfaces. Nodes are 1..n, edges 0..m-1 in order of their nodes."""

    n: int
    label: NDArray[np.int32]
    """Basin of each cell."""
    volume_nm3: NDArray[np.float64]
    peak_nm: NDArray[np.float64]
    pair: NDArray[np.int32]
    saddle_nm: NDArray[np.float64]
    area_nm2: NDArray[np.float64]
    length_nm: NDArray[np.float64]
    """Way from one basin's centre through the interface to the other's."""
    face: NDArray[np.int32]
    """Rows of `basins.borders`."""
    face_edge: NDArray[np.int64]
    face_saddle_nm: NDArray[np.float32]


def partition(
    mask: NDArray[np.bool_] | NDArray[np.uint8],
    point_vx: tuple[float, float, float],
    resolution: Resolution,
) -> NDArray[np.uint8]:
    """Cut a segment in two at the neck nearest the point.

    The sides are what falls apart when that interface is taken out of the graph of basins; where a
    loop still holds them together, each basin goes to the nearer side. Without an interface within
    `REACH_NM` the cut is the plane through the point across the segment's local axis.

    Args:
        mask: Axes x, y, z; nonzero inside the segment. What lies beyond the array is unknown, not
            background, so a segment cut by the window is not thin there.
        point_vx: Voxels from the mask's corner, voxel 0 spans 0..1.
        resolution: Voxel size, nm.

    Returns:
        uint8 of the mask's shape, Fortran order: 1 on the side of more voxels (a tie goes to the
        side of the first voxel, x fastest), 2 on the other, 0 outside and on parts of the mask
        that do not touch the part nearest the point. Both sides have voxels wherever that part has
        at least two.
    """
    out = np.zeros(mask.shape, np.uint8, order="F")
    grid = grid_of(mask, resolution)
    if grid is None:
        return out
    point_nm = (np.asarray(point_vx, np.float64) - grid.corner) * grid.voxel_nm
    graph = _graph(grid)
    here = int(graph.label[cells.nearest_cell(grid.place, grid.cell_nm, point_nm)])
    part = basins.reachable(graph.n, graph.pair, here)
    edge = _nearest_edge(grid, graph, part, point_nm)
    if edge is None:
        label, total = _plane_sides(grid, part[graph.label], point_nm)
    else:
        side = np.zeros(graph.n + 1, np.uint8)
        basins.split_graph(graph.n, graph.pair, graph.length_nm, edge, side)
        label, total = cells.spread(grid.mask, grid.factor, grid.number, side[graph.label])
    _larger_first(label, total)
    inside = tuple(slice(c, c + s) for c, s in zip(grid.corner, grid.mask.shape, strict=True))
    out[inside] = label
    return out


def necks(mask: NDArray[np.bool_] | NDArray[np.uint8], resolution: Resolution) -> list[Neck]:
    """All places where `partition` can cut: necks and the arms of junctions, narrowest first.

    Args:
        mask: As for `partition`.
        resolution: Voxel size, nm.

    Returns:
        One an interface; `partition` at its point cuts exactly there.
    """
    grid = grid_of(mask, resolution)
    return [] if grid is None else necks_in(grid)


def necks_in(grid: Grid) -> list[Neck]:
    """`necks` of a mask whose cells are known already."""
    graph = _graph(grid)
    found = []
    side = np.zeros(graph.n + 1, np.uint8)
    for e in range(len(graph.pair)):
        basins.split_graph(graph.n, graph.pair, graph.length_nm, e, side)
        first = float(graph.volume_nm3[side == 1].sum())
        second = float(graph.volume_nm3[side == 2].sum())
        saddle = float(graph.saddle_nm[e])
        peak = float(graph.peak_nm[graph.pair[e]].min())
        clear = saddle < KEEP_RATIO * peak and peak - saddle >= KEEP_NM
        found.append(
            Neck(
                point_vx=_edge_point(grid, graph, e),
                area_nm2=float(graph.area_nm2[e]),
                ratio=saddle / peak,
                side_nm3=(min(first, second), max(first, second)),
                radius_nm=math.sqrt(float(graph.area_nm2[e]) / math.pi),
                reason="neck" if clear else "junction",
            )
        )
    return sorted(found, key=lambda k: (k.ratio, k.point_vx))


def cell_voxels(resolution: Resolution) -> NDArray[np.int64]:
    """Voxels per cell along x, y, z; cells are counted from the mask's corner.

    Masks whose corners are a multiple of this apart have their necks in the same places.
    """
    rounded = np.rint(CELL_NM / np.array(list(resolution)))
    return np.maximum(1, rounded).astype(np.int64)


def warm_up() -> None:
    """Compile the loops, so that the first question does not wait for it."""
    mask = np.zeros((40, 9, 9), bool, order="F")
    mask[:9] = mask[9:31, 3:6, 3:6] = mask[31:] = True
    resolution = Resolution(20.0, 20.0, 20.0)
    necks(mask, resolution)
    for point in ((9.0, 4.5, 4.5), (31.0, 4.5, 4.5)):  # one of them names the sides anew
        partition(mask, point, resolution)
        partition(mask[::-1], point, resolution)
    partition(mask[:9], (4.5, 4.5, 4.5), resolution)


def grid_of(mask: NDArray[np.bool_] | NDArray[np.uint8], resolution: Resolution) -> Grid | None:
    """Crop a mask and coarsen it to cells; None for an empty one."""
    whole: NDArray[np.uint8] = np.asfortranarray(mask).view(np.uint8)
    box = cells.bounding_box(whole)
    if not box.any():
        return None
    voxel = np.array(list(resolution), np.float64)
    factor = cell_voxels(resolution)
    # a voxel of margin, where the mask has one, so that the surface is inside the crop; cells keep
    # their place in the mask
    lo = np.maximum(box[:, 0] - 1, 0) // factor * factor
    hi = np.minimum(box[:, 1] + 1, mask.shape)
    crop = np.asfortranarray(whole[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))])
    count, faces = cells.coarsen(crop, factor)
    longest = float(np.linalg.norm(voxel * crop.shape))
    depth = cells.thickness(count, int(factor.prod()), voxel * factor, longest)
    place, key = cells.list_cells(count, depth)
    order = np.argsort(key, kind="stable")
    linked = cells.link_cells(place, count, depth, faces)
    return Grid(crop, whole.shape, lo, factor, voxel, order, place, *linked)


def _graph(grid: Grid) -> _Graph:
    """Basins without dust, split further at junctions, and the interfaces between them."""
    graph = _measure(grid, basins.flood(grid.order, grid.depth, grid.beside, KEEP_RATIO, KEEP_NM))
    dustless = _without_dust(graph)
    if int(dustless.max()) < graph.n:
        graph = _measure(grid, dustless[graph.label])
    split = _split_at_junctions(grid, graph)
    return graph if split is None else _measure(grid, split)


def _measure(grid: Grid, label: NDArray[np.int32]) -> _Graph:
    """Volumes, peaks and interfaces of labelled cells."""
    n = int(label.max())
    size, centre, peak = basins.describe(label, n, grid.place, grid.voxels, grid.depth)
    face = basins.borders(label, grid.beside, grid.touch)
    below, axis, above, label_below, label_above, touching = face.T
    low = np.minimum(label_below, label_above).astype(np.int64)
    high = np.maximum(label_below, label_above).astype(np.int64)
    keys, face_edge = np.unique(low * (n + 1) + high, return_inverse=True)
    face_edge = face_edge.reshape(-1)
    m = len(keys)
    pair = np.stack([keys // (n + 1), keys % (n + 1)], axis=1).astype(np.int32)
    face_saddle = np.minimum(grid.depth[below], grid.depth[above])
    saddle = np.zeros(m)
    np.maximum.at(saddle, face_edge, face_saddle)

    area = touching * (grid.voxel_nm3 / grid.voxel_nm)[axis]
    signed = np.where(label_below == low, area, -area)
    vector = [np.bincount(face_edge, signed * (axis == k), m) for k in range(3)]
    whole = np.bincount(face_edge, area, m)
    middle = [
        np.bincount(face_edge, area * (grid.place[below, k] + 0.5 + 0.5 * (axis == k)), m) / whole
        for k in range(3)
    ]
    ways = [(centre[pair[:, k]] - np.stack(middle, axis=1)) * grid.cell_nm for k in range(2)]
    return _Graph(
        n=n,
        label=label,
        volume_nm3=size.astype(np.float64) * grid.voxel_nm3,
        peak_nm=peak,
        pair=pair,
        saddle_nm=saddle,
        area_nm2=np.sqrt(np.sum(np.square(vector), axis=0)),
        length_nm=np.sum([np.linalg.norm(w, axis=1) for w in ways], axis=0),
        face=face,
        face_edge=face_edge,
        face_saddle_nm=face_saddle,
    )


def _without_dust(graph: _Graph) -> NDArray[np.int32]:
    """New names of the basins after each one below `DUST_NM3` has joined across a high saddle."""
    parent = list(range(graph.n + 1))
    volume = graph.volume_nm3.tolist()

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    pairs = graph.pair.tolist()
    for e in np.argsort(-graph.saddle_nm, kind="stable").tolist():
        a, b = root(pairs[e][0]), root(pairs[e][1])
        if a != b and min(volume[a], volume[b]) < DUST_NM3:
            a, b = min(a, b), max(a, b)
            parent[b] = a
            volume[a] += volume[b]
    roots = np.array([root(i) for i in range(graph.n + 1)])
    return np.unique(roots, return_inverse=True)[1].reshape(-1).astype(np.int32)


def _split_at_junctions(grid: Grid, graph: _Graph) -> NDArray[np.int32] | None:
    """Labels with junctions and their arms as basins of their own; None where there are none.

    Tubes of equal thickness meet without a saddle, so thickness does not see them. Path length
    does: its level sets (the Reeb graph of the distance along the segment) fall apart at a
    junction, and a level set whose removal leaves three arms is one.
    """
    unit = float(grid.cell_nm.min())
    step = np.maximum(1, np.rint(grid.cell_nm / unit)).astype(np.int64)
    band = basins.path_lengths(grid.order, grid.beside, step) // round(BAND_NM / unit)
    level, n = basins.components(band, grid.beside)
    face = basins.borders(level, grid.beside, grid.touch)
    key = np.unique(face[:, 3].astype(np.int64) * (n + 1) + face[:, 4])
    pair = np.stack([key // (n + 1), key % (n + 1)], axis=1)
    size, _, thick = basins.describe(level, n, grid.place, grid.voxels, grid.depth)
    volume_nm3 = size.astype(np.float64) * grid.voxel_nm3
    number = np.zeros(n + 1, np.int64)
    number[level] = band
    reach = np.maximum(ARM_NM, ARM_THICKNESSES * thick) / BAND_NM
    arms = basins.count_arms(n, pair, volume_nm3, number, ARM_NM3, reach)
    inside = (arms >= 3)[level]
    if not inside.any():
        return None
    # neighbouring level sets of one junction are one piece; a piece across a neck is left to it
    piece, pieces = basins.components(inside.astype(np.int32), grid.beside)
    shares = np.bincount(piece * (graph.n + 1) + graph.label, grid.voxels)
    shares.resize((pieces + 1, graph.n + 1))
    share = shares.max(axis=1)
    whole = np.bincount(piece, grid.voxels, pieces + 1)
    inside &= (share >= JUNCTION_SHARE * whole)[piece]
    if not inside.any():
        return None
    piece, _ = basins.components(2 * graph.label + inside, grid.beside)
    return _join_scraps(grid, graph, piece, inside)


def _join_scraps(
    grid: Grid, graph: _Graph, piece: NDArray[np.int32], inside: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Undo splits within one basin that made no arm, so that thickness alone decides there."""
    cut = _measure(grid, piece)
    basin = np.zeros(cut.n + 1, np.int32)
    basin[piece] = graph.label
    is_junction = np.zeros(cut.n + 1, bool)
    is_junction[piece] = inside
    parent = np.arange(cut.n + 1)
    volume = cut.volume_nm3
    for e in np.argsort(-cut.saddle_nm, kind="stable"):
        a, b = (int(k) for k in cut.pair[e])
        arm, core = (b, a) if is_junction[a] else (a, b)
        # scraps beside a junction become part of it; arms and junctions stay
        if basin[a] == basin[b] and parent[arm] == arm and volume[arm] < ARM_NM3:
            parent[arm] = core
    names = np.unique(parent, return_inverse=True)[1].reshape(-1).astype(np.int32)
    return names[piece]


def _nearest_edge(
    grid: Grid, graph: _Graph, part: NDArray[np.bool_], point_nm: NDArray[np.float64]
) -> int | None:
    """The interface nearest the point between basins of its part; None beyond `REACH_NM`."""
    usable = np.flatnonzero(part[graph.face[:, 3]])
    if not len(usable):
        return None
    across = np.eye(3)[graph.face[usable, 1]]
    centre = (grid.place[graph.face[usable, 0]] + 0.5 + 0.5 * across) * grid.cell_nm
    half = 0.5 * (1.0 - across) * grid.cell_nm
    # to the rectangle, not to its centre: a point on one face then never prefers another
    distance = np.linalg.norm(np.maximum(np.abs(point_nm - centre) - half, 0.0), axis=1)
    middle = np.linalg.norm(point_nm - centre, axis=1)
    best = np.lexsort((middle, distance))[0]
    return int(graph.face_edge[usable[best]]) if distance[best] <= REACH_NM else None


def _edge_point(grid: Grid, graph: _Graph, edge: int) -> tuple[float, float, float]:
    """A voxel face of the segment at the thickest place of an interface, in the mask's voxels."""
    rows = np.flatnonzero(graph.face_edge == edge)
    below, axes = graph.face[rows, 0], graph.face[rows, 1]
    centre = (grid.place[below] + 0.5 + 0.5 * np.eye(3)[axes]) * grid.cell_nm
    middle = np.average(centre, axis=0, weights=graph.face[rows, 5])
    away = np.linalg.norm(centre - middle, axis=1)
    best = np.lexsort((away, -graph.face_saddle_nm[rows]))[0]

    axis, cell = int(axes[best]), grid.place[below[best]]
    lo = cell * grid.factor
    hi = np.minimum(lo + grid.factor, grid.mask.shape)
    lo[axis] = hi[axis] - 1
    low = grid.mask[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))] > 0
    lo[axis] += 1
    hi[axis] += 1
    high = grid.mask[tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))] > 0
    spots = np.argwhere(low & high) + lo + 0.5
    spots[:, axis] -= 0.5
    target = (cell + 0.5) * grid.factor
    target[axis] = lo[axis]
    chosen = spots[np.argmin(np.linalg.norm((spots - target) * grid.voxel_nm, axis=1))]
    x, y, z = (float(v) for v in chosen + grid.corner)
    return (x, y, z)


def _plane_sides(
    grid: Grid, part: NDArray[np.bool_], point_nm: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Cut the marked cells by the plane through the point across their local axis.

    Two voxels or more are never left whole.
    """
    inside, total = cells.spread(grid.mask, grid.factor, grid.number, part.astype(np.uint8))
    if total[1] < 2:
        return inside, total
    for radius in (AXIS_RADIUS_NM, np.inf):
        number, first, second = cells.axis_moments(inside, grid.voxel_nm, point_nm, radius)
        if number < 2:
            continue
        middle = first / number
        axis = np.linalg.eigh(second / number - np.outer(middle, middle))[1][:, -1]
        axis *= np.sign(axis[np.argmax(np.abs(axis))])
        # the point may lie beyond the part's end; the voxels' middle never does
        for through in (point_nm, point_nm + middle):
            total = cells.plane_split(inside, grid.voxel_nm, through, axis)
            if total[1] and total[2]:
                return inside, total
    return inside, total


def _larger_first(label: NDArray[np.uint8], total: NDArray[np.int64]) -> None:
    """Name the side with more voxels 1, in place."""
    swap = total[2] > total[1]
    if total[1] == total[2] > 0:
        flat = label.ravel(order="F")
        swap = flat[np.argmax(flat > 0)] == 2
    if swap:
        cells.swap_sides(label)
