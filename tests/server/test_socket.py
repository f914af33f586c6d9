"""What the page says over its WebSocket and what it hears."""

from __future__ import annotations

import json
import threading

import pytest
from page_fakes import BASE, ENDING, toy_list
from page_harness import Page

from cb2_assist.core.errors import LabelFileReadOnlyError
from cb2_assist.core.geometry import PointNm

AT = [480.0, 480.0, 480.0]
CENTRE = BASE + 13


def _propose(page, segment: int = CENTRE) -> dict:
    return page.ask("propose", at_nm=AT, segment=str(segment))


def test_a_proposal_paints_exactly_what_suggest_prints(page) -> None:
    assert _propose(page)["ok"]
    assert page.snapshot["list"] == toy_list(CENTRE, PointNm.of(AT)).to_json()
    assert page.snapshot["list"]["segment"] == str(CENTRE)


def test_a_verdict_is_durable_before_it_is_answered(page, served) -> None:
    _propose(page)
    chosen = page.snapshot["selected"]
    ack = page.decide(chosen, "reject")
    assert ack["ok"], ack
    assert [e.decision.suggestion.id for e in served.log.events] == [chosen]
    assert page.snapshot["verdicts"] == {chosen: "reject"}
    assert page.snapshot["selected"] != chosen


def test_the_effect_arrives_before_the_answer(page) -> None:
    _propose(page)
    page.seen.clear()
    page.decide(page.snapshot["selected"])
    kinds = [m["type"] for m in page.seen]
    painted = next(
        i for i, m in enumerate(page.seen) if m["type"] == "snapshot" and m["snapshot"]["verdicts"]
    )
    assert painted < kinds.index("ack")


def test_the_same_idempotency_key_counts_once(page, served) -> None:
    _propose(page)
    chosen = page.snapshot["selected"]
    assert page.decide(chosen, key="same")["ok"]
    assert page.decide(chosen, key="same")["ok"]
    assert len(served.log.events) == 1


def test_a_reason_is_recorded_for_the_verdict_that_it_names(page, served) -> None:
    _propose(page)
    chosen = page.snapshot["selected"]
    assert page.decide(chosen, "reject", key="d1")["ok"]
    ack = page.ask(
        "reason", suggestion=chosen, verdict_key="d1", reason="artefact", idempotency_key="r1"
    )
    assert ack["ok"], ack
    event = served.log.events[-1]
    assert (event.event, event.target, event.reason) == ("reason", 1, "artefact")
    assert page.snapshot["reasons"] == {chosen: "artefact"}


def test_a_full_disk_is_said_and_the_row_stays_open(page, served) -> None:
    _propose(page)
    chosen = page.snapshot["selected"]
    served.log.fail_with = LabelFileReadOnlyError("The disk is full. Free some space.")
    ack = page.decide(chosen)
    assert not ack["ok"]
    assert ack["error"] == "NOT recorded: The disk is full. Free some space."
    assert page.snapshot["verdicts"] == {}
    assert page.snapshot["selected"] == chosen
    assert page.snapshot["status"]["level"] == "error"
    served.log.fail_with = None
    assert page.decide(chosen)["ok"]


def test_a_flag_leaves_the_row_open_and_an_answer_in_force(page, served) -> None:
    _propose(page)
    chosen = page.snapshot["selected"]
    ack = page.decide(chosen, "flag", note=" soma? ")
    assert ack["ok"], ack
    assert "“soma?”" in ack["text"]
    assert page.snapshot["selected"] == chosen
    assert page.snapshot["flags"] == {chosen: "soma?"}
    assert page.snapshot["verdicts"] == {chosen: "flag"}
    assert served.log.events[-1].decision.note == "soma?"
    page.decide(chosen, "accept")
    assert page.snapshot["verdicts"] == {chosen: "accept"}
    assert page.snapshot["flags"] == {chosen: "soma?"}
    page.ask("undo", idempotency_key="u1")
    page.ask("undo", idempotency_key="u2")
    assert (page.snapshot["verdicts"], page.snapshot["flags"]) == ({}, {})


def test_undo_and_redo_go_to_and_fro(page) -> None:
    _propose(page)
    chosen = page.snapshot["selected"]
    page.decide(chosen)
    assert page.ask("undo", idempotency_key="u1")["ok"]
    assert page.snapshot["verdicts"] == {}
    assert page.snapshot["selected"] == chosen
    assert page.ask("redo", idempotency_key="r1")["ok"]
    assert page.snapshot["verdicts"] == {chosen: "accept"}
    assert not page.ask("redo", idempotency_key="r2")["ok"]


