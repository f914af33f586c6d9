"""A base rate from the scores of a batch, or words that say why there is none."""

import numpy as np
import pytest

from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.learning.batch_rate import rates_from_scores
from cb2_assist.learning.recalibrate import Model
from cb2_assist.suggestions.calibration import calibrator_from_card
from cb2_assist.suggestions.recalibration import sigmoid

NOW = {Kind.JOIN: BaseRate(0.1, "default", 0), Kind.CUT: BaseRate(0.02, "labels", 70)}


def model(rng, *, reference=True):
    scale = {"temperature": 2.0, "bias": 0.5, "draws": [[2.0, 0.5]]}
    known = {"true": rng.normal(4, 3, 400).tolist(), "false": rng.normal(-5, 3, 400).tolist()}
    both = {k.value: {**scale, **({"reference": known} if reference else {})} for k in Kind}
    card = {"name": "m", "calibration": both}
    return Model("0" * 64, card, calibrator_from_card(card))


def scores(rng, n, rate):
    true = rng.random(n) < rate
    logit = np.where(true, rng.normal(4, 3, n), rng.normal(-5, 3, n))
    return sigmoid(logit / 2.0 + 0.5).tolist()


@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_a_shift_of_the_prior_alone_is_found(rate):
    rng = np.random.default_rng(1)
    rates, words = rates_from_scores({Kind.JOIN: scores(rng, 3000, rate)}, model(rng), NOW)

    assert rates[Kind.JOIN].value == pytest.approx(rate, abs=0.04)
    assert (rates[Kind.JOIN].source, rates[Kind.JOIN].n) == ("estimated", 3000)
    assert rates[Kind.CUT] == NOW[Kind.CUT]
    assert len(words) == 1
    assert "estimated from the scores of these 3000 sites" in words[0]


def test_scores_of_another_kind_are_refused_in_words():
    rng = np.random.default_rng(2)
    strange = sigmoid(rng.normal(0, 0.3, 3000)).tolist()
    rates, words = rates_from_scores({Kind.JOIN: strange}, model(rng), NOW)

    assert rates == NOW
    assert "join: no estimate from these sites" in words[0]
    assert "stays 0.1 (default)" in words[0]


def test_a_card_without_known_scores_gives_no_estimate():
    rng = np.random.default_rng(3)
    given = {Kind.CUT: scores(rng, 3000, 0.3)}
    rates, words = rates_from_scores(given, model(rng, reference=False), NOW)

    assert rates == NOW
    assert "cut: no estimate" in words[0]
    assert "stays 0.02 (labels)" in words[0]


def test_a_question_without_sites_needs_no_words():
    rng = np.random.default_rng(4)

    assert rates_from_scores({Kind.JOIN: [], Kind.CUT: []}, model(rng), NOW) == (NOW, [])
