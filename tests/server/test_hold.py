"""A session belongs to one tab at a time, and to which one is never an accident."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from cb2_assist.server.hold import GRACE_S, RELOAD_S, Hold, TabId


@dataclass(eq=False)
class Tab:
    """A connection that remembers what it was told."""

    world: World
    tab: TabId
    told: list[bool] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return self.world.hold.is_holder(self)

    def send_hold(self) -> None:
        self.told.append(self.holds)


class World:
    """A hold on a clock that tests turn."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, object]] = []
        self.hold = Hold(lambda seconds, call: self.due.append((self.now + seconds, call)))

    def open(self, tab: str, load: str = "1", *, waits: bool = False) -> Tab:
        made = Tab(self, TabId(tab, load, waits))
        self.hold.join(made)
        return made

    def close(self, tab: Tab, *, said_goodbye: bool = False) -> None:
        self.hold.leave(tab, said_goodbye=said_goodbye)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = [call for at, call in self.due if at <= self.now]
        self.due = [(at, call) for at, call in self.due if at > self.now]
        for call in due:
            call()


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_tab_holds_and_the_second_asks(world) -> None:
    first, second = world.open("a"), world.open("b")
    assert (first.holds, second.holds) == (True, False)
    world.wait(3600)
    assert (first.holds, second.holds) == (True, False)
    assert first.told == second.told == []


def test_taking_over_tells_both(world) -> None:
    first, second = world.open("a"), world.open("b")
    world.hold.take(second)
    assert (first.holds, second.holds) == (False, True)
    assert (first.told, second.told) == ([False], [True])
    world.hold.take(first)
    assert (first.told, second.told) == ([False, True], [True, False])
    world.hold.take(first)
    assert first.told == [False, True], "nothing new to tell"


def test_a_reload_keeps_the_session(world) -> None:
    first, second = world.open("a", "1"), world.open("b")
    world.close(first, said_goodbye=True)
    world.wait(RELOAD_S - 1)
    again = world.open("a", "2")
    assert again.holds
    world.wait(60)
    assert (again.holds, second.holds) == (True, False)


def test_a_connection_that_comes_back_keeps_the_session(world) -> None:
    first, second = world.open("a"), world.open("b")
    world.close(first)
    world.wait(GRACE_S - 1)
    back = world.open("a")
    world.wait(60)
    assert (back.holds, second.holds) == (True, False)


def test_a_connection_that_comes_back_before_its_old_one_is_gone_keeps_it(world) -> None:
    first, second = world.open("a"), world.open("b")
    back = world.open("a")
    world.close(first)
    world.wait(60)
    assert (back.holds, second.holds) == (True, False)


def test_a_tab_that_is_gone_for_long_leaves_the_session_to_one_that_waits(world) -> None:
    first, second = world.open("a"), world.open("b")
    world.close(first)
    assert not second.holds
    world.wait(GRACE_S)
    assert second.holds
    assert second.told == [True]
    assert not world.open("a", "2").holds, "and it is asked when it comes back"


def test_a_tab_that_was_closed_leaves_the_session_sooner(world) -> None:
    first, second = world.open("a"), world.open("b")
    world.close(first, said_goodbye=True)
    assert not second.holds
    world.wait(RELOAD_S)
    assert second.holds


def test_with_nobody_waiting_the_next_tab_gets_it(world) -> None:
    world.close(world.open("a"))
    assert not world.open("b").holds, "the holder may be on its way back"
    world.close(world.open("c"))
    world.wait(GRACE_S)
    third = world.open("d")
    assert not third.holds, "b was waiting"


def test_after_a_restart_the_holder_comes_first_whoever_connects_first(world) -> None:
    displaced = world.open("b", waits=True)
    assert not displaced.holds
    world.wait(1)
    holder = world.open("a")
    world.wait(60)
    assert (holder.holds, displaced.holds) == (True, False)


def test_after_a_restart_a_tab_that_waited_gets_it_when_the_holder_stays_away(world) -> None:
    displaced = world.open("b", waits=True)
    world.wait(GRACE_S)
    assert displaced.holds


def test_a_copied_tab_never_shares(world) -> None:
    """Should a browser copy a tab's name all the same, the newer page holds alone."""
    first, copy = world.open("a", "1"), world.open("a", "2")
    assert (first.holds, copy.holds) == (False, True)
    assert first.told == [False]


def test_a_holder_that_left_after_it_was_displaced_changes_nothing(world) -> None:
    first, second = world.open("a"), world.open("b")
    world.hold.take(second)
    world.close(first)
    world.wait(60)
    assert second.holds
