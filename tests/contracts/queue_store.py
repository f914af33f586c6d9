"""What the queue of every label store must do. A backend is done when its subclass passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from label_makers import (
    BIG,
    DATASET,
    USER,
    VERSION,
    decision,
    queue_item,
    seeded_decision,
    suggestion,
)

from cb2_assist.core.errors import LabelError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Draw, Kind, Site, Verdict, segment_id
from cb2_assist.labels.queue_store import (
    LEASE_S,
    ONE_SEGMENT_NOW,
    Ask,
    NewDraw,
    QueueState,
    QueueStore,
    Scope,
    SiteSignals,
)
from cb2_assist.labels.store import EventKind, LabelStore, NewEvent

ALL = Scope(DATASET, VERSION)
NOW = 1000.0


def put(store: LabelStore, *numbers: int, now: float = NOW, done: int = 1, **changes) -> None:
    fill = store.queue.begin_fill(ALL, None, "judge", 10, now=now)
    store.queue.put(fill.id, [queue_item(n, **changes) for n in numbers], done=done, now=now)


def new_draw(queue: QueueStore, n: int, user: str = USER, **changes) -> NewDraw:
    number = queue.draws_made(DATASET, VERSION, user)
    plain = NewDraw(ALL, user, number, 7, "margin", 0.1, 3, 0, False, 0.93, suggestion(n).id)
    return replace(plain, **changes)


def take(store: LabelStore, n: int, user: str = USER, *, now: float = NOW) -> Draw | None:
    return store.queue.take(new_draw(store.queue, n, user), now=now)


def waiting(
    store: LabelStore, scope: Scope = ALL, *, now: float = NOW, user: str | None = None
) -> set[str]:
    return {w.site for w in store.queue.waiting(scope, now=now, user=user)}


def ask(store: LabelStore, n: int, people: int = 2, source: str = "overlap", **more) -> int:
    asked = Ask(DATASET, VERSION, suggestion(n).id, source, people, **more)
    return store.queue.ask_again([asked], now=NOW)


def sites(*numbers: int) -> set[str]:
    return {suggestion(n).id for n in numbers}


def states(store: LabelStore, *, now: float = NOW) -> dict[str, int]:
    return {t.state.value: t.n for t in store.queue.tally(now=now)}


def undo(target: int, key: str = "undo") -> NewEvent:
    return NewEvent(EventKind.UNDO, USER, DATASET, VERSION, key, target=target)


class QueueStoreContract:
    """Their modules have fixtures ``store`` and ``reopen``, as for `LabelStoreContract`."""

    def test_a_new_queue_is_empty(self, store) -> None:
        assert store.queue.tally(now=NOW) == []
        assert store.queue.waiting(ALL, now=NOW) == []
        assert store.queue.fills(DATASET, VERSION) == []
        assert store.queue.held(DATASET, VERSION, USER) is None
        assert store.queue.last_draw(DATASET, VERSION, USER) is None
        assert store.queue.item(DATASET, VERSION, "0" * 16) is None

    def test_a_site_is_read_back_as_it_was_put(self, store, reopen) -> None:
        given = queue_item(3)
        put(store, 3)
        assert reopen().queue.item(DATASET, VERSION, given.suggestion.id) == given

    def test_a_cut_has_no_partner(self, store) -> None:
        fill = store.queue.begin_fill(ALL, None, "judge", 1, now=NOW)
        given = queue_item(0, kind=Kind.CUT)
        store.queue.put(fill.id, [given], done=1, now=NOW)
        assert store.queue.item(DATASET, VERSION, given.suggestion.id) == given
        assert given.site.segment == BIG

    def test_filling_again_replaces_numbers_and_doubles_nothing(self, store) -> None:
        put(store, 1, 2)
        fill = store.queue.begin_fill(ALL, None, "judge", 10, now=NOW)
        added = store.queue.put(
            fill.id, [queue_item(1, score=0.1), queue_item(3)], done=2, now=NOW + 1
        )
        assert (added.new, added.updated) == (1, 1)
        assert waiting(store) == sites(1, 2, 3)
        assert {w.site: w.score for w in store.queue.waiting(ALL, now=NOW)} == {
            suggestion(1).id: 0.1,
            suggestion(2).id: 0.8,
            suggestion(3).id: 0.8,
        }

    def test_a_decided_site_stays_as_it_was_decided(self, store) -> None:
        put(store, 1)
        store.append(NewEvent.of(decision(1)))
        put(store, 1, score=0.1)
        item = store.queue.item(DATASET, VERSION, suggestion(1).id)
        assert item.suggestion.score == 0.8
        assert states(store) == {"decided": 1}

    def test_a_join_seen_from_its_other_side_is_the_same_site(self, store) -> None:
        put(store, 1)
        seen = queue_item(1)
        site = seen.site
        turned = replace(
            seen.suggestion, site=Site(Kind.JOIN, site.partner, site.segment, site.point), score=0.2
        )
        fill = store.queue.begin_fill(ALL, None, "judge", 10, now=NOW)
        added = store.queue.put(fill.id, [replace(seen, suggestion=turned)], done=2, now=NOW)
        assert (added.new, added.updated) == (0, 0)
        assert store.queue.item(DATASET, VERSION, seen.suggestion.id) == seen

    def test_state_follows_the_events_however_a_site_was_decided(self, store) -> None:
        put(store, 1, 2)
        event = store.append(NewEvent.of(decision(1)))
        assert states(store) == {"decided": 1, "open": 1}
        store.append(undo(event.id))
        assert states(store) == {"open": 2}
        skip = store.append(NewEvent.of(decision(1, Verdict.SKIP)))
        assert states(store) == {"skipped": 1, "open": 1}
        assert {w.site: w.skips for w in store.queue.waiting(ALL, now=NOW)} == {
            suggestion(1).id: 1,
            suggestion(2).id: 0,
        }
        store.append(undo(skip.id, "undo-2"))
        assert states(store) == {"open": 2}

    def test_none_decides_each_join_that_it_closes(self, store) -> None:
        from cb2_assist.decisions.log import alternative

        put(store, 1, 2, 3)
        shown = (alternative(suggestion(1)), alternative(suggestion(2)))
        store.append(NewEvent.of(decision(1, Verdict.NONE, joint=True, alternatives=shown)))
        assert waiting(store) == sites(3)

    def test_an_accepted_rival_closes_the_other_sites_of_its_end(self, store) -> None:
        put(store, 1, 2, joint="7@1,2,3")
        put(store, 3, joint="7@9,9,9")
        put(store, 4)
        take(store, 2)
        event = store.append(NewEvent.of(decision(1)))
        assert states(store) == {"decided": 1, "implied": 1, "open": 2}
        assert waiting(store) == sites(3, 4)
        assert store.queue.held(DATASET, VERSION, USER) is None
        assert store.queue.leases(DATASET, VERSION, now=NOW) == []
        assert take(store, 2, "else", now=NOW) is None
        store.append(undo(event.id))
        assert states(store, now=NOW + LEASE_S) == {"open": 4}, "it ends with its reason"

    def test_a_site_closes_with_an_end_of_either_of_its_segments(self, store) -> None:
        put(store, 1, joint="7@1,2,3")
        put(store, 2)
        fill = store.queue.begin_fill(ALL, None, "judge", 10, now=NOW)
        store.queue.put(fill.id, [], done=2, now=NOW, ends={suggestion(2).id: "7@1,2,3"})
        store.append(NewEvent.of(decision(1)))
        assert states(store) == {"decided": 1, "implied": 1}

    def test_an_accept_that_became_a_reject_closes_nothing(self, store) -> None:
        put(store, 1, 2, joint="7@1,2,3")
        store.append(NewEvent.of(decision(1)))
        store.append(NewEvent.of(decision(1, verdict=Verdict.REJECT)))
        assert states(store) == {"decided": 1, "open": 1}

    def test_a_rejected_rival_closes_nothing(self, store) -> None:
        put(store, 1, 2, joint="7@1,2,3")
        store.append(NewEvent.of(decision(1, verdict=Verdict.REJECT)))
        assert states(store) == {"decided": 1, "open": 1}

    def test_the_end_and_the_rank_of_a_site_are_read_back(self, store) -> None:
        put(store, 1, joint="7@1,2,3", prior=0.25)
        kept = store.queue.item(DATASET, VERSION, suggestion(1).id).suggestion
        assert (kept.joint, kept.prior) == ("7@1,2,3", 0.25)

    def test_a_lease_keeps_a_site_from_others_until_it_runs_out(self, store) -> None:
        put(store, 1, 2)
        drawn = take(store, 1)
        assert (drawn.site, drawn.probability, drawn.n_open) == (suggestion(1).id, 0.93, 3)
        assert waiting(store) == sites(2)
        (lease,) = store.queue.leases(DATASET, VERSION, now=NOW)
        assert (lease.user, lease.until) == (USER, NOW + LEASE_S)
        assert take(store, 1, "bob") is None
        later = NOW + LEASE_S
        assert waiting(store, now=later) == sites(1, 2)
        assert take(store, 1, "bob", now=later).site == drawn.site
        assert store.queue.held(DATASET, VERSION, USER) is None

    def test_a_lease_is_renewed_unless_someone_else_has_it(self, store) -> None:
        put(store, 1)
        mine = take(store, 1)
        store.queue.renew(mine, now=NOW + 500)
        assert waiting(store, now=NOW + LEASE_S) == set()
        later = NOW + 500 + LEASE_S
        theirs = take(store, 1, "bob", now=later)
        store.queue.renew(mine, now=later + 5)
        assert store.queue.held(DATASET, VERSION, "bob") == theirs
        (lease,) = store.queue.leases(DATASET, VERSION, now=later)
        assert lease.until == later + LEASE_S

    def test_a_person_has_one_site_at_a_time(self, store, reopen) -> None:
        put(store, 1, 2)
        take(store, 1)
        second = take(store, 2)
        assert waiting(store) == sites(1)
        again = reopen()
        assert again.queue.held(DATASET, VERSION, USER) == second
        assert again.queue.last_draw(DATASET, VERSION, USER) == second
        again.queue.release(DATASET, VERSION, USER, now=NOW)
        assert waiting(again) == sites(1, 2)
        assert again.queue.held(DATASET, VERSION, USER) is None

    def test_a_site_that_was_decided_or_lost_meanwhile_cannot_be_taken(self, store) -> None:
        put(store, 1, 2)
        draw = new_draw(store.queue, 1)
        store.append(NewEvent.of(decision(1, user="bob")))
        assert store.queue.take(draw, now=NOW) is None
        store.queue.mark_stale(DATASET, VERSION, suggestion(2).id, "gone", user=USER, now=NOW)
        assert take(store, 2) is None
        assert store.queue.draws_made(DATASET, VERSION, USER) == 0

    def test_a_draw_of_a_number_that_was_used_is_refused(self, store) -> None:
        put(store, 1, 2)
        draw = new_draw(store.queue, 1)
        take(store, 2)
        assert store.queue.take(draw, now=NOW) is None
        assert store.queue.draws_made(DATASET, VERSION, USER) == 1
        assert take(store, 1, "bob").site == suggestion(1).id, "everybody counts for themselves"

    def test_a_decided_site_is_held_by_nobody_until_its_undo(self, store) -> None:
        put(store, 1)
        drawn = take(store, 1)
        event = store.append(NewEvent.of(decision(1)))
        assert store.queue.held(DATASET, VERSION, USER) is None
        assert store.queue.leases(DATASET, VERSION, now=NOW) == []
        store.append(undo(event.id))
        assert store.queue.held(DATASET, VERSION, USER) == drawn

    def test_a_stale_site_waits_no_longer_until_it_is_found_again(self, store) -> None:
        put(store, 1)
        take(store, 1)
        store.queue.mark_stale(DATASET, VERSION, suggestion(1).id, "gone", user=USER, now=NOW)
        assert states(store) == {"stale": 1}
        assert store.queue.held(DATASET, VERSION, USER) is None
        put(store, 1)
        assert states(store) == {"open": 1}

    def test_a_flagged_site_waits_no_longer_until_it_is_undone_or_answered(self, store) -> None:
        put(store, 1, 2)
        take(store, 1)
        flag = store.append(NewEvent.of(decision(1, Verdict.FLAG, note="soma?")))
        assert states(store) == {"flagged": 1, "open": 1}
        assert waiting(store, now=NOW + LEASE_S) == sites(2)
        assert store.queue.held(DATASET, VERSION, USER) is None
        assert store.queue.leases(DATASET, VERSION, now=NOW) == []
        assert take(store, 1, "bob", now=NOW + LEASE_S) is None
        assert {w.skips for w in store.queue.waiting(ALL, now=NOW)} == {0}
        answer = store.append(NewEvent.of(decision(1, user="bob", key="bob")))
        assert states(store) == {"decided": 1, "open": 1}
        gone = EventKind.UNDO, "bob", DATASET, VERSION, "undo-bob"
        store.append(NewEvent(*gone, target=answer.id))
        assert states(store) == {"flagged": 1, "open": 1}
        store.append(undo(flag.id))
        assert states(store, now=NOW + LEASE_S) == {"open": 2}

    def test_what_edits_made_of_a_site_is_kept_in_its_place(self, store, reopen) -> None:
        put(store, 1, joint="7@1,2,3", supervoxels=(segment_id(BIG + 7), segment_id(BIG + 8)))
        old = store.queue.item(DATASET, VERSION, suggestion(1).id)
        assert old.suggestion.supervoxels == (BIG + 7, BIG + 8)
        take(store, 1)
        moved = queue_item(2, joint="7@1,2,3")
        where = DATASET, VERSION, suggestion(1).id, "1 is 2 now"
        store.queue.mark_stale(*where, user=USER, now=NOW, instead=moved)
        again = reopen()
        assert states(again) == {"open": 1, "stale": 1}
        assert again.queue.item(DATASET, VERSION, suggestion(2).id) == moved
        assert again.queue.held(DATASET, VERSION, USER) is None

    def test_a_join_whose_sides_are_one_segment_now_is_implied(self, store) -> None:
        put(store, 1)
        where = DATASET, VERSION, suggestion(1).id, ONE_SEGMENT_NOW
        store.queue.mark_stale(*where, user=USER, now=NOW)
        assert states(store) == {"implied": 1}
        assert waiting(store) == set()

    def test_where_the_model_is_not_reliable_is_told(self, store) -> None:
        put(store, 1)
        put(store, 2, ood=replace(suggestion(2).ood, flag=True))
        found = {w.site: w.ood for w in store.queue.waiting(ALL, now=NOW)}
        assert found == {suggestion(1).id: False, suggestion(2).id: True}

    def test_answers_on_what_was_known_to_be_wrong_leave_the_queue_alone(self, store) -> None:
        put(store, 1, 2, joint="7@1,2,3")
        store.append(NewEvent.of(seeded_decision(1)))
        assert states(store) == {"open": 2}
        assert store.queue.answered(ALL) == []

    def test_what_was_judged_by_a_model_is_known(self, store) -> None:
        put(store, 1, 2)
        ids = [suggestion(n).id for n in range(4)]
        judge = queue_item(1).judge
        assert store.queue.known(DATASET, VERSION, ids, judge) == sites(1, 2)
        assert store.queue.known(DATASET, VERSION, ids[:2], judge) == sites(1)
        assert store.queue.known(DATASET, VERSION, ids, "another") == set()
        assert store.queue.known(DATASET, "v2", ids, judge) == set()
        store.queue.mark_stale(DATASET, VERSION, ids[1], "gone", user=USER, now=NOW)
        assert store.queue.known(DATASET, VERSION, ids, judge) == sites(2)

    def test_scopes_are_told_apart(self, store) -> None:
        put(store, 0, 1, 2)
        partner = segment_id(BIG + 2)
        assert waiting(store, Scope(DATASET, VERSION, (segment_id(BIG),))) == sites(0, 1, 2)
        assert waiting(store, Scope(DATASET, VERSION, (partner,))) == sites(1)
        assert waiting(store, Scope(DATASET, VERSION, (segment_id(5), partner))) == sites(1)
        box = (PointNm(101.5, 200.0, 300.0), PointNm(102.5, 201.0, 301.0))
        assert waiting(store, Scope(DATASET, VERSION, (), box)) == sites(1)
        assert waiting(store, Scope(DATASET, "v2")) == set()
        assert [t.n for t in store.queue.tally(Scope(DATASET, VERSION, (), box), now=NOW)] == [1]

    def test_a_scope_is_read_from_its_text(self, store) -> None:
        box = (PointNm(1.5, 2, 3), PointNm(4, 5, 6))
        for scope in (ALL, Scope(DATASET, VERSION, (segment_id(BIG),)), replace(ALL, box_nm=box)):
            begun = store.queue.begin_fill(scope, None, "judge", 1, now=NOW)
            assert begun.scope == scope
            assert Scope.of_text(DATASET, VERSION, scope.text) == scope
        with pytest.raises(LabelError, match="Fill the queue again"):
            Scope.of_text(DATASET, VERSION, "[1]")

    def test_a_fill_goes_on_where_it_stopped(self, store, reopen) -> None:
        put(store, 1, done=4)
        again = reopen().queue
        same = again.begin_fill(ALL, None, "judge", 10, now=NOW + 1)
        assert (same.done, same.total, same.is_done) == (4, 10, False)
        assert again.begin_fill(ALL, Kind.JOIN, "judge", 10, now=NOW + 2).done == 0
        assert again.begin_fill(ALL, None, "other judge", 10, now=NOW + 3).done == 0
        assert [f.kind for f in again.fills(DATASET, VERSION)] == [None, Kind.JOIN]

    def test_a_fill_that_is_done_starts_again(self, store) -> None:
        put(store, 1, done=10)
        assert store.queue.fills(DATASET, VERSION)[0].is_done
        assert store.queue.begin_fill(ALL, None, "judge", 10, now=NOW).done == 0

    def test_counts_tell_kinds_states_and_age(self, store) -> None:
        put(store, 1, 2)
        fill = store.queue.begin_fill(ALL, Kind.CUT, "judge", 1, now=NOW + 5)
        store.queue.put(fill.id, [queue_item(0, kind=Kind.CUT)], done=1, now=NOW + 5)
        store.append(NewEvent.of(decision(1)))
        got = [(t.kind, t.state, t.n, t.oldest) for t in store.queue.tally(now=NOW)]
        assert got == [
            (Kind.CUT, QueueState.OPEN, 1, NOW + 5),
            (Kind.JOIN, QueueState.DECIDED, 1, NOW),
            (Kind.JOIN, QueueState.OPEN, 1, NOW),
        ]

    def test_a_site_of_several_people_waits_until_each_of_them_answered(self, store) -> None:
        put(store, 1, 2)
        assert ask(store, 1) == 1
        assert states(store) == {"open": 2}
        store.append(NewEvent.of(decision(1)))
        assert states(store) == {"again": 1, "open": 1}
        assert waiting(store, user=USER) == sites(2)
        assert waiting(store, user="bob") == waiting(store) == sites(1, 2)
        assert take(store, 1) is None, "it is for others"
        assert take(store, 1, "bob").site == suggestion(1).id
        second = store.append(NewEvent.of(decision(1, Verdict.REJECT, user="bob")))
        assert states(store) == {"decided": 1, "open": 1}
        assert store.queue.held(DATASET, VERSION, "bob") is None
        turn = NewEvent(EventKind.UNDO, "bob", DATASET, VERSION, "u", target=second.id)
        store.append(turn)
        assert states(store, now=NOW + LEASE_S) == {"again": 1, "open": 1}
        assert len([label for label in store.labels() if label.verdict is Verdict.ACCEPT]) == 1

    def test_an_answer_of_before_does_not_count_where_a_new_one_is_asked(self, store) -> None:
        put(store, 1)
        store.append(NewEvent.of(decision(1)))
        last = store.append(NewEvent.of(decision(1, Verdict.REJECT, user="bob")))
        desk = Scope(DATASET, VERSION, source="disagreements")
        assert waiting(store, desk) == set()
        more = {"source": "disagreements", "after_event": last.id, "not_of": ("dan",)}
        assert [ask(store, 1, 1, **more), ask(store, 1, 1, **more)] == [1, 0]
        assert waiting(store, desk, user="cy") == sites(1)
        for user in (USER, "bob", "dan"):
            assert waiting(store, desk, user=user) == set()
        mine = store.queue.tally(desk, now=NOW, user=USER)
        assert [(t.state, t.n) for t in mine] == [(QueueState.DECIDED, 1)]
        store.append(NewEvent.of(decision(1, user="cy", key="third")))
        assert states(store) == {"decided": 1}
        assert ask(store, 1, 1, **{**more, "after_event": last.id + 1}) == 1, "asked once more"

    def test_what_is_asked_again_keeps_its_numbers(self, store) -> None:
        put(store, 1)
        store.append(NewEvent.of(decision(1)))
        ask(store, 1)
        put(store, 1, score=0.1)
        item = store.queue.item(DATASET, VERSION, suggestion(1).id)
        assert item.suggestion.score == 0.8

    def test_a_site_that_is_not_in_the_queue_is_not_asked_again(self, store) -> None:
        put(store, 1)
        assert ask(store, 7) == 0
        assert states(store) == {"open": 1}

    def test_a_rival_s_accept_does_not_close_what_is_asked_again(self, store) -> None:
        put(store, 1, 2, joint="7@1,2,3")
        ask(store, 1)
        store.append(NewEvent.of(decision(2)))
        assert states(store) == {"decided": 1, "implied": 1}, "nobody has answered it yet"
        store.append(NewEvent.of(decision(1, Verdict.REJECT)))
        assert waiting(store, user="bob") == sites(1)

    def test_a_scope_by_source_is_read_from_its_text(self, store) -> None:
        desk = Scope(DATASET, VERSION, source="disagreements")
        store.queue.begin_fill(desk, None, "judge", 1, now=NOW)
        assert store.queue.fills(DATASET, VERSION)[0].scope == desk
        assert desk.words == "the disagreements"

    def test_a_closed_queue_says_so(self, store) -> None:
        store.close()
        with pytest.raises(LabelError, match="closed"):
            store.queue.waiting(ALL, now=NOW)
        with pytest.raises(LabelError, match="closed"):
            store.queue.begin_fill(ALL, None, "judge", 1, now=NOW)

    def test_scores_are_those_of_one_model_and_kind_whatever_became_of_the_site(
        self, store
    ) -> None:
        put(store, 0, score=0.3)
        put(store, 1, score=0.7)
        put(store, 2, kind=Kind.CUT, score=0.9)
        store.append(NewEvent.of(decision(0)))
        store.queue.mark_stale(DATASET, VERSION, suggestion(1).id, "gone", user=USER, now=NOW)

        def scores(kind: Kind = Kind.JOIN, sha: str = "ab" * 32, calibrator: str = "cal-1"):
            return store.queue.scores(DATASET, kind, model_sha256=sha, calibrator=calibrator)

        assert scores() == scores(calibrator="cal") == [0.3]
        assert scores(Kind.CUT) == [0.9]
        assert scores(sha="cd" * 32) == scores(calibrator="cal-2") == []

    def test_which_models_judged_is_counted_without_stale_sites(self, store) -> None:
        put(store, 0, 1)
        fill = store.queue.fills(DATASET, VERSION)[0]
        others = [replace(queue_item(n), model_sha256="cd" * 32) for n in (2, 3)]
        store.queue.put(fill.id, others, done=1, now=NOW)
        store.queue.mark_stale(DATASET, VERSION, suggestion(1).id, "gone", user=USER, now=NOW)
        assert store.queue.judged_by(DATASET, VERSION) == {"ab" * 32: 1, "cd" * 32: 2}
        assert store.queue.judged_by(DATASET, "v0") == {}

    def test_signals_are_read_back_and_replaced_by_newer_ones(self, store, reopen) -> None:
        put(store, 1, 2)
        first = SiteSignals(0.4, 12.5, 100.0, 9000.0, (0.25, 0.5), b"\x00\x3c\x00\x40")
        second = replace(first, score=0.9, embedding=None)
        keys = {n: suggestion(n).id for n in (1, 2, 3)}
        store.queue.put_signals(DATASET, VERSION, {keys[1]: first, keys[2]: first, keys[3]: first})
        store.queue.put_signals(DATASET, VERSION, {keys[2]: second})
        queue = reopen().queue
        got = queue.signals(ALL)
        assert got == {keys[1]: first, keys[2]: second}, "a site that is not queued has none"
        queue.mark_stale(DATASET, VERSION, keys[1], "gone", user=USER, now=NOW)
        assert set(queue.signals(ALL)) == {keys[2]}

    def test_the_order_of_a_part_is_the_one_set_last(self, store, reopen) -> None:
        part = replace(ALL, segments=(BIG,))
        assert store.queue.order(ALL) is None
        store.queue.set_order(ALL, "size", now=NOW)
        store.queue.set_order(ALL, "value", now=NOW)
        store.queue.set_order(part, "random", now=NOW)
        queue = reopen().queue
        assert (queue.order(ALL), queue.order(part)) == ("value", "random")

    def test_random_draws_and_answers_are_told_apart(self, store) -> None:
        put(store, 1, 2, 3, 4, now=NOW + 5)
        for n, changes in (
            (1, {}),
            (2, {"explore": True, "n_open": 9}),
            (3, {"strategy": "random", "n_open": 8}),
        ):
            store.queue.take(new_draw(store.queue, n, **changes), now=NOW + 10 * n)
        drawn = store.queue.drawn_at_random(ALL)
        assert [(d.site, d.at, d.n_open) for d in drawn] == [
            (suggestion(2).id, NOW + 20, 9),
            (suggestion(3).id, NOW + 30, 8),
        ]
        assert store.queue.drawn_at_random(replace(ALL, segments=(BIG,))) == []
        event = store.append(NewEvent.of(decision(1)))
        store.append(NewEvent.of(decision(2, Verdict.REJECT)))
        store.append(NewEvent.of(decision(3, Verdict.UNSURE)))
        answers = {a.site: a for a in store.queue.answered(ALL)}
        assert {s: a.verdict for s, a in answers.items()} == {
            suggestion(1).id: Verdict.ACCEPT,
            suggestion(2).id: Verdict.REJECT,
        }
        assert answers[suggestion(1).id].kind is Kind.JOIN
        recorded = datetime.fromisoformat(event.recorded_at).timestamp()
        assert answers[suggestion(1).id].at == pytest.approx(recorded)
        store.append(undo(event.id))
        assert {a.site for a in store.queue.answered(ALL)} == {suggestion(2).id}
        assert store.queue.last_added(ALL) == NOW + 5
        assert store.queue.last_added(replace(ALL, version="other")) is None
