"""The screen that a session shows, and moving about on it."""

from __future__ import annotations

import pytest
from page_fakes import (
    INFO,
    toy_list,
    wait_until,
)
from session_world import AT, CENTRE

from cb2_assist.core.errors import (
    DecisionError,
)


def test_the_snapshot_carries_the_list_as_suggest_prints_it(world) -> None:
    world.propose()
    snapshot = world.session.snapshot()
    assert snapshot["list"] == toy_list(CENTRE, AT).to_json()
    assert snapshot["selected"] == world.ids[0]
    assert snapshot["dataset"]["licence"] == INFO.licence


def test_a_preview_ends_with_its_suggestion(world) -> None:
    world.propose()
    world.session.set_preview(True)
    world.session.select(world.ids[0])
    assert world.session.screen.preview
    world.session.select(world.ids[1])
    assert not world.session.screen.preview
    world.session.set_preview(True)
    world.decide(world.ids[1])
    assert not world.session.screen.preview


def test_a_preview_of_nothing_is_refused(world) -> None:
    with pytest.raises(DecisionError, match="nothing to preview"):
        world.session.set_preview(True)


def test_the_sides_of_a_selected_cut_arrive(world) -> None:
    world.propose()
    cut = world.ids[2]
    world.session.select(cut)
    wait_until(lambda: world.session.snapshot()["sides"])
    assert len(world.session.snapshot()["sides"]) == 2
    world.session.select(world.ids[0])
    assert world.session.snapshot()["sides"] is None


def test_every_change_has_a_revision_of_its_own(world) -> None:
    seen = []
    world.session.on_change = lambda: seen.append(world.session.screen.revision)
    world.propose()
    world.decide(world.ids[0])
    world.session.select(world.ids[0])
    assert seen == sorted(seen)
    assert len(set(seen)) >= 4


def test_selecting_what_is_gone_is_refused(world) -> None:
    with pytest.raises(DecisionError, match="no longer on the list"):
        world.session.select("0123456789abcdef")
