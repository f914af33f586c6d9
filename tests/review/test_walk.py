"""What q does: skip, draw, show; leases, stale sites, restarts, other people."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from page_fakes import BASE, INFO, ToyAssistant, wait_until

from cb2_assist.core.errors import AssistError, DatasetError, DecisionError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Verdict
from cb2_assist.decisions.log import DecisionLog
from cb2_assist.labels.queue_store import Scope
from cb2_assist.labels.sqlite import SqliteLabelStore
from cb2_assist.learning.cover import stops_in_box
from cb2_assist.learning.export import export_labels
from cb2_assist.learning.fill import fill
from cb2_assist.learning.queue import next_draw, pick, probability, ranked
from cb2_assist.review.answers import Answer
from cb2_assist.review.session import ReviewSession
from cb2_assist.review.state import Cursor, StateFile
from cb2_assist.review.walk import QueueWalk

AT = PointNm(480, 480, 480)
CENTRE = BASE + 13
PLACE = (INFO.name, INFO.version)
BOX = Scope(*PLACE, (), (PointNm(0, 0, 0), PointNm(960, 960, 960)))


class World:
    """One person's page on the toy volume, with a real label file behind it."""

    def __init__(self, folder: Path, user: str = "tester", store=None) -> None:
        self.folder, self.user, self.now = folder, user, 1_000_000.0
        self.assistant = ToyAssistant()
        self.store = store or SqliteLabelStore(folder / "labels.sqlite")
        self.owns_store = store is None
        self.keys = 0
        self.open()

    def open(self) -> None:
        self.log = DecisionLog(self.store, user=self.user, dataset=PLACE[0], version=PLACE[1])
        state = StateFile(self.folder / f"{self.user}.json")
        self.session = ReviewSession(self.assistant, self.log, None, user=self.user, state=state)
        self.walk = QueueWalk(
            self.session,
            self.assistant,
            self.log,
            self.store.queue,
            user=self.user,
            clock=lambda: self.now,
        )

    def restart(self) -> None:
        self.stop()
        if self.owns_store:
            self.store.close()
            self.store = SqliteLabelStore(self.folder / "labels.sqlite")
        self.open()
        self.walk.resume()

    def made_ahead(self) -> str:
        """Site that the next draw takes, once its list is there."""

        def following() -> str:
            draw = next_draw(self.store.queue, self.walk._scope, self.user, now=self.now)
            assert draw is not None
            return draw.site

        def is_there() -> bool:
            made = self.walk._ahead.get(following())
            return made is not None and made.done()

        wait_until(is_there)
        return following()

    def stop(self) -> None:
        assert self.walk.close(10)
        assert self.session.close(10)

    def fill(self, scope: Scope = BOX) -> None:
        stops = stops_in_box(self.assistant.source, self.assistant.source.bounds)
        fill(self.assistant, self.store.queue, scope, stops, clock=lambda: self.now)

    def answer(self, site: str, verdict: Verdict) -> Answer:
        self.keys += 1
        key = f"{self.user}-{self.keys}-{id(self)}"
        return Answer(site, verdict, key, "q", 2000.0, 0.0, 500.0)

    def q(self, leave: str | None = "shown") -> str | None:
        """Press q, by default at what is on screen."""
        number = self.session.proposals.begin_move()
        site = (self.mark or {}).get("site") if leave == "shown" else leave
        begun: Future = Future()
        try:
            begun.set_result(self.walk.begin(site and self.answer(site, Verdict.SKIP)))
        except AssistError as error:
            begun.set_exception(error)
        return self.walk.show(number, begun)

    def p(self, segment: int = CENTRE) -> None:
        cursor = Cursor(AT, segment)
        self.session.proposals.propose(self.session.proposals.begin(cursor), cursor)

    def decide(self, verdict: Verdict = Verdict.ACCEPT, site: str | None = None) -> None:
        self.session.decide(self.answer(site or self.session.screen.selected, verdict))

    @property
    def mark(self) -> dict | None:
        return self.session.snapshot()["queue"]

    @property
    def site(self) -> str | None:
        return self.mark["site"]

    def states(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for t in self.store.queue.tally(now=self.now):
            counts[t.state.value] = counts.get(t.state.value, 0) + t.n
        return counts

    def last_decision(self):
        return [e for e in self.store.events() if e.decision][-1].decision


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path)
    yield made
    made.walk.close(10)
    made.session.close(10)
    made.store.close()


