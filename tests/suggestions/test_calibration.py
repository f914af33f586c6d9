"""From log-odds to score, confidence and interval."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fixtures_model import BASE_RATES, CALIBRATION

from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.suggestions.base_rate import NOTHING_SAVED, SavedState
from cb2_assist.suggestions.calibration import calibrator_from_card, why_uncalibrated
from cb2_assist.suggestions.recalibration import Recalibration

CARD = {"name": "tiny", "calibration": CALIBRATION, "base_rates": BASE_RATES}
LOGITS = [-80.0, -3.0, -0.2, 0.0, 0.7, 4.0, 80.0]


@pytest.fixture(scope="module")
def calibrator():
    return calibrator_from_card(CARD)


def rate(value):
    return BaseRate(value, "default", 0)


def odds(p):
    return p / (1 - p)


@pytest.mark.parametrize("logit", [-3.0, -0.2, 0.7, 4.0])
@pytest.mark.parametrize("base", [0.02, 0.3, 0.5, 0.9])
def test_confidence_is_bayes_on_the_odds(calibrator, logit, base):
    score = calibrator.score(Kind.JOIN, logit)
    confidence = calibrator.confidence(Kind.JOIN, logit, rate(base))

    assert odds(confidence) == pytest.approx(odds(score) * odds(base), rel=1e-9)


@pytest.mark.parametrize("logit", LOGITS)
def test_at_an_even_base_rate_confidence_is_the_score(calibrator, logit):
    assert calibrator.confidence(Kind.CUT, logit, rate(0.5)) == calibrator.score(Kind.CUT, logit)


def test_score_follows_the_scale(calibrator):
    assert calibrator.score(Kind.JOIN, 1.5) == pytest.approx(1 / (1 + math.exp(-1.2)))


@pytest.mark.parametrize("logit", LOGITS)
@pytest.mark.parametrize("base", [1e-6, 0.02, 0.5, 0.98])
@pytest.mark.parametrize("reliable", [True, False])
def test_interval_holds_the_confidence(calibrator, logit, base, reliable):
    low, high = calibrator.interval(Kind.JOIN, logit, rate(base), reliable=reliable)

    assert 0 <= low <= calibrator.confidence(Kind.JOIN, logit, rate(base)) <= high <= 1


@pytest.mark.parametrize("logit", [-3.0, 4.0])
def test_out_of_distribution_the_interval_reaches_the_base_rate(calibrator, logit):
    near = calibrator.interval(Kind.JOIN, logit, rate(0.3), reliable=True)
    far = calibrator.interval(Kind.JOIN, logit, rate(0.3), reliable=False)

    assert far[0] <= 0.3 <= far[1]
    assert far[1] - far[0] > near[1] - near[0]


def test_order_is_kept(calibrator):
    scores = [calibrator.score(Kind.JOIN, v) for v in np.linspace(-5, 5, 50)]

    assert scores == sorted(scores)


def test_the_id_names_the_scales():
    other = {**CARD, "calibration": {**CALIBRATION, "cut": {**CALIBRATION["cut"], "bias": 0.3}}}

    assert calibrator_from_card(CARD).id == calibrator_from_card(dict(CARD)).id
    assert calibrator_from_card(CARD).id != calibrator_from_card(other).id


FAR = [[1.3, -1.8], [1.5, 0.2], [1.7, 2.3]]


def with_places(card=CARD, draws=FAR):
    """The card, as it would be if it said how much places differ."""
    scales = {k: {**s, "elsewhere": {"draws": draws}} for k, s in card["calibration"].items()}
    return {**card, "calibration": scales}


@pytest.mark.parametrize("logit", LOGITS)
def test_another_place_moves_the_interval_alone(calibrator, logit):
    far = calibrator_from_card(with_places())
    low, high = far.interval(Kind.JOIN, logit, rate(0.3), reliable=True)
    near = calibrator.interval(Kind.JOIN, logit, rate(0.3), reliable=True)

    assert far.score(Kind.JOIN, logit) == calibrator.score(Kind.JOIN, logit)
    confidence = far.confidence(Kind.JOIN, logit, rate(0.3))
    assert confidence == calibrator.confidence(Kind.JOIN, logit, rate(0.3))
    assert 0 <= low <= confidence <= high <= 1
    assert high - low > 2 * (near[1] - near[0]) or abs(logit) > 30, "there all draws are cut"


def test_a_card_that_knows_too_few_places_has_the_interval_of_its_calibration(calibrator):
    card = with_places(draws=[])

    assert calibrator_from_card(card) == calibrator


def test_the_id_names_intervals_behind_what_the_scores_depend_on(calibrator):
    far, other = (calibrator_from_card(with_places(draws=d)) for d in (FAR, FAR[:2]))

    assert calibrator.id == "cal-8b10e1013c", "labels that people gave name it"
    assert len({calibrator.id, far.id, other.id}) == 3
    assert far.scores_id == other.scores_id == calibrator.scores_id == calibrator.id


def test_what_labels_taught_outlives_another_interval(calibrator):
    far = calibrator_from_card(with_places())
    moved, before = (c.with_state(saved(calibrator), "ab") for c in (far, calibrator))

    assert moved.maps == before.maps != {}
    answers = [
        (
            c.confidence(Kind.JOIN, 2.0, rate(0.25), VIEWS),
            c.interval(Kind.JOIN, 2.0, rate(0.25), VIEWS, reliable=True),
        )
        for c in (moved, before)
    ]
    assert answers[0] == answers[1], "a map is of the place itself"
    assert moved.id != before.id
    assert moved.scores_id == before.scores_id


def broken(kind, **changes):
    return {**CARD, "calibration": {**CALIBRATION, kind: {**CALIBRATION[kind], **changes}}}


@pytest.mark.parametrize(
    "card",
    [
        {"name": "tiny"},
        {"name": "tiny", "calibration": {"join": CALIBRATION["join"]}},
        {"name": "tiny", "calibration": []},
        broken("join", temperature=0),
        broken("join", temperature=-1),
        broken("cut", temperature="warm"),
        broken("cut", bias=math.nan),
        broken("cut", bias=math.inf),
        broken("join", draws=[[1.0]]),
        broken("join", draws=[[0.0, 1.0]]),
        broken("join", draws=None),
        broken("join", elsewhere={"draws": [[0.0, 1.0]]}),
        broken("join", elsewhere={"draws": None}),
        broken("cut", elsewhere=[[1.0, 0.0]]),
    ],
)
def test_an_unusable_calibration_is_refused_in_words(card):
    with pytest.raises(ModelError, match=r"no usable calibration.*Train again"):
        calibrator_from_card(card)


VIEWS = ("front", "features")
MAP = Recalibration("platt", (0.5, -1.0), 0.25, VIEWS, ((0.4, -1.3), (0.5, -1.0), (0.6, -0.7)))


def saved(own, **changes):
    rates = {Kind.JOIN: BaseRate(0.25, "labels", 90)}
    given = {"maps": {Kind.JOIN: (MAP,)}, "model_sha256": "ab", "calibrator": own.id}
    return SavedState(rates, **{**given, **changes})


def test_labels_move_the_confidence_and_never_the_score(calibrator):
    moved = calibrator.with_state(saved(calibrator), "ab")
    z = math.log(odds(calibrator.score(Kind.JOIN, 2.0)))

    assert moved.score(Kind.JOIN, 2.0) == calibrator.score(Kind.JOIN, 2.0)
    at_labels = moved.confidence(Kind.JOIN, 2.0, rate(0.25), VIEWS)
    assert odds(at_labels) == pytest.approx(math.exp(0.5 * z - 1.0))
    elsewhere = moved.confidence(Kind.JOIN, 2.0, rate(0.5), VIEWS)
    assert odds(elsewhere) == pytest.approx(3 * odds(at_labels))


@pytest.mark.parametrize(("kind", "views"), [(Kind.CUT, VIEWS), (Kind.JOIN, ("front",))])
def test_a_map_is_for_its_question_and_views_alone(calibrator, kind, views):
    moved = calibrator.with_state(saved(calibrator), "ab")

    assert moved.confidence(kind, 1.0, rate(0.3), views) == calibrator.confidence(
        kind, 1.0, rate(0.3), views
    )


def test_the_interval_is_that_of_the_map(calibrator):
    moved = calibrator.with_state(saved(calibrator), "ab")
    low, high = moved.interval(Kind.JOIN, 2.0, rate(0.25), VIEWS, reliable=True)

    assert low < moved.confidence(Kind.JOIN, 2.0, rate(0.25), VIEWS) < high
    assert (low, high) != calibrator.interval(Kind.JOIN, 2.0, rate(0.25), VIEWS, reliable=True)


def test_the_id_names_what_labels_changed(calibrator):
    other = replace(MAP, parameters=(0.6, -1.0))
    ids = {
        calibrator.with_state(state, "ab").id
        for state in (
            NOTHING_SAVED,
            saved(calibrator),
            saved(calibrator, maps={Kind.JOIN: (other,)}),
            saved(calibrator, maps={}),
            replace(saved(calibrator), rates={Kind.JOIN: BaseRate(0.3, "labels", 90)}),
        )
    }

    assert len(ids) == 5
    assert calibrator.id in ids
    assert all(i == calibrator.id or i.startswith(calibrator.id + "+") for i in ids)
    assert calibrator.with_state(saved(calibrator), "ab").id in ids


@pytest.mark.parametrize("changes", [{"model_sha256": "cd"}, {"calibrator": "cal-0"}])
def test_maps_of_another_model_are_left_out(calibrator, changes):
    moved = calibrator.with_state(saved(calibrator, **changes), "ab")
    assert not moved.maps


RAW = {
    "name": "imported",
    "calibration": "uncalibrated",
    "trained_on": {"species": ["fly"], "extents_nm": {"fly": [2000.0, 4000.0]}},
}


@pytest.mark.parametrize("logit", LOGITS)
def test_without_a_calibration_score_is_what_the_network_says(logit):
    raw = calibrator_from_card(RAW)
    cut = max(-30, min(30, logit))

    assert (raw.id, raw.is_calibrated) == ("uncalibrated", False)
    assert raw.score(Kind.JOIN, logit) == pytest.approx(1 / (1 + math.exp(-cut)))
    assert raw.confidence(Kind.CUT, logit, rate(0.5)) == raw.score(Kind.CUT, logit)
    assert raw.interval(Kind.JOIN, logit, rate(0.5), reliable=True) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("trained_on", "species", "extent_nm", "says"),
    [
        (RAW["trained_on"], "fly", 3000, "can be relied on."),
        (RAW["trained_on"], "mouse", 3000, "trained on fly; this dataset is mouse."),
        (
            RAW["trained_on"],
            "fly",
            640,
            "views 2000 to 4000 nm to each side; here they are 640 nm.",
        ),
        ({"species": []}, "fly", 640, "Which species it was trained on is not stated."),
        (None, "fly", 640, "Which species it was trained on is not stated."),
    ],
)
def test_why_a_model_is_uncalibrated_is_said(trained_on, species, extent_nm, says):
    words = why_uncalibrated({**RAW, "trained_on": trained_on}, species, extent_nm)

    assert words.startswith("imported is not calibrated")
    assert words.endswith(says)


def test_of_a_calibrated_model_nothing_is_said():
    assert why_uncalibrated(CARD, "ant", 1.0) == ""
    assert calibrator_from_card(CARD).is_calibrated
