"""The pipeline on a small volume with a tiny network, through the composition root."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from neurites import DUMBBELL, LONE, PARTNER

from cb2_assist.app import DatasetChoice, build_assistant
from cb2_assist.core.errors import BackgroundError, OutOfBoundsError, SegmentNotFoundError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import BaseRate, Kind, SegmentId, Site
from cb2_assist.settings import RECENT_STACKS

AT = PointNm(485, 365, 625)


@pytest.fixture(scope="module")
def assistant(neurites_file, tiny_model_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data-home")))
        made = build_assistant(
            DatasetChoice(file=neurites_file), model=tiny_model_folder, device="cpu"
        )
    yield made
    made.close()


@pytest.fixture(scope="module")
def found(assistant):
    return assistant.suggest(AT)


def untimed(document):
    return {k: v for k, v in document.items() if k != "timing_ms"}


def of_kind(found, kind):
    return [s for s in found.suggestions if s.site.kind is kind]


def test_the_true_partner_and_the_true_neck_are_suggested(found):
    assert [s.site.partner for s in of_kind(found, Kind.JOIN)] == [PARTNER]
    assert of_kind(found, Kind.JOIN)[0].site.point.z == pytest.approx(780, abs=20)
    assert any(abs(s.site.point.z - 425) < 60 for s in of_kind(found, Kind.CUT))


def test_the_most_confident_comes_first_and_what_is_not_reliable_last(found):
    order = [(s.ood.flag, -s.confidence) for s in found.suggestions]

    assert len(order) >= 2
    assert order == sorted(order)


def test_suggest_is_a_function(assistant, found):
    again = assistant.suggest(AT)

    assert untimed(again.to_json()) == untimed(found.to_json())


def test_the_document_has_every_field_of_the_contract(found):
    document = json.loads(json.dumps(found.to_json()))

    assert document["dataset"] == "neurites"
    assert document["segment"] == str(DUMBBELL)
    assert document["at_nm"] == [485.0, 365.0, 625.0]
    assert document["model"]["name"] == "tiny"
    assert len(document["model"]["sha256"]) == 64
    assert document["calibrator"].startswith("cal-")
    assert {k: document["base_rate"][k] for k in ("value", "source", "n")} == {
        "value": 0.3,
        "source": "default",
        "n": 0,
    }
    assert set(document["timing_ms"]) == {"candidates", "views", "model", "total"}
    assert all(isinstance(v, float) for v in document["timing_ms"].values())
    assert document["none_of_these"] is None
    for row in document["suggestions"]:
        check_row(row)
    assert len({r["id"] for r in document["suggestions"]}) == len(document["suggestions"])


def check_row(row):
    assert isinstance(row["id"], str)
    assert row["kind"] in ("join", "cut")
    assert isinstance(row["segment"], str)
    assert row["segment"].isdigit()
    assert (row["partner"] is None) == (row["kind"] == "cut")
    assert row["partner"] is None or row["partner"].isdigit()
    assert [type(v) for v in row["point_nm"]] == [float] * 3
    assert 0 <= row["score"] <= 1
    low, high = row["interval"]
    assert low <= row["confidence"] <= high
    assert 0 <= row["ood"]["percentile"] <= 100
    assert row["ood"]["flag"] in (True, False)
    assert row["reason"]
    assert all(set(v) == {"name", "score"} for v in row["evidence"]["views"])


def same_numbers(suggestion):
    """Without what only a search knows: a site that was given has no rivals and no rank."""
    return dataclasses.replace(suggestion, reason="", prior=None, joint=None)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_scoring_the_suggested_sites_gives_the_suggested_numbers(assistant, found, batch):
    answers = list(assistant.score([s.site for s in found.suggestions], batch=batch))

    assert [same_numbers(a.suggestion) for a in answers] == [
        same_numbers(s) for s in found.suggestions
    ]


def test_a_site_that_cannot_be_judged_becomes_an_error_in_its_place(assistant, found):
    good = found.suggestions[0].site
    point = good.point
    sites = [
        good,
        Site(Kind.JOIN, SegmentId(DUMBBELL), SegmentId(7), point),
        Site(Kind.JOIN, SegmentId(DUMBBELL), SegmentId(LONE), PointNm(-500, 0, 0)),
        good,
        Site(Kind.CUT, SegmentId(3), None, point),
    ]
    answers = list(assistant.score(sites, batch=2))

    assert [a.site for a in answers] == sites
    assert [a.suggestion is None for a in answers] == [False, True, True, False, True]
    assert "Segment 7 is not within" in answers[1].error
    assert "outside neurites" in answers[2].error
    assert answers[0].suggestion == answers[3].suggestion


def test_base_rate_moves_confidence_and_never_the_score(assistant, found):
    sites = [s.site for s in found.suggestions]
    rare = dict.fromkeys(Kind, BaseRate(0.01, "given", 0))
    usual, moved = (list(assistant.score(sites, base_rates=r)) for r in (None, rare))

    for a, b in zip(usual, moved, strict=True):
        assert a.suggestion.score == b.suggestion.score
        assert a.suggestion.confidence > b.suggestion.confidence


@pytest.mark.parametrize("kind", list(Kind))
def test_one_kind_only(assistant, kind):
    found = assistant.suggest(AT, kind=kind)

    assert {s.site.kind for s in found.suggestions} == {kind}


def test_limit(assistant):
    assert len(assistant.suggest(AT, limit=1).suggestions) == 1


def test_background_is_told_in_words(assistant):
    with pytest.raises(BackgroundError, match=r"no segment at .*press p again"):
        assistant.suggest(PointNm(905, 605, 55))


@pytest.mark.parametrize("segment", [None, SegmentId(DUMBBELL)])
def test_outside_is_told_in_words(assistant, segment):
    with pytest.raises(OutOfBoundsError):
        assistant.suggest(PointNm(-5, 365, 625), segment)


def test_an_absent_segment_is_told_in_words(assistant):
    with pytest.raises(SegmentNotFoundError, match="Segment 12345 is not within 300 nm"):
        assistant.suggest(AT, SegmentId(12345))


def test_a_named_segment_nearby_is_reached(assistant):
    found = assistant.suggest(PointNm(485, 365, 790), SegmentId(DUMBBELL))

    assert found.segment == DUMBBELL
    assert found.at.z == pytest.approx(775, abs=10)
    assert found.suggestions


def test_a_segment_alone_gives_an_empty_list_and_a_reason(assistant):
    found = assistant.suggest(PointNm(105, 105, 105))

    assert found.suggestions == ()
    assert f"Segment {LONE} has no contact or neck" in found.note


def test_what_the_model_saw_is_at_hand_for_the_label(assistant):
    found = assistant.suggest(AT)
    digest, data = assistant.views_of(found.suggestions[0].id)

    assert len(digest) == 64
    assert data[:8] == b"CB2VIEWS"
    assert assistant.views_of("never suggested") is None


def test_only_so_many_views_stay_in_memory(assistant):
    sites = [
        Site(Kind.JOIN, SegmentId(DUMBBELL), SegmentId(PARTNER), PointNm(485, 365, 700 + i))
        for i in range(RECENT_STACKS)
    ]
    old = assistant.suggest(AT).suggestions[0].id
    assert all(a.error is None for a in assistant.score(sites, batch=64))

    assert assistant.views_of(old) is None


def test_sides_of_a_cut_lie_on_its_two_sides(assistant):
    found = assistant.suggest(AT)
    cut = next(s for s in found.suggestions if s.site.kind is Kind.CUT)
    sides = assistant.sides_of(cut.id)
    assert assistant.sides_at(cut.site) == sides

    middles = [sum(p[2] for p in side) / len(side) for side in sides]
    assert abs(middles[0] - middles[1]) > 150
    assert all(0 < len(side) <= 150 for side in sides)
    join = next(s for s in found.suggestions if s.site.kind is Kind.JOIN)
    assert assistant.sides_of(join.id) is None


def test_sides_of_a_cut_whose_segment_was_replaced_are_those_of_what_is_there_now(
    assistant, monkeypatch
):
    cut = next(s.site for s in assistant.suggest(AT).suggestions if s.site.kind is Kind.CUT)
    old = dataclasses.replace(cut, segment=SegmentId(cut.segment + 10**6))
    with pytest.raises(SegmentNotFoundError):
        assistant.sides_at(old)
    asked = []
    graph = SimpleNamespace(current=lambda *given: asked.append(given) or (cut.segment, "words"))
    monkeypatch.setattr(assistant._models.pipeline, "_graph", graph)
    assert assistant.sides_at(old) == assistant.sides_at(cut)
    assert asked == [(old.segment, cut.point)]
