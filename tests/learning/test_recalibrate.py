"""From labels to a saved state, and why not."""

import json
from dataclasses import replace

import numpy as np
import pytest
from calibration_makers import drawn_decisions, scored_sites
from fixtures_model import BASE_RATES, CALIBRATION
from label_makers import DATASET, VERSION, queue_item

from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.labels.queue_store import Scope
from cb2_assist.labels.store import NewEvent, labels_url, open_store
from cb2_assist.learning.recalibrate import Model, recalibrate, reference_of
from cb2_assist.suggestions.base_rate import NOTHING_SAVED
from cb2_assist.suggestions.calibration import calibrator_from_card
from cb2_assist.suggestions.recalibration import sigmoid

SHA = "ab" * 32
CARD = {"name": "tiny", "calibration": CALIBRATION, "base_rates": BASE_RATES}
OWN = calibrator_from_card(CARD)
MODEL = Model(SHA, CARD, OWN)


@pytest.fixture
def store(tmp_path):
    with open_store(labels_url(tmp_path / "labels.sqlite")) as opened:
        yield opened


def label(store, n, *, slope=0.5, offset=-1.0, seed=0, **changes):
    z = scored_sites(n, seed)
    yes = np.random.default_rng(seed + 1).random(n) < sigmoid(slope * z + offset)
    made = drawn_decisions(z, yes, calibrator=OWN.id, **changes)
    store.append_all([NewEvent.of(d) for d in made])
    return z, yes


def test_labels_give_rate_and_map(store):
    _, yes = label(store, 400)
    state, document = recalibrate(store, DATASET, MODEL, NOTHING_SAVED)
    join = document["kinds"]["join"]
    (m,) = state.maps[Kind.JOIN]

    assert state.rates[Kind.JOIN] == BaseRate(pytest.approx(yes.mean(), abs=1e-6), "labels", 400)
    assert join["base_rate"]["interval"][0] < yes.mean() < join["base_rate"]["interval"][1]
    assert m.views == ("front", "features")
    np.testing.assert_allclose(
        m.probability(np.linspace(-3, 3, 7)), sigmoid(0.5 * np.linspace(-3, 3, 7) - 1), atol=0.08
    )
    after, before = join["maps"][0]["after"], join["maps"][0]["before"]
    assert after["log_loss"] < before["log_loss"]
    assert after["ece15"] < before["ece15"]
    assert state.version == 1
    assert Kind.CUT not in state.rates
    assert "0 labels" in document["kinds"]["cut"]["reason"]
    json.dumps(document, allow_nan=False)


def test_the_same_labels_change_nothing_twice(store):
    label(store, 200)
    state, first = recalibrate(store, DATASET, MODEL, NOTHING_SAVED)
    again, second = recalibrate(store, DATASET, MODEL, state)

    assert again is state
    assert first["calibrator"]["after"] == second["calibrator"]["before"] != OWN.id


def test_labels_of_an_earlier_interval_are_evidence_of_the_same_scores(store):
    label(store, 200)
    before, _ = recalibrate(store, DATASET, MODEL, NOTHING_SAVED)
    scales = {k: {**s, "elsewhere": {"draws": [[2.5, 0.9]]}} for k, s in CALIBRATION.items()}
    card = {**CARD, "calibration": scales}
    own = calibrator_from_card(card)
    state, document = recalibrate(store, DATASET, Model(SHA, card, own), before)

    assert own.id != OWN.id
    assert state is before, "the same labels, the same map"
    assert document["kinds"]["join"]["n"] == 200
    assert own.with_state(state, SHA).maps


def test_labels_at_the_cursor_are_no_evidence(store):
    z = scored_sites(400)
    made = drawn_decisions(z, z > 0, calibrator=OWN.id)
    at_the_cursor = [replace(d, propensity={"how": "cursor"}) for d in made]
    store.append_all([NewEvent.of(d) for d in at_the_cursor])
    state, document = recalibrate(store, DATASET, MODEL, NOTHING_SAVED)

    assert state is NOTHING_SAVED
    assert document["kinds"]["join"]["left_out"] == {"asked at the cursor": 400}
    assert "10 are asked for" in document["kinds"]["join"]["reason"]


