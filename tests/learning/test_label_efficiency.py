"""The example that compares strategies by the labels that they save."""

from __future__ import annotations

from dataclasses import replace

import label_efficiency
import numpy as np
import pytest
from accuracy_ablation import take
from fixtures_model import TINY_NETWORK, tiny_network
from fixtures_training import toy_joins
from label_efficiency import Told, Way, curve, summary, table

from cb2_assist.learning.finetune_tokens import measured, tokens_of_part
from cb2_assist.learning.prepare import Part
from cb2_assist.views.surroundings import MEASURED_NAMES


def part(n: int) -> Part:
    """Joins whose first features tell the answer, four of a body."""
    rng, answer = np.random.default_rng(2), np.arange(n) % 2 == 0
    features = rng.normal(0, 1, (n, len(MEASURED_NAMES))).astype(np.float32)
    features[:, :20] += np.where(answer, 3, -3)[:, None]
    none = np.zeros((n, 0))
    return toy_joins(features, none.astype(np.float16), none.astype(np.uint8), np.arange(n))


@pytest.fixture(scope="module")
def way() -> Way:
    whole = part(80)
    asked, held = whole.z < 40, whole.z >= 40
    return Way("here to there", whole, ((take(whole, asked), take(whole, held)),), (10, 20))


def test_a_strategy_asks_as_many_as_it_may_and_learns_from_them(way):
    net = tiny_network(spec=TINY_NETWORK)
    asked, held = (
        replace(t, there=measured(len(t)))
        for t in (tokens_of_part(net, p, images=False) for p in way.folds[0])
    )
    told = Told(net, asked, asked, held, np.arange(40), np.ones(40))
    found = curve(told, "random", (10, 16), 0)
    assert [len(p) for p in found] == [40, 40, 40]
    right = [((p > 0.5) == held.answer).mean() for p in found]
    assert right[2] > right[0]


def test_random_order_with_twice_the_labels_is_what_a_strategy_is_compared_with(way, monkeypatch):
    monkeypatch.setattr(label_efficiency, "DRAWS", 20)
    answer = way.folds[0][1].answer
    wrong = ~answer
    # random needs 20 labels for what margin knows with 10
    runs = {(0, 0, "random", order): [[*map(float, wrong)], [*map(float, wrong)],
            [*map(float, answer)]] for order in range(3)}  # fmt: skip
    runs[0, 0, "margin", 0] = [[*map(float, wrong)], [*map(float, answer)], [*map(float, answer)]]
    found = summary(way, runs)
    assert found["strategies"]["random"]["runs"] == 3
    assert found["strategies"]["random"]["balanced_accuracy"]["mean"] == [0.0, 0.0, 1.0]
    (half,) = found["half"]["margin"]["balanced_accuracy"]
    assert (half["labels"], half["random_labels"], half["reached"]) == (10, 20, True)
    assert "10 against 20: +0.000" in table(way.name, found)
