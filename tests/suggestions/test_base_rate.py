"""The saved base rates of a dataset."""

import json

import pytest
from fixtures_model import BASE_RATES

from cb2_assist.core.errors import AssistError, ModelError
from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.suggestions.base_rate import (
    NOTHING_SAVED,
    SavedState,
    base_rates,
    defaults,
    read_state,
    state_file,
    write_state,
)
from cb2_assist.suggestions.recalibration import Recalibration

CARD = {"name": "tiny", "base_rates": BASE_RATES}
MAP = Recalibration("platt", (0.8, -1.0), 0.42, ("front", "features"), ((0.7, -0.9),))
STATE = SavedState(
    {Kind.JOIN: BaseRate(0.42, "labels", 57)},
    {Kind.JOIN: (MAP,)},
    model_sha256="ab" * 32,
    calibrator="cal-1",
    version=3,
    evidence={"labels": "sqlite:///x", "n": 57},
)


def test_without_a_saved_state_the_card_decides(tmp_path):
    state = read_state(tmp_path / "none.json")

    assert state == NOTHING_SAVED
    assert base_rates(state, CARD) == {
        Kind.JOIN: BaseRate(0.3, "default", 0),
        Kind.CUT: BaseRate(0.1, "default", 0),
    }


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "rates.json"
    write_state(path, STATE)

    assert read_state(path) == STATE
    assert base_rates(read_state(path), CARD) == {
        Kind.JOIN: BaseRate(0.42, "labels", 57),
        Kind.CUT: BaseRate(0.1, "default", 0),
    }
    assert [p.name for p in path.parent.iterdir()] == ["rates.json"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"format": 3, "rates": {}}),
        json.dumps({"format": 2, "rates": {}, "maps": {"join": [{"family": "cubic"}]}}),
        json.dumps({"format": 2, "rates": [], "maps": {}}),
        json.dumps({"format": 1, "rates": {"fold": {"value": 0.5, "source": "labels", "n": 1}}}),
        json.dumps({"format": 1, "rates": {"join": {"value": 1.0, "source": "labels", "n": 1}}}),
        json.dumps({"format": 1, "rates": {"join": {"value": "x", "source": "labels", "n": 1}}}),
        json.dumps({"format": 1, "rates": {"join": {"value": 0.5}}}),
    ],
)
def test_a_damaged_state_is_refused_in_words(tmp_path, text):
    path = tmp_path / "rates.json"
    path.write_text(text)
    with pytest.raises(AssistError, match=r"cannot be read.*Delete the file"):
        read_state(path)


@pytest.mark.parametrize("rates", [None, {}, {"join": 0.3, "cut": 0.0}, {"join": "a", "cut": 0.5}])
def test_a_card_without_rates_is_refused_in_words(rates):
    with pytest.raises(ModelError, match=r"no usable base rates.*Train again"):
        defaults({"name": "tiny", "base_rates": rates})


def test_odd_dataset_names_stay_inside_the_folder(tmp_path):
    assert state_file(tmp_path, "../../etc/pass wd").parent == tmp_path / "base_rates"


def test_two_names_never_share_a_file(tmp_path):
    names = ["a b", "a_b", "A_b", "a/b", "a.b"]
    assert len({str(state_file(tmp_path, n)).lower() for n in names}) == len(names)


def test_rates_of_the_first_format_are_still_read(tmp_path):
    path = tmp_path / "rates.json"
    rate = {"value": 0.2, "source": "labels", "n": 9}
    path.write_text(json.dumps({"format": 1, "rates": {"cut": rate}}))

    assert read_state(path) == SavedState({Kind.CUT: BaseRate(0.2, "labels", 9)})


def test_a_folder_that_cannot_be_written_is_said_in_words(tmp_path):
    (tmp_path / "base_rates").write_text("a file")
    with pytest.raises(AssistError, match="cannot be kept in"):
        write_state(state_file(tmp_path, "demo"), STATE)