def test_labels_that_bear_the_models_own_numbers_out_mostly_change_nothing(store):
    """Where the card is right, new numbers are only taken when they do better held out."""
    own = float(np.log(0.3 / 0.7))
    kept = 0
    for seed in range(8):
        name = f"volume {seed}"
        z = scored_sites(80, seed)
        yes = np.random.default_rng(100 + seed).random(80) < sigmoid(z + own)
        made = drawn_decisions(z, yes, calibrator=OWN.id, dataset=name)
        store.append_all(
            [NewEvent.of(replace(d, idempotency_key=f"{seed} {d.idempotency_key}")) for d in made]
        )
        state, document = recalibrate(store, name, MODEL, NOTHING_SAVED)
        join = document["kinds"]["join"]
        report = join["maps"][0]
        assert report["is_better"] == (state is not NOTHING_SAVED)
        assert report["is_better"] == (report["after"]["log_loss"] < report["before"]["log_loss"])
        if state is NOTHING_SAVED:
            assert "no worse" in join["reason"]
            kept += 1

    assert kept >= 4


def test_maps_of_another_model_stay_until_labels_of_this_one_come(store):
    label(store, 200)
    state, _ = recalibrate(store, DATASET, MODEL, NOTHING_SAVED)
    other = Model("cd" * 32, CARD, OWN)

    kept, document = recalibrate(store, DATASET, other, state)
    assert kept is state
    assert document["kinds"]["join"]["left_out"] == {"another model's score": 200}

    label(store, 200, seed=7, kind=Kind.CUT, model_sha256="cd" * 32)
    moved, _ = recalibrate(store, DATASET, other, state)
    assert moved.model_sha256 == "cd" * 32
    assert set(moved.maps) == {Kind.CUT}
    assert moved.rates[Kind.JOIN] == state.rates[Kind.JOIN]
    assert moved.version == 2


def with_reference(n=300, seed=5):
    """A card that keeps the network's log-odds of known sites; scores are normal, +-2."""
    rng = np.random.default_rng(seed)
    scale = OWN.scales[Kind.JOIN]

    def back(z):
        return ((z - scale.bias) * scale.temperature).tolist()

    given = {"true": back(rng.normal(2, 2, n)), "false": back(rng.normal(-2, 2, n))}
    calibration = {k: {**v, "reference": given} for k, v in CALIBRATION.items()}
    return Model(SHA, {**CARD, "calibration": calibration}, OWN)


def queue(store, z):
    fill = store.queue.begin_fill(Scope(DATASET, VERSION), None, "judge", 1, now=0.0)
    items = [
        replace(queue_item(n, score=float(v)), calibrator=OWN.id)
        for n, v in enumerate(sigmoid(z).tolist())
    ]
    store.queue.put(fill.id, items, done=1, now=0.0)


def mixture(rate, n=600, seed=9):
    rng = np.random.default_rng(seed)
    return rng.normal(np.where(rng.random(n) < rate, 2, -2), 2)


def test_without_labels_the_rate_is_estimated_from_the_queue(store):
    queue(store, mixture(0.15))
    state, document = recalibrate(store, DATASET, with_reference(), NOTHING_SAVED)

    assert state.rates[Kind.JOIN].source == "estimated"
    assert state.rates[Kind.JOIN].n == 600
    assert state.rates[Kind.JOIN].value == pytest.approx(0.15, abs=0.05)
    assert not state.maps
    assert document["kinds"]["join"]["base_rate"]["interval"][0] < 0.15


def test_a_queue_of_other_scores_gives_no_estimate(store):
    queue(store, 0.2 * mixture(0.15))
    state, document = recalibrate(store, DATASET, with_reference(), NOTHING_SAVED)

    assert state is NOTHING_SAVED
    assert "no estimate from scores alone" in document["kinds"]["join"]["reason"]


def test_a_card_without_reference_gives_no_estimate(store):
    queue(store, mixture(0.15))
    state, document = recalibrate(store, DATASET, MODEL, NOTHING_SAVED)

    assert reference_of(MODEL, Kind.JOIN) is None
    assert state is NOTHING_SAVED
    assert "keeps no scores of known sites" in document["kinds"]["join"]["reason"]
