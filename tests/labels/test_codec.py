"""Decisions as text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from label_makers import BIG, decision, suggestion

from cb2_assist.core.errors import LabelError
from cb2_assist.core.records import Kind, Verdict
from cb2_assist.decisions.log import alternative
from cb2_assist.labels.codec import answered_sites, decision_from_text, decision_to_text

FULL = decision(
    2,
    Verdict.NONE,
    joint=True,
    alternatives=(alternative(suggestion(2), supervoxels=(BIG, None)),),
    reason='a "quoted"\nline',
    score_hidden=True,
    views_sha256="00" * 32,
    propensity={"how": "queue", "strategies": {"margin": 0.5}},
)


@pytest.mark.parametrize("given", [decision(), decision(kind=Kind.CUT), FULL])
def test_a_decision_survives_the_round_trip(given) -> None:
    assert decision_from_text(decision_to_text(given)) == given


def test_segment_ids_are_text_everywhere() -> None:
    def numbers(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            return [n for v in value for n in numbers(v)]
        return [value] if isinstance(value, int) else []

    assert max(numbers(json.loads(decision_to_text(FULL)))) < 2**53
    assert str(BIG) in decision_to_text(FULL)


def test_fields_of_other_versions_do_not_hurt() -> None:
    document = json.loads(decision_to_text(decision()))
    document["from_the_future"] = 1
    for name in ("score_hidden", "joint", "reason", "views_sha256"):
        del document[name]
    assert decision_from_text(json.dumps(document)) == decision()


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"suggestion": 1}'])
def test_damaged_text_is_told(text: str) -> None:
    with pytest.raises(LabelError, match="cannot be read"):
        decision_from_text(text)


def test_none_answers_each_open_join_once() -> None:
    shown = (
        alternative(suggestion(0)),
        alternative(suggestion(0)),
        alternative(suggestion(1), verdict=Verdict.REJECT),
        alternative(suggestion(2), verdict=Verdict.UNSURE),
        alternative(suggestion(3, Kind.CUT)),
    )
    sites = answered_sites(decision(3, Verdict.NONE, kind=Kind.CUT, alternatives=shown))
    assert [s.id for s in sites] == [suggestion(0).id, suggestion(2).id]
    assert {s.verdict for s in sites} == {Verdict.REJECT}
    assert (sites[0].segment, sites[0].partner) == (str(BIG), str(BIG + 1))


AT_END = f"{BIG}@1,2,3"


def joined(n: int, joint: str | None):
    return replace(suggestion(n), joint=joint, prior=0.25)


def test_none_answers_the_open_joins_of_its_joint_set_alone() -> None:
    shown = (
        alternative(joined(0, AT_END)),
        alternative(joined(1, None)),
        alternative(joined(2, f"{BIG}@4,5,6")),
        alternative(joined(3, AT_END), verdict=Verdict.REJECT),
        alternative(joined(4, AT_END), implied=True),
        alternative(joined(5, AT_END)),
    )
    none = decision(0, Verdict.NONE, suggestion=joined(0, AT_END), alternatives=shown)
    assert [s.id for s in answered_sites(none)] == [suggestion(n).id for n in (0, 5)]
    at_no_end = replace(none, suggestion=joined(1, None))
    assert [s.id for s in answered_sites(at_no_end)] == [suggestion(1).id]


def test_none_from_before_joint_sets_means_every_open_join() -> None:
    given = decision(0, Verdict.NONE, alternatives=(alternative(suggestion(0)),) * 1)
    old = json.loads(decision_to_text(given))
    for name in ("joint", "prior"):
        del old["suggestion"][name], old["alternatives"][0][name]
    old["alternatives"].append({**old["alternatives"][0], "id": "other"})
    read = decision_from_text(json.dumps(old))
    assert [s.id for s in answered_sites(read)] == [suggestion(0).id, "other"]
    assert (read.suggestion.joint, read.suggestion.prior) == (None, None)


def test_joint_set_and_prior_survive_the_round_trip() -> None:
    given = decision(suggestion=joined(0, AT_END), alternatives=(alternative(joined(0, AT_END)),))
    read = decision_from_text(decision_to_text(given))
    assert read == given
    assert (read.suggestion.joint, read.suggestion.prior) == (AT_END, 0.25)
    assert (read.alternatives[0]["joint"], read.alternatives[0]["prior"]) == (AT_END, 0.25)
