"""Places along a whole object, on bodies whose odd places are known, and on a real neuron."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cb2_assist.candidates.arbour import Why, places_on
from cb2_assist.datasets.source import Arbour

STEP = 500.0


def line(start, stop, radius=100.0):
    """Points a step apart, each with a radius."""
    start, stop = np.array(start, float), np.array(stop, float)
    n = int(np.linalg.norm(stop - start) // STEP)
    return [(start + (stop - start) * i / n, radius) for i in range(n + 1)]


def body(*lines, links=()) -> Arbour:
    """Lines joined at points that they share, and edges of one's own by row."""
    rows, points, radius, edges = {}, [], [], set(links)
    for one in lines:
        before = None
        for at, r in one:
            key = tuple(np.round(at).astype(int).tolist())
            if key not in rows:
                rows[key] = len(points)
                points.append(at)
                radius.append(r)
            if before is not None:
                edges.add((before, rows[key]))
            before = rows[key]
    return Arbour(
        np.array(points), np.array(radius), np.array(sorted(edges)), (STEP * 2, STEP * 2, STEP * 2)
    )


def found(arbour, why):
    return [
        tuple(np.round(tuple(p.at)).astype(int).tolist()) for p in places_on(arbour) if p.why is why
    ]


Y = (
    line((0, 0, 0), (20_000, 0, 0)),
    line((20_000, 0, 0), (20_000, 15_000, 0)),
    line((20_000, 0, 0), (30_000, 0, 0)),
)


def test_ends_and_branches_of_a_fork():
    arbour = body(*Y)
    assert sorted(found(arbour, Why.END)) == [(0, 0, 0), (20_000, 15_000, 0), (30_000, 0, 0)]
    assert found(arbour, Why.BRANCH) == [(20_000, 0, 0)]
    assert {p.why for p in places_on(arbour)} == {Why.END, Why.BRANCH}


def test_an_end_says_where_the_object_would_go_on():
    ends = {tuple(p.at): p.towards for p in places_on(body(*Y)) if p.why is Why.END}
    np.testing.assert_allclose(ends[20_000.0, 15_000.0, 0.0], (0, 1, 0), atol=1e-6)
    np.testing.assert_allclose(ends[0.0, 0.0, 0.0], (-1, 0, 0), atol=1e-6)


def test_stubs_at_a_chunks_border_are_no_ends_and_no_branches():
    stub = line((10_000, 0, 0), (10_000, 500, 0))
    assert found(body(*Y, stub), Why.END) == found(body(*Y), Why.END)
    assert found(body(*Y, stub), Why.BRANCH) == found(body(*Y), Why.BRANCH)


def test_triangles_between_chunks_change_nothing():
    n = len(body(*Y).points)
    chords = [(i, i + 2) for i in range(0, 30, 3)]
    with_chords = body(*Y, links=chords)
    assert len(with_chords.points) == n
    assert found(with_chords, Why.END) == found(body(*Y), Why.END)


def test_a_long_edge_is_where_parts_do_not_touch():
    far = body(line((0, 0, 0), (5000, 0, 0)), line((9000, 0, 0), (14_000, 0, 0)), links=[(10, 11)])
    assert found(far, Why.LONG_EDGE) == [(5000, 0, 0)]
    assert found(body(*Y), Why.LONG_EDGE) == []


def test_an_object_that_comes_near_itself_is_found_once():
    hairpin = body(
        line((0, 0, 0), (20_000, 0, 0)),
        line((20_000, 0, 0), (20_000, 4000, 0)),
        line((20_000, 4000, 0), (0, 1000, 0)),
    )
    assert len(found(hairpin, Why.MEETS_ITSELF)) >= 1
    assert all(x < 10_000 for x, _, _ in found(hairpin, Why.MEETS_ITSELF))
    assert found(body(*Y), Why.MEETS_ITSELF) == []


def test_thickness_that_jumps_and_a_thin_bridge():
    thick, thin = line((0, 0, 0), (20_000, 0, 0), 400), line((20_000, 0, 0), (40_000, 0, 0), 100)
    (jump,) = found(body(thick, thin), Why.JUMP)
    assert abs(jump[0] - 20_000) <= 3000
    assert found(body(*Y), Why.JUMP) == []
    halves = line((0, 0, 0), (30_000, 0, 0), 300), line((31_000, 0, 0), (61_000, 0, 0), 300)
    neck = [(np.array([30_500.0, 0, 0]), 50.0)]
    bridged = body([*halves[0], *neck, *halves[1]])
    assert found(bridged, Why.BRIDGE) == [(30_500, 0, 0)]


def test_what_is_not_known_or_not_there_does_no_harm():
    unknown = body(*Y)
    blind = Arbour(
        unknown.points, np.full(len(unknown.points), np.nan), unknown.edges, unknown.chunk_nm
    )
    assert found(blind, Why.END) == found(unknown, Why.END)
    alone = Arbour(np.zeros((1, 3)), np.zeros(1), np.zeros((0, 2), np.int64), (1.0, 1.0, 1.0))
    assert places_on(alone) == []
    pieces = body(line((0, 0, 0), (5000, 0, 0)), line((90_000, 0, 0), (95_000, 0, 0)))
    assert len(found(pieces, Why.END)) == 4


@pytest.mark.shared
def test_a_real_neuron_of_26_000_parts_has_places_that_a_person_can_go_through(shared_data):
    folder = shared_data / "cave_minnie65_fixtures"
    with gzip.open(folder / "l2properties.csv.gz", "rt") as text:
        rows = [r for r in csv.DictReader(text) if r["rep_coord_nm_x"]]
    row = {int(r["l2_id"]): i for i, r in enumerate(rows)}
    pairs = json.loads(gzip.decompress((folder / "l2graph.json.gz").read_bytes()))
    points = np.array([[float(r[f"rep_coord_nm_{a}"]) for a in "xyz"] for r in rows])
    radius = np.array([float(r["max_dt_nm"] or "nan") for r in rows])
    edges = np.array([(row[a], row[b]) for a, b in pairs if a in row and b in row])
    places = places_on(Arbour(points, radius, edges, (2048.0, 2048.0, 20_480.0)))
    assert len(points) > 25_000
    ends = np.array([tuple(p.at) for p in places if p.why is Why.END])
    skeleton = json.loads(gzip.decompress((folder / "skeleton.json.gz").read_bytes()))
    degree = np.bincount(np.array(skeleton["edges"]).ravel(), minlength=len(skeleton["vertices"]))
    tips = np.array(skeleton["vertices"], float)[degree == 1]
    away, _ = cKDTree(ends).query(tips)
    assert (away < 3000).mean() > 0.98
    assert len(ends) < 2 * len(tips)
    assert len(places) < len(points) / 10
