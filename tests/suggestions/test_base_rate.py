"""The saved base rates of a dataset."""

import json

import pytest
from fixtures_model import BASE_RATES

from cb2_assist.core.errors import AssistError, ModelError
from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.suggestions.base_rate import (
    defaults,
    read_base_rates,
    state_file,
    write_base_rates,
)

CARD = {"name": "tiny", "base_rates": BASE_RATES}


def test_without_a_saved_state_the_card_decides(tmp_path):
    rates = read_base_rates(tmp_path / "none.json", CARD)

    assert rates == {
        Kind.JOIN: BaseRate(0.3, "default", 0),
        Kind.CUT: BaseRate(0.1, "default", 0),
    }


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "rates.json"
    write_base_rates(path, {Kind.JOIN: BaseRate(0.42, "labels", 57)})

    assert read_base_rates(path, CARD)[Kind.JOIN] == BaseRate(0.42, "labels", 57)
    assert read_base_rates(path, CARD)[Kind.CUT] == BaseRate(0.1, "default", 0)
    assert [p.name for p in path.parent.iterdir()] == ["rates.json"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"format": 2, "rates": {}}),
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
        read_base_rates(path, CARD)


@pytest.mark.parametrize("rates", [None, {}, {"join": 0.3, "cut": 0.0}, {"join": "a", "cut": 0.5}])
def test_a_card_without_rates_is_refused_in_words(rates):
    with pytest.raises(ModelError, match=r"no usable base rates.*Train again"):
        defaults({"name": "tiny", "base_rates": rates})


def test_odd_dataset_names_stay_inside_the_folder(tmp_path):
    assert state_file(tmp_path, "../../etc/pass wd").parent == tmp_path / "base_rates"