def test_q_leads_to_what_the_draw_says(world: World) -> None:
    world.fill()
    order = [w.site for w in ranked(world.store.queue.waiting(BOX, now=world.now)).sites]
    text = world.q()
    drawn = world.session.screen.list.drawn
    assert world.session.screen.selected == drawn.site
    assert order[0 if not drawn.explore else order.index(drawn.site)] == drawn.site
    assert drawn.n_open == len(order)
    assert text.startswith("From the queue: ")
    assert world.mark["open"] == len(order) - 1
    assert world.states() == {"open": len(order) - 1, "leased": 1}


def test_a_verdict_carries_the_probability_of_its_draw(world: World) -> None:
    world.fill()
    world.q()
    drawn = world.session.screen.list.drawn
    world.decide()
    got = world.last_decision()
    assert got.suggestion.id == drawn.site
    place = 0 if got.propensity["probability"] > 0.5 else 1
    assert got.propensity == {
        "how": "queue",
        "strategy": "margin",
        "explore": drawn.explore,
        "floor": 0.1,
        "probability": probability(drawn.n_open, place),
        "n_open": drawn.n_open,
        "draw": drawn.id,
        "scope": BOX.text,
    }
    world.decide(Verdict.REJECT)
    beside = world.last_decision()
    assert beside.suggestion.id != drawn.site
    assert beside.propensity == {"how": "queue_list", "draw": drawn.id, "site": drawn.site}
    world.p(BASE)
    world.decide()
    assert world.last_decision().propensity == {"how": "cursor"}


