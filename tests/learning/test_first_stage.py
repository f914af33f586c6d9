"""The first stage of the neighbour graph: honest verdicts on training rows."""

from dataclasses import replace

import numpy as np
import pytest

from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.learning import first_stage
from cb2_assist.learning.first_stage import Fit, Sides, fit_first_stage, judged
from cb2_assist.learning.metrics import auroc
from cb2_assist.learning.prepare import contact_answers
from cb2_assist.model.graph import GRAPH_NAMES, NeighbourGraph

N, K, M, F = 400, 3, 4, 5
OWN = GRAPH_NAMES.index("own")


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(first_stage, "PAIRS", Fit(epochs=20, batch=32, lr=5e-3, weight_decay=0.0))
    monkeypatch.setattr(first_stage, "CONTACTS", Fit(epochs=3, batch=64, lr=5e-3))


def quiet(_text):
    pass


def rows(*, told, seed=0, numbers=F):
    """Random rows; `told` says how much the numbers tell of the answers."""
    rng = np.random.default_rng(seed)
    one = rng.random(N) < 0.4
    features = rng.normal(size=(N, numbers)).astype(np.float32)
    features[:, 0] += told * one
    contacts = rng.integers(-1, 2, (N, K, 2)).astype(np.int8)
    neighbours = rng.normal(size=(N, K, 2, M)).astype(np.float32)
    neighbours[..., 0] = 1
    neighbours[..., 1] += told * (contacts > 0)
    return Sides(features, one, neighbours, contacts, rng.integers(0, 200, N))


def graph():
    return NeighbourGraph(F, M, 16, hidden=32)


def test_rows_are_judged_without_having_been_learnt():
    data = rows(told=0.0, numbers=80)
    g = NeighbourGraph(80, M, 16, hidden=32)
    honest = fit_first_stage(g, data, seed=0, say=quiet)
    fitted = judged((g.pair, g.contact), data)

    # nothing can be known of coin flips; a judge that has seen them knows them anyway
    assert auroc(data.one, fitted[:, OWN].astype(float)) > 0.8
    assert 0.4 < auroc(data.one, honest[:, OWN].astype(float)) < 0.6


def test_what_the_numbers_tell_is_learnt():
    data, new = rows(told=3.0), rows(told=3.0, seed=1)
    g = graph()
    honest = fit_first_stage(g, data, seed=0, say=quiet)

    assert auroc(data.one, honest[:, OWN].astype(float)) > 0.95
    assert auroc(new.one, judged((g.pair, g.contact), new)[:, OWN].astype(float)) > 0.95


def test_the_same_seed_gives_the_same_stage():
    data = rows(told=1.0)
    first, again = (fit_first_stage(graph(), data, seed=3, say=quiet) for _ in range(2))

    np.testing.assert_array_equal(first, again)


def test_unknown_contacts_are_not_learnt_from():
    data = rows(told=1.0)
    noise = np.where((data.contacts < 0)[..., None], 99.0, data.neighbours).astype(np.float32)
    a, b = graph(), graph()
    fit_first_stage(a, data, seed=0, say=quiet)
    fit_first_stage(b, replace(data, neighbours=noise), seed=0, say=quiet)

    for name, value in a.contact.state_dict().items():
        assert value.equal(b.contact.state_dict()[name]), name


def test_rows_without_any_known_contact_still_train():
    data = rows(told=1.0)
    honest = fit_first_stage(
        graph(), replace(data, contacts=np.full_like(data.contacts, -1)), seed=0, say=quiet
    )

    assert np.isfinite(honest).all()


def test_contacts_are_answered_by_the_truth_of_both_segments():
    site = Site(Kind.JOIN, SegmentId(1), SegmentId(2), PointNm(0, 0, 0))
    around = np.zeros((4, 2, M), np.float32)
    around[0, :, 0] = around[1, 0, 0] = around[2, 1, 0] = 1
    bodies = {1: 70, 2: 80, 5: 70, 6: 80}
    answers = contact_answers(site, around, np.array([5, 6, 7], np.uint64), bodies)

    assert answers.tolist() == [[1, 0], [0, -1], [-1, -1], [-1, -1]]


def test_the_sides_of_a_cut_have_no_truth_of_their_own():
    site = Site(Kind.CUT, SegmentId(1), None, PointNm(0, 0, 0))
    around = np.ones((1, 2, M), np.float32)

    assert (contact_answers(site, around, np.array([5], np.uint64), {1: 70, 5: 70}) == -1).all()
