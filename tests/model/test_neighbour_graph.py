"""What the neighbours say together, against a loop that spells it out."""

import numpy as np
import pytest
import torch

from cb2_assist.model.graph import GRAPH_NAMES, Judge, NeighbourGraph, graph_values

B, K = 40, 6


@pytest.fixture(scope="module")
def sites():
    rng = np.random.default_rng(0)
    return rng.normal(size=B), rng.random((B, K, 2)), rng.random((B, K, 2)) < 0.5


def by_hand(own, p, there):
    """One site: dictionaries and loops, no arrays."""
    a = {k: p[k, 0] for k in range(K) if there[k, 0]}
    b = {k: p[k, 1] for k in range(K) if there[k, 1]}
    common = sorted(a.keys() & b.keys())
    missed = 1.0
    for k in common:
        missed *= 1 - a[k] * b[k]
    rivals = [max(side.values(), default=0.0) for side in (a, b)]
    others = [sum(side.values()) / max(len(side), 1) for side in (a, b)]

    def mean(values):
        return sum(values) / len(values) if values else 0.0

    return {
        "own": own,
        "joined_most": max((a[k] * b[k] for k in common), default=0.0),
        "joined_any": 1 - missed,
        "apart_most": max((abs(a[k] - b[k]) for k in common), default=0.0),
        "apart_mean": mean([abs(a[k] - b[k]) for k in common]),
        "weaker_mean": mean([min(a[k], b[k]) for k in common]),
        "common": np.log1p(len(common)),
        "rival_high": max(rivals),
        "rival_low": min(rivals),
        "others_high": max(others),
        "others_low": min(others),
    }


def values(own, p, there):
    return graph_values(*(torch.from_numpy(v) for v in (own, p, there))).numpy()


def test_values_are_what_a_loop_finds(sites):
    own, p, there = sites
    got = values(own, p, there)

    for i in range(B):
        want = by_hand(own[i], p[i], there[i])
        np.testing.assert_allclose(got[i], [want[n] for n in GRAPH_NAMES], atol=1e-12)


def test_the_sides_may_change_places(sites):
    own, p, there = sites

    np.testing.assert_allclose(
        values(own, p, there), values(own, p[:, :, ::-1].copy(), there[:, :, ::-1].copy())
    )


def test_neighbours_may_come_in_any_order(sites):
    own, p, there = sites
    order = np.random.default_rng(1).permutation(K)

    np.testing.assert_allclose(
        values(own, p, there), values(own, p[:, order], there[:, order]), atol=1e-12
    )


def test_what_does_not_touch_does_not_count(sites):
    own, p, there = sites
    other = np.where(there, p, 0.9)

    np.testing.assert_array_equal(values(own, p, there), values(own, other, there))


def test_a_site_without_neighbours_has_its_own_answer_alone():
    got = values(np.array([1.5]), np.zeros((1, K, 2)), np.zeros((1, K, 2), bool))[0]

    assert got[0] == 1.5
    assert not got[1:].any()


def test_the_judges_take_no_part_in_the_networks_training():
    graph = NeighbourGraph(5, 3, 16).train()
    x = torch.randn(2, 5)
    around = torch.rand(2, K, 2, 3)
    loss = graph.tokens(graph.values(x, around)).sum()
    loss.backward()

    assert all(p.grad is None for p in [*graph.pair.parameters(), *graph.contact.parameters()])
    assert any(p.grad is not None for p in graph.token.parameters())
    assert torch.equal(graph.values(x, around), graph.values(x, around))


def test_far_numbers_do_not_run_away():
    judge = Judge(3, 8).eval()

    assert torch.equal(judge(torch.full((1, 3), 1e9)), judge(torch.full((1, 3), 1e12)))
