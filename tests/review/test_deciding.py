"""What verdicts, reasons, undo and redo do to the log and to the screen."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import replace
from datetime import datetime

import pytest
from page_fakes import (
    BASE,
    ENDING,
    INFO,
    toy_list,
)
from session_world import AT, CENTRE, World

from cb2_assist.core.errors import (
    DecisionError,
    LabelError,
    LabelFileReadOnlyError,
)
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Draw, Verdict
from cb2_assist.decisions.log import DecisionLog
from cb2_assist.labels.codec import answered_sites
from cb2_assist.labels.store import open_store
from cb2_assist.review.answers import GivenReason


def test_each_verdict_moves_on_to_the_next_open_row(world) -> None:
    world.propose()
    first, second, third, fourth = world.ids
    world.session.select(third)
    for chosen, verdict, following in (
        (third, Verdict.UNSURE, fourth),
        (fourth, Verdict.REJECT, first),
        (first, Verdict.ACCEPT, second),
        (second, Verdict.ACCEPT, second),
    ):
        assert world.session.screen.selected == chosen
        text = world.decide(chosen, verdict)
        assert world.session.screen.selected == following
    assert "All on this list are decided" in text


def test_a_decision_carries_what_was_on_screen(world) -> None:
    world.propose()
    chosen = world.ids[2]
    world.decide(world.ids[0], Verdict.REJECT)
    world.decide(chosen, Verdict.UNSURE, age_ms=60_000.0, shown_ms=1500.0, idle_ms=9999.0, key="g")
    decision = world.log.events[-1].decision
    assert decision.suggestion.id == chosen
    assert (decision.rank, decision.key, decision.user) == (2, "g", "tester")
    assert [a["id"] for a in decision.alternatives] == world.ids
    assert decision.alternatives[0]["verdict"] == "reject"
    assert decision.alternatives[0]["segment"] == str(CENTRE)
    assert (decision.dataset, decision.version) == (INFO.name, INFO.version)
    assert (decision.licence, decision.species) == (INFO.licence, INFO.species)
    shown, decided = map(datetime.fromisoformat, (decision.shown_at, decision.decided_at))
    assert (decided - shown).total_seconds() == pytest.approx(1.5)
    assert (datetime.now(decided.tzinfo) - decided).total_seconds() == pytest.approx(60, abs=5)
    assert decision.idle_ms == 1500, "never more than it was shown"


def test_the_views_are_kept_before_the_decision(world) -> None:
    world.propose()
    world.decide(world.ids[1])
    sha256 = world.log.events[-1].decision.views_sha256
    assert hashlib.sha256(world.views.kept[sha256]).hexdigest() == sha256


def test_views_are_not_kept_when_nobody_wants_them(tmp_path) -> None:
    world = World(tmp_path, keep_views=False)
    world.propose()
    world.decide(world.ids[0])
    assert world.log.events[-1].decision.views_sha256 is None
    world.session.close(5)


def test_a_verdict_is_worth_more_than_its_views(world) -> None:
    def fail(_id):
        raise ValueError("cannot draw")

    world.assistant.views_of = fail
    world.propose()
    world.decide(world.ids[0])
    assert world.log.events[-1].decision.views_sha256 is None


def test_views_that_cannot_be_written_stop_the_verdict(world) -> None:
    def full(_data, _sha256):
        raise LabelFileReadOnlyError("The disk is full.")

    world.views.put = full
    world.propose()
    with pytest.raises(LabelError, match="NOT recorded: The disk is full"):
        world.decide(world.ids[0])
    assert world.log.events == []
    assert world.session.screen.verdicts == {}


def test_a_verdict_on_the_list_before_is_recorded_for_the_suggestion_that_it_names(world) -> None:
    world.propose()
    earlier = world.ids[0]
    world.propose(BASE)
    selected = world.session.screen.selected
    assert earlier not in world.ids
    text = world.decide(earlier)
    decision = world.log.events[-1].decision
    assert decision.suggestion.id == earlier
    assert {a["segment"] for a in decision.alternatives} == {str(CENTRE)}
    assert "earlier list" in text
    assert world.session.screen.selected == selected, "the list in view has not moved"


def test_a_verdict_on_nothing_known_is_refused_in_words(world) -> None:
    world.propose()
    with pytest.raises(DecisionError, match="NOT recorded: that suggestion is not on a recent"):
        world.decide("0123456789abcdef")
    assert world.log.events == []
    assert world.session.screen.status.level == "error"


def test_undo_goes_back_to_the_row(world) -> None:
    world.propose()
    first, second = world.ids[:2]
    world.decide(first)
    world.decide(second, Verdict.REJECT)
    assert world.session.undo("u1").startswith("Undone: rejected join of")
    assert world.session.screen.selected == second
    assert world.session.screen.verdicts == {first: Verdict.ACCEPT}
    assert world.session.screen.can_redo
    world.session.redo("r1")
    assert world.session.screen.verdicts == {first: Verdict.ACCEPT, second: Verdict.REJECT}


def test_an_undo_that_arrives_twice_counts_once(world) -> None:
    world.propose()
    world.decide(world.ids[0])
    world.decide(world.ids[1])
    world.session.undo("same")
    world.session.undo("same")
    assert world.session.screen.verdicts == {world.ids[0]: Verdict.ACCEPT}


def test_a_verdict_sent_again_after_its_undo_stays_undone(world) -> None:
    """The page repeats what was not answered; the answer may have been lost after the undo."""
    world.propose()
    world.decide(world.ids[0], idempotency_key="same")
    world.session.undo("u1")
    world.decide(world.ids[0], idempotency_key="same")
    assert world.session.screen.verdicts == {}


def test_undoing_nothing_is_said(world) -> None:
    with pytest.raises(DecisionError, match="nothing to undo"):
        world.session.undo("u1")
    assert world.session.screen.status.level == "warn"


def test_a_verdict_on_a_cut_counts_while_its_sides_are_still_computed(world) -> None:
    computed = threading.Event()
    make = world.assistant.sides_at

    def slow(site):
        assert computed.wait(60)
        return make(site)

    world.assistant.sides_at = slow
    world.session = world.open()
    world.propose()
    cut = world.ids[2]
    world.session.select(cut)
    try:
        world.decide(cut)
        assert world.session.snapshot()["sides"] is None
        decision = world.log.events[-1].decision
        assert (decision.suggestion.id, decision.verdict) == (cut, Verdict.ACCEPT)
        assert decision.views_sha256 in world.views.kept
    finally:
        computed.set()


def test_a_row_can_be_answered_anew(world) -> None:
    world.propose()
    world.decide(world.ids[0], Verdict.ACCEPT)
    world.decide(world.ids[0], Verdict.REJECT)
    assert world.session.screen.verdicts == {world.ids[0]: Verdict.REJECT}


def test_a_reject_offers_reasons_and_names_the_verdict_that_they_are_about(world) -> None:
    world.propose()
    first = world.ids[0]
    assert world.session.snapshot()["reason_for"] is None
    text = world.decide(first, Verdict.REJECT, idempotency_key="d1")
    assert "1 mitochondrion, 2 other neuron, 3 artefact, 4 cannot see" in text
    assert world.session.snapshot()["reason_for"] == {"suggestion": first, "verdict_key": "d1"}
    said = world.session.give_reason(GivenReason(first, "other_neuron", "r1", "d1"))
    assert said.startswith("Other neuron: rejected join of")
    assert world.session.snapshot()["reasons"] == {first: "other_neuron"}
    again = world.open()
    again.proposals.resume()
    assert again.snapshot()["reasons"] == {first: "other_neuron"}
    again.close(5)


@pytest.mark.parametrize("what", ["accept", "undo", "propose"])
def test_the_offer_ends_with_what_is_done_next(world, what: str) -> None:
    world.propose()
    world.decide(world.ids[0], Verdict.UNSURE)
    assert world.session.snapshot()["reason_for"] is not None
    if what == "accept":
        assert "Why?" not in world.decide(world.ids[1])
    elif what == "undo":
        world.session.undo("u1")
    else:
        world.propose(BASE)
    assert world.session.snapshot()["reason_for"] is None


def test_a_reason_that_cannot_be_recorded_is_said(world) -> None:
    world.propose()
    with pytest.raises(DecisionError):
        world.session.give_reason(GivenReason(world.ids[0], "artefact", "r1"))
    status = world.session.screen.status
    assert status.text.startswith("NO reason recorded")
    assert status.level == "warn"


def test_none_of_these_rejects_each_open_join_at_the_end_in_one_event(world) -> None:
    world.propose(ENDING)
    first, second, cut, third = world.ids
    world.decide(second, Verdict.REJECT)
    text = world.decide(first, Verdict.NONE, key="0")
    assert text.startswith("None of these: 2 joins at this end rejected. Why? 1 mitochondrion")
    assert world.session.screen.verdicts == dict.fromkeys((first, second, third), Verdict.REJECT)
    assert world.session.screen.selected == cut
    decision = world.log.events[-1].decision
    assert (decision.verdict, decision.joint, decision.key) == (Verdict.NONE, True, "0")
    assert [s.id for s in answered_sites(decision)] == [first, third]


def test_the_views_of_every_join_that_none_rejects_are_kept(world) -> None:
    world.propose(ENDING)
    first, second, cut, third = world.ids
    world.decide(first, Verdict.NONE)
    kept = {a["id"]: a.get("views_sha256") for a in world.log.events[-1].decision.alternatives}
    assert kept[cut] is None
    for member in (first, second, third):
        assert world.views.kept[kept[member]] == f"views of {member}".encode()
    sides = world.log.events[-1].decision.alternatives[1]["supervoxels"]
    assert sides[0] == str(ENDING)


def test_none_of_these_leaves_the_joins_of_another_question(world) -> None:
    world.assistant.suggest = lambda at, segment, *_: mixed_list(segment, at)
    world.propose()
    end, side, _, other_side = world.ids
    assert "1 join at this end" in world.decide(end, Verdict.NONE)
    assert world.session.screen.verdicts == {end: Verdict.REJECT}
    assert "2 joins at no end" in world.decide(side, Verdict.NONE)
    assert world.session.screen.verdicts == dict.fromkeys((end, side, other_side), Verdict.REJECT)


def mixed_list(segment: int, at: PointNm):
    """Of the three joins, one at an end and two at none."""
    found = toy_list(segment, at)
    first, *others = found.suggestions
    return replace(found, suggestions=(replace(first, joint=f"{segment}@1,2,3"), *others))


def test_none_of_these_is_no_answer_to_a_cut(world) -> None:
    world.propose(ENDING)
    with pytest.raises(DecisionError, match="NOT recorded: 0 answers joins"):
        world.decide(world.ids[2], Verdict.NONE)
    assert world.log.events == []


def test_an_accepted_join_closes_its_rivals_without_a_label(world) -> None:
    world.propose(ENDING)
    first, second, cut, third = world.ids
    world.session.select(second)
    text = world.decide(second)
    assert "2 other joins at this end closed" in text
    screen = world.session.screen
    assert screen.verdicts == {second: Verdict.ACCEPT}
    assert screen.implied == {first: second, third: second}
    assert world.session.snapshot()["implied"] == screen.implied
    assert screen.selected == cut, "closed rows are passed over"
    assert len(world.log.events) == 1
    world.decide(cut, Verdict.REJECT)
    assert "All on this list are decided" in world.session.screen.status.text
    shown = {a["id"]: a for a in world.log.events[-1].decision.alternatives}
    assert [shown[i].get("implied", False) for i in world.ids] == [True, False, False, True]


def test_undoing_an_accept_opens_its_rivals_and_redoing_closes_them(world) -> None:
    world.propose(ENDING)
    first, second, _, third = world.ids
    world.decide(first)
    world.session.undo("u")
    assert world.session.screen.implied == {}
    assert world.session.screen.next_undecided(first) == second
    world.session.redo("r")
    assert world.session.screen.implied == {second: first, third: first}


def test_a_closed_rival_can_still_be_answered(world) -> None:
    world.propose(ENDING)
    first, second, _, third = world.ids
    world.decide(first)
    world.decide(second, Verdict.REJECT)
    assert world.session.screen.verdicts == {first: Verdict.ACCEPT, second: Verdict.REJECT}
    assert world.session.screen.implied == {third: first}
    assert len(world.log.events) == 2


def test_closed_rivals_are_still_closed_after_a_restart(world) -> None:
    world.propose(ENDING)
    first, second, _, third = world.ids
    world.decide(first)
    again = world.open()
    again.proposals.resume()
    assert again.screen.implied == {second: first, third: first}
    again.close(5)


def test_none_of_these_after_an_accept_has_nothing_to_reject(world, tmp_path) -> None:
    with open_store(f"sqlite:///{tmp_path}/labels.sqlite") as store:
        world.log = DecisionLog(store, user="tester", dataset=INFO.name, version=INFO.version)
        world.session = world.open()
        world.propose(ENDING)
        world.decide(world.ids[0])
        with pytest.raises(DecisionError, match="there are none"):
            world.decide(world.ids[1], Verdict.NONE)
        assert [x.verdict for x in store.labels()] == [Verdict.ACCEPT]


def test_none_of_these_is_refused_when_other_joins_were_on_screen(world) -> None:
    """Pressed on a list that has changed by the time it arrives."""
    world.propose(ENDING)
    first, second, _, third = world.ids
    world.decide(second, Verdict.REJECT)
    with pytest.raises(DecisionError, match="pressed on 3 open joins, and by now 2 are open"):
        world.decide(first, Verdict.NONE, members=frozenset((first, second, third)))
    assert len(world.log.events) == 1
    world.decide(first, Verdict.NONE, members=frozenset((first, third)))
    assert len(world.log.events) == 2


def test_of_the_joins_that_none_rejects_only_the_drawn_one_was_drawn(world) -> None:
    found = toy_list(ENDING, AT)
    drawn = Draw(5, found.suggestions[1].id, "{}", "margin", False, 0.1, 0.9, 12)
    world.session.proposals.show(
        world.session.proposals.begin_move(), lambda: replace(found, drawn=drawn)
    )
    first, second, _, third = world.ids
    world.decide(first, Verdict.NONE)
    decision = world.log.events[-1].decision
    shown = {a["id"]: a["propensity"] for a in decision.alternatives if "propensity" in a}
    assert shown[second]["probability"] == 0.9
    assert decision.propensity["how"] == shown[first]["how"] == shown[third]["how"] == "queue_list"


def test_a_skipped_rival_of_an_accepted_join_is_closed_too(world) -> None:
    world.propose(ENDING)
    first, second, _, third = world.ids
    world.decide(first, Verdict.SKIP)
    world.decide(second)
    assert world.session.screen.implied == {first: second, third: second}


def test_a_second_accept_at_an_end_is_taken_and_said(world) -> None:
    """Two pieces may both belong there; the person sees them, the list does not."""
    world.propose(ENDING)
    first, second, _, _ = world.ids
    assert "2 other joins at this end closed" in world.decide(first)
    text = world.decide(second)
    assert "closed" not in text
    assert "Another join at this end is accepted too" in text


def test_none_of_these_waits_for_views_once_and_not_for_each_join(world, monkeypatch) -> None:
    monkeypatch.setattr("cb2_assist.review.answers._EVIDENCE_WAIT_S", 2.0)
    never = threading.Event()
    views_of = world.assistant.views_of
    world.assistant.views_of = lambda i: (never.wait(60), views_of(i))[1]
    world.propose(ENDING)
    begun = time.monotonic()
    world.decide(world.ids[0], Verdict.NONE)
    # a wait for each of the four joins would take 8 s
    assert time.monotonic() - begun < 7
    assert len(world.log.events) == 1
    never.set()


def test_none_of_these_sent_again_counts_once(world, tmp_path) -> None:
    """The page repeats what was not answered; all is closed then by its own first arrival."""
    with open_store(f"sqlite:///{tmp_path}/labels.sqlite") as store:
        world.log = DecisionLog(store, user="tester", dataset=INFO.name, version=INFO.version)
        world.session = world.open()
        world.propose(ENDING)
        for _ in range(2):
            members = frozenset(i for n, i in enumerate(world.ids) if n != 2)
            again = {"idempotency_key": "same", "members": members}
            text = world.decide(world.ids[0], Verdict.NONE, **again)
            assert text.startswith("None of these: 3 joins")
        assert len(list(store.events())) == 1
        assert len(list(store.labels())) == 3