def test_none_of_these_is_one_event_that_closes_the_end(page, served) -> None:
    _propose(page, ENDING)
    members = [s["id"] for s in page.snapshot["list"]["suggestions"] if s["joint"]]
    ack = page.decide(members[0], "none", members=members)
    assert ack["ok"], ack
    assert [e.decision.joint for e in served.log.events] == [True]
    assert page.snapshot["verdicts"] == dict.fromkeys(members, "reject")
    page.ask("undo", idempotency_key="u")
    assert page.snapshot["verdicts"] == {}


@pytest.mark.parametrize("members", [None, "all", [7]])
def test_none_of_these_must_say_what_was_on_screen(page, served, members) -> None:
    _propose(page, ENDING)
    ack = page.decide(page.snapshot["selected"], "none", members=members)
    assert not ack["ok"]
    assert "members must be the ids" in ack["error"]
    assert served.log.events == []


def test_an_accept_shows_its_rivals_closed_until_it_is_undone(page) -> None:
    _propose(page, ENDING)
    first, *rivals = (s["id"] for s in page.snapshot["list"]["suggestions"] if s["joint"])
    assert page.snapshot["implied"] == {}
    page.decide(first)
    assert page.snapshot["implied"] == dict.fromkeys(rivals, first)
    assert page.snapshot["verdicts"] == {first: "accept"}
    page.ask("undo", idempotency_key="u")
    assert page.snapshot["implied"] == {}


def test_a_second_page_sees_the_same(page, served, loop) -> None:
    _propose(page)
    other = Page(served, loop)
    assert other.snapshot["list"] == page.snapshot["list"]
    chosen = page.snapshot["selected"]
    page.decide(chosen)
    other.until("snapshot", lambda m: m["snapshot"]["verdicts"] == {chosen: "accept"})
    other.close()


def test_a_newer_proposal_supersedes_an_older_one(page, served) -> None:
    begun, released = threading.Event(), threading.Event()

    def hold(_at, segment) -> None:
        if segment == CENTRE:
            begun.set()
            assert released.wait(60)

    served.assistant.before = hold
    page.write(json.dumps({"type": "propose", "id": "old", "at_nm": AT, "segment": str(CENTRE)}))
    assert begun.wait(60)
    assert _propose(page, CENTRE + 1)["ok"]
    assert page.snapshot["list"]["segment"] == str(CENTRE + 1)
    released.set()
    assert page.until("ack", lambda ack: ack["id"] == "old")["ok"]
    assert page.snapshot["list"]["segment"] == str(CENTRE + 1)


def test_a_verdict_does_not_wait_for_a_proposal(page, served) -> None:
    _propose(page)
    chosen = page.snapshot["selected"]
    released = threading.Event()
    served.assistant.before = lambda _at, _segment: released.wait(60)
    page.write(json.dumps({"type": "propose", "id": "slow", "at_nm": AT, "segment": str(BASE)}))
    assert page.decide(chosen)["ok"]
    assert page.snapshot["busy_with"] == str(BASE)
    released.set()
    page.until("ack", lambda ack: ack["id"] == "slow")


@pytest.mark.parametrize(
    ("segment", "at", "words"),
    [
        ("0", AT, "no segment at the cursor"),
        ("5", AT, "There is no segment 5"),
        (None, [-5.0, 0, 0], "outside the volume"),
    ],
)
def test_a_place_without_a_segment_is_said_in_words(page, segment, at, words) -> None:
    _propose(page)
    before = page.snapshot["list"]
    ack = page.ask("propose", at_nm=at, segment=segment)
    assert not ack["ok"]
    assert words in ack["error"]
    assert page.snapshot["list"] == before
    assert page.snapshot["busy_with"] is None


GOOD_DECISION = {
    "type": "decide",
    "id": "1",
    "suggestion": "abc",
    "verdict": "accept",
    "key": "f",
    "idempotency_key": "k",
    "shown_ms": 1,
    "age_ms": 1,
    "idle_ms": 1,
}

GOOD_REASON = {
    "id": "1",
    "type": "reason",
    "suggestion": "a",
    "verdict_key": "d",
    "reason": "artefact",
    "idempotency_key": "r",
}

