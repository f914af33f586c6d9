"""What the repository ships as models: where they come from, and that others may use them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cb2_assist.model.checkpoint import MAX_BYTES
from cb2_assist.settings import DEFAULT_MODEL, SECTIONS_MODEL

REPO = Path(__file__).resolve().parents[1]

MODELS = sorted(p.parent for p in (REPO / "models").glob("*/card.json"))
UNSTATED = ("", "unknown", "none", "not stated", "other")


def card(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "card.json").read_text(encoding="utf-8"))


def recipe(folder: Path) -> dict[str, Any]:
    found = tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8"))
    if "data_of" in found:
        other = tomllib.loads((folder / found["data_of"]).read_text(encoding="utf-8"))
        found |= {key: other[key] for key in ("source", "dataset")}
    return found


def test_the_models_that_serve_by_default_are_among_them() -> None:
    assert {REPO / "models" / name for name in (DEFAULT_MODEL, SECTIONS_MODEL)} <= set(MODELS)


@pytest.mark.parametrize("folder", MODELS, ids=lambda p: p.name)
def test_every_source_has_a_licence_and_a_citation_and_is_in_the_recipe(folder: Path) -> None:
    made_from = {d["name"]: d for d in recipe(folder)["dataset"] if d["use"] == "training"}
    sources = {s["id"]: s for s in recipe(folder)["source"]}

    assert recipe(folder)["model"] == card(folder)["name"]
    assert card(folder)["data"]
    for source in card(folder)["data"]:
        assert source["licence"].strip().lower() not in UNSTATED
        assert source["citation"].strip()
        stated = made_from[source["name"]]
        assert stated["licence"] == source["licence"]
        assert stated["citation"] == source["citation"]
        for name in stated["sources"]:
            assert sources[name]["licence"].strip().lower() not in UNSTATED
            assert sources[name]["licence_url"].startswith("https://")
            assert sources[name]["citation"].strip()


@pytest.mark.parametrize("folder", MODELS, ids=lambda p: p.name)
def test_no_licence_of_its_training_data_forbids_a_use(folder: Path) -> None:
    used = {
        name for d in recipe(folder)["dataset"] if d["use"] == "training" for name in d["sources"]
    }
    licences = [s["licence"] for s in recipe(folder)["source"] if s["id"] in used]

    assert licences
    assert not [x for x in licences if "NC" in x or "ND" in x or "non-commercial" in x.lower()]


@pytest.mark.parametrize("folder", MODELS, ids=lambda p: p.name)
def test_what_it_is_measured_on_takes_no_part_in_training(folder: Path) -> None:
    trained = {s["name"] for s in card(folder)["data"]}
    measured = {d["name"] for d in recipe(folder)["dataset"] if d["use"] == "evaluation"}

    assert measured
    assert not trained & measured


@pytest.mark.parametrize("folder", MODELS, ids=lambda p: p.name)
def test_weights_are_small_enough_to_ship(folder: Path) -> None:
    assert (folder / "weights.safetensors").stat().st_size <= MAX_BYTES
