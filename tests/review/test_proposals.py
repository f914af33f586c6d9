"""Lists that are put on screen, kept, and taken up again."""

from __future__ import annotations

import threading

import pytest
from page_fakes import (
    BASE,
)
from session_world import AT, CENTRE, World

from cb2_assist.core.errors import (
    BackgroundError,
    DecisionError,
)
from cb2_assist.core.records import Verdict
from cb2_assist.review.state import Cursor, StateFile


def test_only_recent_lists_are_remembered(world) -> None:
    world.propose(BASE)
    old = world.ids[0]
    for segment in range(BASE + 10, BASE + 18):
        world.propose(segment)
    with pytest.raises(DecisionError, match="NOT recorded"):
        world.decide(old)


def test_a_place_without_suggestions_leaves_the_list(world) -> None:
    world.propose()
    before = world.ids
    with pytest.raises(BackgroundError):
        world.propose(0)
    assert world.ids == before
    assert world.session.screen.busy_with is None
    assert world.session.screen.status.level == "warn"


def test_a_late_answer_to_an_old_proposal_is_dropped(world) -> None:
    begun, released = threading.Event(), threading.Event()

    def hold(_at, segment) -> None:
        if segment == BASE:
            begun.set()
            assert released.wait(60)

    world.assistant.before = hold
    old = threading.Thread(target=world.propose, args=(BASE,))
    old.start()
    assert begun.wait(60)
    world.propose(CENTRE)
    shown = world.ids
    released.set()
    old.join(10)
    assert world.ids == shown
    assert StateFile(world.path).saved.cursor.segment == CENTRE


def test_a_restart_resumes_at_the_first_open_row(world) -> None:
    world.propose()
    first, second = world.ids[:2]
    world.decide(first)
    again = world.open()
    again.proposals.resume()
    assert [s.id for s in again.screen.suggestions] == world.ids
    assert again.screen.verdicts == {first: Verdict.ACCEPT}
    assert again.screen.selected == second
    assert again.screen.can_undo
    again.close(5)


def test_a_list_of_another_segmentation_version_is_not_resumed(world) -> None:
    world.propose()
    StateFile(world.path).update(version="older")
    again = world.open()
    again.proposals.resume()
    assert again.screen.list is None
    again.close(5)


def test_a_state_file_that_cannot_be_written_stops_nothing(tmp_path) -> None:
    world = World(tmp_path / "missing")
    world.propose()
    assert world.ids
    world.session.close(5)


def test_a_verdict_typed_before_a_restart_waits_for_its_list(world) -> None:
    """The page repeats it as soon as the server answers, which is before the list is back."""
    world.propose()
    earlier = world.ids[1]
    world.session = world.open()
    world.session.proposals.expect_resume()
    late = threading.Thread(target=world.decide, args=(earlier,))
    late.start()
    late.join(0.05)
    assert late.is_alive()
    world.session.proposals.resume()
    late.join(10)
    assert [e.decision.suggestion.id for e in world.log.events] == [earlier]
    assert world.session.screen.verdicts == {earlier: Verdict.ACCEPT}


def test_a_resume_that_fails_lets_verdicts_go_on(world) -> None:
    def fail(_at, _segment):
        raise BackgroundError("gone")

    world.propose()
    world.assistant.before = fail
    world.session = world.open()
    world.session.proposals.expect_resume()
    with pytest.raises(BackgroundError):
        world.session.proposals.resume()
    with pytest.raises(DecisionError, match="NOT recorded"):
        world.decide("0123456789abcdef")


def test_a_proposal_that_must_wait_for_the_first_start_says_so(world) -> None:
    world.session.proposals.begin(Cursor(AT, CENTRE))
    assert "getting ready" not in world.session.snapshot()["status"]["text"]

    world.assistant.preparing = True
    world.session.proposals.begin(Cursor(AT, CENTRE))
    assert "getting ready" in world.session.snapshot()["status"]["text"]