MALFORMED = [
    "",
    "nonsense",
    "[]",
    "null",
    "3",
    '"text"',
    "{}",
    '{"id": 5, "type": "ping"}',
    '{"id": "", "type": "ping"}',
    '{"id": "1"}',
    '{"id": "1", "type": "destroy"}',
    '{"id": "1", "type": ["ping"]}',
    '{"id": "1", "type": {"a": 1}}',
    '{"id": "1", "type": "propose"}',
    '{"id": "1", "type": "propose", "at_nm": [1, 2], "segment": null}',
    '{"id": "1", "type": "propose", "at_nm": [1, 2, "3"], "segment": null}',
    '{"id": "1", "type": "propose", "at_nm": [NaN, 2, 3], "segment": null}',
    '{"id": "1", "type": "propose", "at_nm": [Infinity, 2, 3], "segment": null}',
    '{"id": "1", "type": "propose", "at_nm": [1e999, 2, 3], "segment": null}',
    '{"id": "1", "type": "propose", "at_nm": [true, 2, 3], "segment": null}',
    '{"id": "1", "type": "propose", "at_nm": {"x": 1}, "segment": null}',
    '{"id": "1", "type": "propose", "at_nm": [1, 2, 3], "segment": 9007199254740993}',
    '{"id": "1", "type": "propose", "at_nm": [1, 2, 3], "segment": "0x10"}',
    '{"id": "1", "type": "propose", "at_nm": [1, 2, 3], "segment": "-5"}',
    '{"id": "1", "type": "propose", "at_nm": [1, 2, 3], "segment": "18446744073709551616"}',
    f'{{"id": "1", "type": "propose", "at_nm": [1, 2, 3], "segment": "{"9" * 5000}"}}',
    f'{{"id": "1", "type": "propose", "at_nm": [1{"0" * 400}, 2, 3], "segment": null}}',
    f'{{"id": "1", "type": "propose", "at_nm": [1{"0" * 5000}, 2, 3], "segment": null}}',
    '{"id": "1", "type": "select", "suggestion": 5}',
    '{"id": "1", "type": "select", "suggestion": "../../x"}',
    '{"id": "1", "type": "select", "suggestion": "unknown"}',
    '{"id": "1", "type": "undo"}',
    json.dumps({**GOOD_REASON, "reason": "because"}),
    json.dumps({**GOOD_REASON, "reason": ["artefact"]}),
    json.dumps({**GOOD_REASON, "reason": None}),
    json.dumps({**GOOD_REASON, "suggestion": "unknown"}),
    json.dumps({**GOOD_REASON, "verdict_key": "x y"}),
    json.dumps({**GOOD_REASON, "idempotency_key": None}),
    '{"id": "1", "type": "preview", "shown": "yes"}',
    '{"id": "1", "type": "look_at"}',
    '{"id": "1", "type": "look_at", "camera_nm": [1, null, 3]}',
    "[" * 40_000,
    '{"a": ' * 10_000,
    " " * 70_000,
    "x" * 1_000_000,
    json.dumps({**GOOD_DECISION, "verdict": "maybe"}),
    json.dumps({**GOOD_DECISION, "verdict": None}),
    json.dumps({**GOOD_DECISION, "verdict": "skip"}),
    json.dumps({**GOOD_DECISION, "verdict": "flag"}),
    json.dumps({**GOOD_DECISION, "verdict": "flag", "note": "  "}),
    json.dumps({**GOOD_DECISION, "verdict": "flag", "note": "two\nlines"}),
    json.dumps({**GOOD_DECISION, "verdict": "flag", "note": "x" * 501}),
    json.dumps({**GOOD_DECISION, "verdict": "flag", "note": 7}),
    json.dumps({**GOOD_DECISION, "suggestion": 17}),
    json.dumps({**GOOD_DECISION, "idempotency_key": ""}),
    json.dumps({**GOOD_DECISION, "idempotency_key": "k" * 65}),
    json.dumps({**GOOD_DECISION, "shown_ms": -1}),
    json.dumps({**GOOD_DECISION, "shown_ms": "long"}),
    json.dumps({**GOOD_DECISION, "age_ms": 1e300}),
    json.dumps({**GOOD_DECISION, "key": "\ud800"}),
    json.dumps({**GOOD_DECISION, "key": "\x00"}),
    json.dumps({**GOOD_DECISION, "key": 7}),
    json.dumps(GOOD_DECISION),
]


def test_malformed_messages_get_words_and_leave_the_connection(page, served, caplog) -> None:
    for text in MALFORMED:
        page.write(text)
        ack = page.until("ack")
        assert not ack["ok"], text[:200]
        assert ack["error"], text[:200]
        assert len(ack["error"]) < 400, ack["error"]
        assert "Traceback" not in ack["error"]
    page.write(b"\x00\x01", binary=True)
    assert not page.until("ack")["ok"]
    assert page.ask("ping")["ok"]
    assert served.log.events == []
    assert [r for r in caplog.records if r.exc_info] == []


def test_segments_that_are_drawn_whole_stay_so_wherever_the_camera_goes(page) -> None:
    ack = page.ask("look_at", camera_nm=[1e9, -5.0, 3.5])
    assert (ack["ok"], ack["data"]) == (True, {"redraw": False})


def test_a_fault_of_ours_is_told_and_logged(page, served, caplog) -> None:
    def fail(_at, _segment) -> None:
        raise RuntimeError("a bug")

    served.assistant.before = fail
    ack = _propose(page)
    assert not ack["ok"]
    assert "inside cb2-assist" in ack["error"]
    assert page.snapshot["busy_with"] is None
    assert any("a bug" in str(r.exc_info) for r in caplog.records)
    served.assistant.before = lambda _at, _segment: None
    assert _propose(page)["ok"]
