"""Maps from the score to acceptance, as plain numbers."""

import json

import numpy as np
import pytest

from cb2_assist.suggestions.recalibration import Recalibration, apply_map, logit, sigmoid

MAPS = [
    Recalibration("none", (1.0, -1.2), 0.23),
    Recalibration("platt", (0.6, -0.8), 0.3, ("em", "features"), ((0.5, -0.9), (0.7, -0.6))),
    Recalibration("beta", (0.5, 1.4, -0.3), 0.4),
    Recalibration("none", (1.0, -0.4), 0.4, (), ((0.5, 1.4, -0.3),), "beta"),
    Recalibration("isotonic", (-3.0, 0.0, 2.0, -2.0, -2.0, 1.5), 0.3),
]
Z = np.linspace(-30, 30, 401)


@pytest.mark.parametrize("m", MAPS, ids=lambda m: m.family)
def test_a_map_never_falls(m):
    assert (np.diff(m.probability(Z)) >= 0).all()
    assert ((m.probability(Z) >= 0) & (m.probability(Z) <= 1)).all()


@pytest.mark.parametrize("m", MAPS, ids=lambda m: m.family)
def test_another_base_rate_multiplies_the_odds(m):
    z = np.linspace(-3, 3, 13)
    here, there = m.probability(z), m.probability(z, 0.02)

    factor = (0.02 / 0.98) / (m.rate / (1 - m.rate))
    np.testing.assert_allclose(there / (1 - there), here / (1 - here) * factor, rtol=1e-9)
    np.testing.assert_allclose(m.probability(z, m.rate), here)


@pytest.mark.parametrize("m", MAPS, ids=lambda m: m.family)
def test_what_is_written_is_read_with_the_same_id(m):
    again = Recalibration.from_json(json.loads(json.dumps(m.to_json())))

    assert again == m
    assert again.id == m.id


@pytest.mark.parametrize("m", MAPS, ids=lambda m: m.family)
def test_each_draw_is_a_map_of_its_own(m):
    again = Recalibration(m.family, m.parameters, m.rate, (), (m.parameters,) * 3)

    np.testing.assert_allclose(again.drawn_logits(0.7, 0.1), [float(m.logit(0.7, 0.1))] * 3)
    np.testing.assert_allclose(MAPS[1].drawn_logits(1.0), [-0.4, 0.1])
    np.testing.assert_allclose(MAPS[3].drawn_logits(1.0, 0.2), [float(MAPS[2].logit(1.0, 0.2))])


def test_the_id_names_the_content():
    assert len({m.id for m in MAPS}) == len(MAPS)


def test_an_even_beta_map_is_a_straight_line():
    np.testing.assert_allclose(apply_map("beta", (0.7, 0.7, 0.2), Z), 0.7 * Z + 0.2, atol=1e-9)


def test_probabilities_and_log_odds_undo_each_other():
    z = np.linspace(-25, 25, 51)
    np.testing.assert_allclose(logit(sigmoid(z)), z, atol=2e-3)


@pytest.mark.parametrize(
    ("family", "parameters"),
    [
        ("cubic", (1.0, 0.0)),
        ("platt", (-1.0, 0.0)),
        ("platt", (0.0, 0.0)),
        ("platt", (1.0,)),
        ("platt", (1.0, np.nan)),
        ("beta", (1.0, -0.1, 0.0)),
        ("isotonic", ()),
        ("isotonic", (0.0, 1.0, 0.0)),
        ("isotonic", (0.0, 1.0, 1.0, 0.0)),
        ("isotonic", (1.0, 1.0, 0.0, 1.0)),
    ],
)
def test_what_falls_or_is_no_map_is_refused(family, parameters):
    with pytest.raises(ValueError, match="map"):
        Recalibration(family, parameters, 0.3)


@pytest.mark.parametrize("rate", [0.0, 1.0, 2.0, np.nan])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Recalibration("none", (1.0, 0.0), rate)
