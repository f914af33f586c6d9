"""Surfaces with known content, and Embree as a second opinion on what is seen of them."""

from typing import NamedTuple

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh
from skimage import measure

from cb2_assist.core.geometry import PointNm
from cb2_assist.datasets.source import Mesh

ANCHOR = PointNm(41_000.5, 22_000.25, 63_000.75)
CAMERAS = (  # forward, right, up: the table of core/channels.py
    ((1, 0, 0), (0, -1, 0), (0, 0, 1)),
    ((0, 1, 0), (1, 0, 0), (0, 0, 1)),
    ((0, 0, -1), (1, 0, 0), (0, 1, 0)),
)


def at_anchor(vertices, faces):
    """A mesh whose given coordinates count from the anchor."""
    return Mesh(np.asarray(vertices) + tuple(ANCHOR), np.asarray(faces))


def blob(seed=0, size=48, voxel_nm=20.0):
    """Closed, bumpy, with holes and overhangs: a level set of smooth noise, round the anchor."""
    rng = np.random.default_rng(seed)
    at = np.stack(np.indices((size,) * 3)) / size * 2 - 1
    waves = rng.normal(0, 4, (12, 3))
    phase = rng.uniform(0, 2 * np.pi, 12)
    field = np.cos(np.einsum("wi,ixyz->wxyz", waves, at) + phase[:, None, None, None]).sum(0)
    field -= 6 * (at**2).sum(0)
    field = np.pad(field[1:-1, 1:-1, 1:-1], 1, constant_values=-50)
    vertices, faces, _, _ = measure.marching_cubes(field, -3.0, gradient_direction="ascent")
    return at_anchor((vertices - size / 2) * voxel_nm, faces)


class Seen(NamedTuple):
    """What Embree sees along every line: (view, row, column), normals with x, y, z last."""

    depth: np.ndarray
    face: np.ndarray
    normal: np.ndarray


def embree(vertices, faces, extent_nm, shift_px=0.0, size=224, *, by_area=True, start=None):
    """First hits on a mesh round the origin, smooth normals; infinity and -1 where there is none.

    Args:
        vertices: (n, 3), nm from the anchor.
        faces: (m, 3).
        extent_nm: Half width of the views.
        shift_px: How far right of and below its centre a pixel looks.
        size: Rows and columns.
        by_area: Whether vertex normals weigh faces by their area.
        start: Depth at which lines begin; None is far outside.
    """
    scene = rtcore_scene.EmbreeScene(robust=True)
    v32, f32 = np.asarray(vertices, np.float32), np.asarray(faces, np.int32)
    TriangleMesh(scene, v32, f32)
    at = (np.arange(size) + 0.5 + shift_px) * (2 * extent_nm / size) - extent_nm
    across, down = np.meshgrid(at, at)
    begin = -3.0 * float(np.abs(v32).max()) if start is None else start
    vertex_normal = smooth_normals(v32, f32, by_area=by_area)
    out = []
    for camera in CAMERAS:
        forward, right, up = (np.array(a, float) for a in camera)
        origin = across[..., None] * right - down[..., None] * up + begin * forward
        ray = np.broadcast_to(forward, origin.shape).reshape(-1, 3).astype(np.float32)
        hit = scene.run(origin.reshape(-1, 3).astype(np.float32), ray.copy(), output=True)
        face = hit["primID"].astype(int)
        found = face >= 0
        depth = np.where(found, hit["tfar"] + begin, np.inf)
        u, w = hit["u"][:, None], hit["v"][:, None]
        n = vertex_normal[f32[face]]
        normal = (1 - u - w) * n[:, 0] + u * n[:, 1] + w * n[:, 2]
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
        out.append((depth, face, np.where(found[:, None], normal, 0)))
    shape = (len(CAMERAS), size, size)
    depth, face, normal = (np.stack(part) for part in zip(*out, strict=True))
    return Seen(depth.reshape(shape), face.reshape(shape), normal.reshape(*shape, 3))


def smooth_normals(vertices, faces, *, by_area):
    """Vertex normals in plain numpy."""
    corner = np.asarray(vertices, float)[faces]
    n = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    length = np.linalg.norm(n, axis=1, keepdims=True)
    if not by_area:
        n = np.divide(n, length, out=np.zeros_like(n), where=length > 0)
    total = np.zeros((len(vertices), 3))
    for k in range(3):
        np.add.at(total, faces[:, k], n)
    return total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-12)
