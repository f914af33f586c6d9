"""What every label store must do. A backend is done when its subclass passes."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from label_makers import BIG, DATASET, USER, VERSION, decision, seeded_decision, suggestion

from cb2_assist.core.errors import BadRequestError, DecisionError, LabelError
from cb2_assist.core.records import Kind, Verdict
from cb2_assist.decisions.log import alternative
from cb2_assist.labels.store import (
    EventKind,
    LabelState,
    LabelStore,
    NewEvent,
    StaleEventError,
)

_keys = (f"turn-{n}" for n in itertools.count())


def undo(target: int, **changes) -> NewEvent:
    event = NewEvent(EventKind.UNDO, USER, DATASET, VERSION, next(_keys), target=target)
    return replace(event, **changes)


def redo(target: int, **changes) -> NewEvent:
    return replace(undo(target), event=EventKind.REDO, **changes)


def reason(target: int, name: str = "mitochondrion", **changes) -> NewEvent:
    return replace(undo(target, **changes), event=EventKind.REASON, reason=name)


def states(store: LabelStore) -> list[tuple[str, str, str]]:
    return [(label.site, label.verdict.value, label.state.value) for label in store.labels()]


class LabelStoreContract:
    """Their modules have fixtures ``store`` and ``reopen``; see `contracts.reopening`."""

    def test_a_new_store_is_empty(self, store: LabelStore) -> None:
        assert list(store.events()) == []
        assert list(store.labels()) == []
        assert store.find("anything") is None
        assert store.verify() == []

    def test_a_decision_is_read_back_as_it_was_given(self, store, reopen) -> None:
        given = decision(
            3,
            alternatives=(alternative(suggestion(3), views_sha256="cd" * 32),),
            propensity={"how": "queue", "p": 0.25},
            score_hidden=True,
            reason="µ — ≥",
            views_sha256="ef" * 32,
        )
        appended = store.append(NewEvent.of(given))
        assert appended.decision == given
        again = reopen()
        assert again.get(appended.id) == appended
        assert again.find(given.idempotency_key) == appended
        assert list(again.events()) == [appended]

    def test_a_cut_has_no_partner(self, store) -> None:
        event = store.append(NewEvent.of(decision(kind=Kind.CUT)))
        stored = store.get(event.id).decision
        assert stored.suggestion.site.partner is None
        assert stored.suggestion.site.segment == BIG

    def test_ids_only_grow(self, store) -> None:
        ids = [store.append(NewEvent.of(decision(n))).id for n in range(5)]
        assert ids == sorted(set(ids))

    def test_an_unknown_event_is_refused(self, store) -> None:
        with pytest.raises(LabelError, match="no event 17"):
            store.get(17)

    def test_the_same_key_appends_nothing(self, store, reopen) -> None:
        first = store.append(NewEvent.of(decision(1, key="k")))
        later = decision(1, key="k", decided_at="2027-01-01T00:00:00.000Z")
        assert store.append(NewEvent.of(later)) == first
        again = reopen()
        assert again.append(NewEvent.of(later)) == first
        assert len(list(again.events())) == 1

    @pytest.mark.parametrize(
        "other",
        [
            decision(1, Verdict.REJECT, key="k"),
            decision(2, Verdict.ACCEPT, key="k"),
            decision(1, key="k", user="bob"),
            decision(1, key="k", dataset="other"),
            decision(1, key="k", version="v2"),
        ],
    )
    def test_the_same_key_for_something_else_is_refused(self, store, other) -> None:
        store.append(NewEvent.of(decision(1, key="k")))
        with pytest.raises(DecisionError, match="already used"):
            store.append(NewEvent.of(other))
        with pytest.raises(DecisionError, match="already used"):
            store.append(undo(1, idempotency_key="k"))
        assert len(list(store.events())) == 1

    def test_an_undo_with_the_same_key_is_the_first_one(self, store) -> None:
        event = store.append(NewEvent.of(decision()))
        first = store.append(undo(event.id, idempotency_key="u"))
        assert store.append(undo(event.id, idempotency_key="u")) == first
        assert len(list(store.events())) == 2

    def test_only_what_is_in_force_can_be_undone(self, store) -> None:
        event = store.append(NewEvent.of(decision()))
        with pytest.raises(DecisionError, match="redone"):
            store.append(redo(event.id))
        turned = store.append(undo(event.id))
        for wrong in (undo(event.id), undo(turned.id), undo(99), redo(event.id, user="bob")):
            with pytest.raises(DecisionError, match="Nothing was recorded"):
                store.append(wrong)
        store.append(redo(event.id))
        assert [e.event for e in store.events()] == ["decision", "undo", "redo"]

    def test_the_last_reason_of_a_decision_counts(self, store, reopen) -> None:
        event = store.append(NewEvent.of(decision(verdict=Verdict.REJECT)))
        first = store.append(reason(event.id, "artefact"))
        assert (first.event, first.target, first.reason) == ("reason", event.id, "artefact")
        store.append(reason(event.id, "other_neuron"))
        assert [label.reason for label in store.labels()] == ["other_neuron"]
        again = reopen()
        assert again.get(first.id) == first
        assert [label.reason for label in again.labels()] == ["other_neuron"]
        steps = list(again.steps(dataset=DATASET, user=USER))
        assert [s.reason for s in steps] == [None, "artefact", "other_neuron"]
        assert again.verify() == []

    def test_an_undo_takes_the_reason_along_and_a_redo_brings_it_back(self, store) -> None:
        event = store.append(NewEvent.of(decision(verdict=Verdict.UNSURE)))
        store.append(reason(event.id))
        store.append(undo(event.id))
        assert [label.state for label in store.labels()] == [LabelState.UNDONE]
        with pytest.raises(DecisionError, match="in force"):
            store.append(reason(event.id))
        store.append(redo(event.id))
        (label,) = store.labels()
        assert (label.state, label.reason) == (LabelState.IN_FORCE, "mitochondrion")

    def test_a_reason_is_given_for_a_reject_or_unsure_only(self, store) -> None:
        given = [
            store.append(NewEvent.of(decision(1, Verdict.ACCEPT))),
            store.append(NewEvent.of(decision(2, Verdict.SKIP))),
        ]
        for event in given:
            with pytest.raises(DecisionError, match="reject, unsure or none"):
                store.append(reason(event.id))
        reject = store.append(NewEvent.of(decision(3, Verdict.REJECT)))
        for wrong in (
            reason(reject.id, user="bob"),
            reason(99),
            reason(reject.id, "because"),
            replace(reason(reject.id), reason=None),
            replace(undo(reject.id), reason="artefact"),
        ):
            with pytest.raises(DecisionError):
                store.append(wrong)
        assert len(list(store.events())) == 3

    def test_a_reason_for_none_of_these_is_one_for_each_that_it_rejects(self, store) -> None:
        shown = (alternative(suggestion(7)), alternative(suggestion(8)))
        none = store.append(NewEvent.of(decision(7, Verdict.NONE, joint=True, alternatives=shown)))
        store.append(reason(none.id, "artefact"))
        assert [(x.site, x.reason) for x in store.labels()] == [
            (suggestion(7).id, "artefact"),
            (suggestion(8).id, "artefact"),
        ]

    def test_a_reason_with_the_same_key_is_the_first_one(self, store) -> None:
        event = store.append(NewEvent.of(decision(verdict=Verdict.REJECT)))
        first = store.append(reason(event.id, idempotency_key="r"))
        store.append(undo(event.id))
        assert store.append(reason(event.id, idempotency_key="r")) == first
        with pytest.raises(DecisionError, match="already used"):
            store.append(reason(event.id, "artefact", idempotency_key="r"))
        assert len(list(store.events())) == 3

    def test_an_event_after_newer_ones_is_stale(self, store) -> None:
        first = store.append(NewEvent.of(decision(1)))
        store.append(NewEvent.of(decision(2)))
        store.append(NewEvent.of(decision(3, user="bob")))
        with pytest.raises(StaleEventError):
            store.append(undo(first.id, after=first.id))
        assert store.append(undo(first.id, after=2)).target == first.id

    def test_many_are_appended_together_or_not_at_all(self, store) -> None:
        good = [NewEvent.of(decision(n)) for n in range(3)]
        bad = NewEvent.of(decision(7, Verdict.REJECT, key=good[0].idempotency_key))
        with pytest.raises(DecisionError):
            store.append_all([*good, bad])
        assert list(store.events()) == []
        assert [e.id for e in store.append_all(good)] == [e.id for e in store.events()]

    def test_what_cannot_be_written_down_is_refused(self, store) -> None:
        with pytest.raises(BadRequestError, match="cannot be written down"):
            store.append(NewEvent.of(decision(propensity={"p": float("nan")})))
        with pytest.raises(DecisionError, match="idempotency key"):
            store.append(replace(NewEvent.of(decision()), idempotency_key=""))
        with pytest.raises(DecisionError, match="target"):
            store.append(replace(undo(1), target=None))
        assert list(store.events()) == []

    def test_events_are_filtered(self, store) -> None:
        store.append(NewEvent.of(decision(1)))
        store.append(NewEvent.of(decision(2, user="bob")))
        store.append(NewEvent.of(decision(3, dataset="other")))
        assert [e.id for e in store.events(dataset=DATASET)] == [1, 2]
        assert [e.id for e in store.events(user=USER)] == [1, 3]
        assert [e.id for e in store.events(after=2)] == [3]

    def test_labels_follow_undo_redo_and_a_second_answer(self, store) -> None:
        site = suggestion().id
        first = store.append(NewEvent.of(decision(verdict=Verdict.ACCEPT)))
        assert states(store) == [(site, "accept", "in force")]
        second = store.append(NewEvent.of(decision(verdict=Verdict.REJECT)))
        assert states(store) == [(site, "accept", "superseded"), (site, "reject", "in force")]
        store.append(undo(second.id))
        assert states(store) == [(site, "accept", "in force"), (site, "reject", "undone")]
        store.append(undo(first.id))
        store.append(redo(first.id))
        assert states(store) == [(site, "accept", "in force"), (site, "reject", "undone")]

    def test_a_skip_leaves_an_answer_in_force(self, store) -> None:
        site = suggestion().id
        store.append(NewEvent.of(decision(verdict=Verdict.ACCEPT)))
        store.append(NewEvent.of(decision(verdict=Verdict.SKIP)))
        assert states(store) == [(site, "accept", "in force"), (site, "skip", "superseded")]
        store.append(NewEvent.of(decision(verdict=Verdict.UNSURE)))
        assert states(store)[-1] == (site, "unsure", "in force")

    def test_people_do_not_displace_each_other(self, store) -> None:
        store.append(NewEvent.of(decision(key="a")))
        store.append(NewEvent.of(decision(verdict=Verdict.REJECT, key="b", user="bob")))
        assert {label.state for label in store.labels()} == {LabelState.IN_FORCE}

    def test_none_rejects_each_open_join_on_screen(self, store) -> None:
        shown = (
            alternative(suggestion(0)),
            alternative(suggestion(1), verdict=Verdict.ACCEPT),
            alternative(suggestion(2)),
            alternative(suggestion(3, Kind.CUT)),
        )
        event = store.append(NewEvent.of(decision(0, Verdict.NONE, joint=True, alternatives=shown)))
        sites = [suggestion(0).id, suggestion(2).id]
        assert [(lb.site, lb.verdict, lb.event) for lb in store.labels()] == [
            (site, Verdict.REJECT, event) for site in sites
        ]
        assert [step.sites for step in store.steps(dataset=DATASET, user=USER)] == [tuple(sites)]

    def test_none_needs_what_a_label_needs(self, store) -> None:
        shown = {"id": "s", "kind": "join", "segment": str(BIG), "partner": str(BIG + 1)}
        with pytest.raises(BadRequestError, match="point_nm"):
            store.append(NewEvent.of(decision(0, Verdict.NONE, alternatives=(shown,))))

    def test_steps_tell_what_happened(self, store) -> None:
        event = store.append(NewEvent.of(decision(verdict=Verdict.SKIP)))
        store.append(undo(event.id))
        first, second = store.steps(dataset=DATASET, user=USER)
        assert (first.event, first.sites, first.is_answer) == (
            EventKind.DECISION,
            (suggestion().id,),
            False,
        )
        assert (second.event, second.target, second.sites) == (EventKind.UNDO, event.id, ())
        assert list(store.steps(dataset=DATASET, user=USER, after=first.id)) == [second]
        assert list(store.steps(dataset=DATASET, user="bob")) == []

    def test_a_flag_keeps_its_note_and_leaves_an_answer_in_force(self, store) -> None:
        site = suggestion().id
        store.append(NewEvent.of(decision(verdict=Verdict.ACCEPT)))
        event = store.append(NewEvent.of(decision(verdict=Verdict.FLAG, note="soma?")))
        assert states(store) == [(site, "accept", "in force"), (site, "flag", "superseded")]
        (found,) = store.flags()
        assert (found.event, found.event.decision.note, found.is_answered) == (event, "soma?", True)
        first, step = store.steps(dataset=DATASET, user=USER)
        assert (first.note, step.note, step.is_answer) == (None, "soma?", False)
        store.append(undo(event.id))
        assert list(store.flags()) == []

    def test_flags_are_told_by_dataset_and_whether_anybody_answered(self, store) -> None:
        flag = decision(1, Verdict.FLAG, note="a")
        store.append(NewEvent.of(flag))
        store.append(NewEvent.of(decision(2, Verdict.FLAG, note="b", dataset="other", user="bob")))
        store.append(NewEvent.of(decision(1, Verdict.SKIP, key="skip")))
        assert [f.event.decision.note for f in store.flags()] == ["a", "b"]
        (found,) = store.flags(dataset=DATASET)
        assert (found.event.decision, found.is_answered) == (flag, False)
        store.append(NewEvent.of(decision(1, Verdict.UNSURE, user="bob", key="bob")))
        assert [f.is_answered for f in store.flags()] == [True, False]

    def test_what_was_known_to_be_wrong_is_no_label(self, store) -> None:
        event = store.append(NewEvent.of(seeded_decision(1)))
        (label,) = store.labels()
        assert (label.verdict, label.state) == (Verdict.ACCEPT, LabelState.SEEDED)
        assert store.get(event.id).decision == seeded_decision(1)
        store.append(undo(event.id))
        (label,) = store.labels()
        assert label.state is LabelState.UNDONE

    def test_of_none_only_what_was_known_to_be_wrong_is_no_label(self, store) -> None:
        given = seeded_decision(1, Verdict.NONE, joint=True)
        shown = (alternative(given.suggestion), alternative(suggestion(2)))
        store.append(NewEvent.of(replace(given, alternatives=shown)))
        assert [(label.site, label.state) for label in store.labels()] == [
            (given.suggestion.id, LabelState.SEEDED),
            (suggestion(2).id, LabelState.IN_FORCE),
        ]
        assert store.verify() == []

    def test_many_threads_may_append_and_read(self, store) -> None:
        def one(n: int) -> int:
            event = store.append(NewEvent.of(decision(n)))
            return store.get(event.id).id

        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(one, range(64)))
        assert sorted(ids) == [e.id for e in store.events()]

    def test_a_reader_that_stops_early_sees_later_events_next_time(self, store) -> None:
        store.append_all([NewEvent.of(decision(n)) for n in range(4)])
        early = store.events()
        next(early)
        del early
        store.append(NewEvent.of(decision(9)))
        assert len(list(store.events())) == 5

    def test_the_salt_stays(self, store, reopen) -> None:
        salt = store.salt
        assert len(salt) >= 16
        assert reopen().salt == salt

    def test_a_closed_store_says_so(self, store) -> None:
        store.close()
        store.close()
        with pytest.raises(LabelError, match="closed"):
            store.append(NewEvent.of(decision()))
        with pytest.raises(LabelError, match="closed"):
            list(store.events())
