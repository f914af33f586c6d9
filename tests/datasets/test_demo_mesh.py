import numpy as np
import pytest
import trimesh

from cb2_assist.datasets.demo_mesh import surface_nets


def ball(shape, centre, radius):
    z, y, x = np.indices(shape) + 0.5
    cx, cy, cz = centre
    return (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2


def test_a_ball_is_meshed_closed_outward_and_in_place():
    labels = ball((20, 24, 28), (15.0, 12.0, 9.0), 7.0).astype(np.uint16) * 3

    ((label, vertices, faces),) = surface_nets(labels)

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert label == 3
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx((labels == 3).sum(), rel=0.06)
    assert np.allclose(mesh.center_mass, (15.0, 12.0, 9.0), atol=0.1)
    distance = np.linalg.norm(vertices - (15.0, 12.0, 9.0), axis=1)
    assert distance.min() > 6.0
    assert distance.max() < 7.6


def test_neighbours_share_their_vertices():
    labels = np.zeros((8, 8, 8), np.uint16)
    labels[2:6, 2:6, 1:4] = 1
    labels[2:6, 2:6, 4:7] = 2

    (_, one, _), (_, two, _) = surface_nets(labels)

    shared = {tuple(v) for v in one.tolist()} & {tuple(v) for v in two.tolist()}
    assert len(shared) == 25


def test_a_segment_at_the_edge_is_closed_within_the_volume():
    labels = np.ones((4, 5, 6), np.uint16)

    ((_, vertices, faces),) = surface_nets(labels)

    assert trimesh.Trimesh(vertices, faces, process=False).is_watertight
    assert (vertices >= 0).all()
    assert (vertices <= (6, 5, 4)).all()


def test_all_triangles_use_existing_vertices():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 6, (9, 10, 11)).astype(np.uint16)

    for _, vertices, faces in surface_nets(labels):
        assert sorted(set(faces.ravel().tolist())) == list(range(len(vertices)))