def test_the_propensity_is_exported_as_it_is(world: World, tmp_path: Path) -> None:
    world.fill()
    world.q()
    world.decide()
    export_labels(world.store, out=tmp_path / "out", format="jsonl")
    (row,) = [
        json.loads(line)
        for path in (tmp_path / "out").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert row["propensity"] == world.last_decision().propensity


def test_q_without_a_verdict_skips_and_the_site_comes_back_after_all_others(world: World) -> None:
    world.fill(Scope(*PLACE, (CENTRE,)))
    world.p()
    n = sum(world.states().values())
    assert n > 4
    shown = []
    for _ in range(n):
        world.q()
        shown.append(world.site)
    assert len(set(shown)) == n
    assert world.states() == {"skipped": n - 1, "leased": 1}
    skip = world.last_decision()
    assert (skip.verdict, skip.suggestion.id) == (Verdict.SKIP, shown[-2])
    assert skip.propensity["how"] == "queue"
    assert next(world.store.labels()).verdict is Verdict.SKIP
    world.q()
    assert world.site in shown
    assert world.session.screen.selected == world.site, "asked again although it was skipped"
    world.decide()
    assert world.states()["decided"] == 1


def test_a_skip_is_never_exported(world: World, tmp_path: Path) -> None:
    world.fill()
    world.q()
    world.q()
    report = export_labels(world.store, out=tmp_path / "out", format="jsonl")
    assert report.rows == 0


def test_q_pressed_twice_skips_nothing_unseen(world: World) -> None:
    world.fill()
    world.q()
    first = world.site
    world.q()
    second = world.site
    assert world.q(leave=first) == "This is the next site."
    assert world.q(leave=None) == "This is the next site."
    assert world.site == second
    assert world.session.screen.busy_with is None
    assert world.states()["skipped"] == 1


def test_undo_reopens_a_site(world: World) -> None:
    world.fill()
    n = sum(world.states().values())
    world.q()
    world.decide()
    world.q()
    world.session.undo("undo-1")
    assert world.states() == {"open": n - 1, "leased": 1}
    world.q()
    world.session.undo("undo-2")
    assert "skipped" not in world.states(), "undo takes a skip back as well"


def test_a_site_that_is_decided_at_the_cursor_leaves_the_queue(world: World) -> None:
    world.fill()
    world.p()
    n = sum(world.states().values())
    for suggestion in world.session.screen.suggestions:
        world.decide(site=suggestion.id)
    states = world.states()
    # of other joins at the ends that were joined, none can be right any more
    assert (states["decided"], states["implied"]) == (4, 2)
    assert sum(states.values()) == n
    decided = {s.id for s in world.session.screen.suggestions}
    assert not decided & {w.site for w in world.store.queue.waiting(BOX, now=world.now)}


def test_q_goes_on_where_a_rival_of_the_site_on_screen_was_accepted(world: World) -> None:
    """Also where the queue does not know that the two are rivals."""
    world.fill()
    seen = []
    for _ in range(sum(world.states().values())):
        world.q()
        seen.append(world.site)
        ends = [s.id for s in world.session.screen.suggestions if s.joint is not None]
        if world.site in ends and not world.session.screen.implied:
            world.decide(site=next(i for i in ends if i != world.site))
    assert len(set(seen)) > 0.9 * len(seen), "no site comes again and again"
    assert world.states().get("open", 0) == 0


def test_the_segment_of_the_list_goes_before_the_box(world: World) -> None:
    world.fill()
    world.p(CENTRE)
    sites = {w.site for w in world.store.queue.waiting(Scope(*PLACE, (CENTRE,)), now=world.now)}
    for _ in range(len(sites)):
        world.q()
        assert world.site in sites
        world.decide(site=world.site)
    world.q()
    assert world.site not in sites
    assert world.session.screen.list.drawn.scope == BOX.text, "then the box goes on"


def test_p_interrupts_and_q_comes_back(world: World) -> None:
    world.fill()
    world.q()
    drawn = world.session.screen.list.drawn
    far = next(s for s in range(BASE, BASE + 27) if s != world.session.screen.list.segment)
    for site in world.store.queue.waiting(Scope(*PLACE, (far,)), now=world.now):
        world.store.queue.mark_stale(*PLACE, site.site, "test", user="x", now=world.now)
    world.p(far)
    assert world.mark["site"] is None
    world.q()
    assert world.session.screen.list.drawn == drawn
    assert world.states().get("skipped") is None


def test_a_site_that_is_gone_is_marked_stale_and_the_next_one_shown(world: World) -> None:
    world.fill()
    n = sum(world.states().values())
    order = [w.site for w in ranked(world.store.queue.waiting(BOX, now=world.now)).sites]
    world.assistant.gone = set(order[: n // 2])
    seen: list[str] = []
    world.session.on_change = lambda: seen.append(world.session.screen.status.text)
    world.q()
    assert world.site in order[n // 2 :]
    assert any("marked stale: The segment has changed." in text for text in seen)
    stale = world.states()["stale"]
    assert stale >= 1
    assert world.states() == {"stale": stale, "leased": 1, "open": n - stale - 1}


def test_when_all_are_gone_it_says_so(world: World) -> None:
    world.fill()
    world.assistant.gone = {w.site for w in world.store.queue.waiting(BOX, now=world.now)}
    with pytest.raises(DecisionError, match=r"The queue of the box is done: \d+ stale"):
        world.q()
    assert world.session.screen.busy_with is None


def test_data_that_cannot_be_read_makes_nothing_stale(world: World) -> None:
    world.fill()

    def fail(_at, _segment) -> None:
        raise DatasetError("The disk is away.")

    world.assistant.before = fail
    with pytest.raises(DatasetError, match="away"):
        world.q()
    assert "stale" not in world.states()
    world.assistant.before = lambda _at, _segment: None
    world.q()
    assert world.site is not None


def test_an_empty_queue_says_what_to_do(world: World) -> None:
    with pytest.raises(DecisionError, match="press p, then q"):
        world.q()
    assert world.session.screen.status.level == "warn"


def test_the_queue_ends_in_words(world: World) -> None:
    world.fill(Scope(*PLACE, (CENTRE,)))
    world.p()
    n = sum(world.states().values())
    for _ in range(n):
        world.q()
        world.decide(site=world.site)
    text = world.q()
    assert text.startswith("The queue of segment …")
    assert f"is done: {n} decided" in text
    assert world.session.screen.list is not None
    assert world.states() == {"decided": n}


def test_with_nothing_queued_q_searches_the_segment(world: World) -> None:
    world.p()
    own = {s.id for s in world.session.screen.suggestions}
    world.q()
    assert world.site in own, "the first one is there at once, from the list on screen"
    wait_until(lambda: world.mark["filling"] is None)
    (done,) = world.store.queue.fills(*PLACE)
    assert done.is_done
    assert done.scope == Scope(*PLACE, (CENTRE,))
    sites = world.store.queue.waiting(done.scope, now=world.now)
    assert len(sites) + 1 >= len(own)
    world.q()
    assert world.store.queue.fills(*PLACE) == [done], "searched once"


def test_with_nothing_open_on_the_list_q_waits_for_the_search(world: World) -> None:
    world.p()
    for suggestion in world.session.screen.suggestions:
        world.decide(site=suggestion.id)
    own = {s.id for s in world.session.screen.suggestions}
    release, holding = threading.Event(), threading.Event()

    def hold(_at, _segment) -> None:
        holding.set()
        assert release.wait(60)

    world.assistant.before = hold

    def press() -> None:
        with pytest.raises(DecisionError, match="is done"):
            world.q()

    pressed = threading.Thread(target=press)
    pressed.start()
    assert holding.wait(60)
    wait_until(lambda: "Searching segment …" in world.session.screen.status.text)
    release.set()
    pressed.join(20)
    assert not pressed.is_alive()
    assert world.session.screen.status.text.startswith("The queue of segment …")
    assert own == {s.id for s in world.session.screen.suggestions}


def test_a_search_ends_with_the_server(world: World) -> None:
    holding = threading.Event()
    release = threading.Event()
    world.p()

    def hold(_at, _segment) -> None:
        holding.set()
        release.wait(60)

    world.assistant.before = hold
    world.walk._search.start(Scope(*PLACE, (CENTRE,)), world.session.screen.list)
    assert holding.wait(60)
    assert not world.walk.close(0.05), "it is in the middle of a place"
    release.set()
    assert world.walk.close(10)


def test_a_restart_comes_back_to_the_site_and_its_draw(world: World) -> None:
    world.fill()
    world.q()
    drawn = world.session.screen.list.drawn
    world.now += 5000
    world.restart()
    assert world.session.screen.list.drawn == drawn
    assert world.session.screen.selected == drawn.site
    assert world.states()["leased"] == 1, "and has it on lease again"
    world.decide()
    assert world.last_decision().propensity["draw"] == drawn.id
    world.restart()
    assert world.session.screen.list.drawn == drawn
    assert world.session.screen.selected != drawn.site, "decided"
    world.q()
    assert world.session.screen.list.drawn.scope == BOX.text, "and the box goes on"
    assert world.states()["decided"] == 1


def test_a_restart_after_p_comes_back_to_the_cursor(world: World) -> None:
    world.fill()
    world.q()
    world.p()
    world.restart()
    assert world.session.screen.list.drawn is None
    assert world.session.screen.list.segment == CENTRE


def test_a_lease_is_renewed_while_a_page_shows_the_site(world: World) -> None:
    world.fill()
    world.q()
    site, (lease,) = world.site, world.store.queue.leases(*PLACE, now=world.now)
    assert lease.until == world.now + 600
    world.now += 300
    world.walk.seen()
    until = world.now + 600
    wait_until(lambda: world.store.queue.leases(*PLACE, now=world.now)[0].until == until)
    world.now = until
    assert site in {w.site for w in world.store.queue.waiting(BOX, now=world.now)}


def test_two_people_get_different_sites(world: World, tmp_path: Path) -> None:
    world.fill()
    other = World(tmp_path, "bob", world.store)
    for _ in range(5):
        world.q()
        other.q()
        assert world.site != other.site
        other.decide()
    other.stop()
    assert world.states()["decided"] == 5


def test_the_next_list_is_made_ahead(world: World) -> None:
    world.fill()
    world.q()
    expected = world.made_ahead()
    asked = []
    world.assistant.before = lambda at, _segment: asked.append((threading.current_thread(), at))
    world.q()
    assert world.site == expected
    mine = [at for thread, at in asked if thread is threading.current_thread()]
    assert mine == [], "nothing was computed while the person waited"


def test_a_list_made_ahead_is_kept_when_the_one_after_it_is_begun_early(world: World) -> None:
    world.fill()
    world.q()
    expected = world.made_ahead()
    number = world.session.proposals.begin_move()
    begun: Future = Future()
    begun.set_result(world.walk.begin(world.answer(world.site, Verdict.SKIP)))
    # the skip is an event, so the look ahead may come before what was drawn is shown
    world.walk._look_ahead(BOX)
    assert world.made_ahead() != expected
    asked = []
    world.assistant.before = lambda at, _segment: asked.append((threading.current_thread(), at))
    world.walk.show(number, begun)
    assert world.site == expected
    assert threading.current_thread() not in [thread for thread, _ in asked]
    assert len(world.walk._ahead) <= 2, "old ones are dropped"


@pytest.mark.benchmark
def test_q_is_quicker_than_p(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints both, where a list takes 200 ms and the person looks until the next one is there."""
    world.fill()
    world.assistant.before = lambda _at, _segment: threading.Event().wait(0.2)
    world.q()
    took: dict[str, list[float]] = {"q": [], "p": []}
    for n in range(8):
        world.made_ahead()
        begun = time.perf_counter()
        world.q()
        took["q"].append(time.perf_counter() - begun)
        if n % 2:
            world.decide()
    for _ in range(4):
        begun = time.perf_counter()
        world.p()
        took["p"].append(time.perf_counter() - begun)
    q, p = (1e3 * sorted(took[key])[len(took[key]) // 2] for key in ("q", "p"))
    with capsys.disabled():
        print(f"\nto the list, p50: q {q:.0f} ms (n 8), p {p:.0f} ms (n 4)")
    assert q < p


def test_a_later_p_makes_q_void(world: World) -> None:
    world.fill()
    number = world.session.proposals.begin_move()
    begun: Future = Future()
    begun.set_result(world.walk.begin(None))
    world.p()
    assert world.walk.show(number, begun) is None
    assert world.session.screen.list.drawn is None


def test_what_was_picked_at_random_is_told(world: World) -> None:
    world.fill()
    told = []
    for _ in range(40):
        world.q()
        drawn = world.session.screen.list.drawn
        told.append(world.mark["explore"])
        assert world.mark["explore"] is drawn.explore
        assert drawn.explore is pick(drawn.n_open, _seed(world, drawn.id), 0.1).explore
    assert True in told
    assert False in told


def _seed(world: World, draw: int) -> int:
    import sqlite3

    conn = sqlite3.connect(world.folder / "labels.sqlite")
    (seed,) = conn.execute("SELECT seed FROM queue_draws WHERE id = ?", (draw,)).fetchone()
    conn.close()
    return seed
