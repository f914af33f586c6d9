"""Two tabs at one session: one works, the other asks, and no verdict is lost between them."""

from __future__ import annotations

import json
import os

import pytest
from page_fakes import BASE
from page_harness import Page, start

from cb2_assist.labels.sqlite import SqliteLabelStore

CENTRE = BASE + 13
AT = [480.0, 480.0, 480.0]


@pytest.fixture
def first(served, loop):
    made = Page(served, loop, "tab=a&load=1")
    made.ask("propose", at_nm=AT, segment=str(CENTRE))
    yield made
    made.close()


@pytest.fixture
def second(served, loop, first):  # noqa: ARG001 - the other one is there before
    made = Page(served, loop, "tab=b&load=1")
    yield made
    made.close()


def verdict(page: Page, *, held: bool, key: str) -> dict:
    return page.ask(
        "decide", suggestion=page.snapshot["selected"], verdict="accept", key="f",
        idempotency_key=key, shown_ms=1, age_ms=1, idle_ms=0, held=held,
    )  # fmt: skip


def test_only_the_first_tab_is_told_that_it_holds_the_session(first, second) -> None:
    assert first.hello["holds"] is True
    assert second.hello["holds"] is False
    assert second.snapshot["list"] == first.snapshot["list"], "it may look"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("propose", {"at_nm": AT, "segment": str(CENTRE + 1)}),
        ("select", {"suggestion": "{selected}"}),
        ("preview", {"shown": True}),
        ("goto", {"text": "48, 48, 48"}),
        ("undo", {"idempotency_key": "u"}),
        ("redo", {"idempotency_key": "r"}),
    ],
)
def test_the_other_tab_changes_nothing(served, first, second, kind, fields) -> None:
    before = first.snapshot
    given = {
        k: v.format(selected=before["selected"]) if isinstance(v, str) else v
        for k, v in fields.items()
    }
    ack = second.ask(kind, **given)
    assert not ack["ok"]
    assert ack["error"].startswith("NOT done: this session is open in another tab.")
    first.ask("ping")
    for part in ("list", "selected", "preview", "verdicts", "status", "busy_with"):
        assert first.snapshot[part] == before[part]
    assert served.log.events == []


def test_a_verdict_typed_in_the_other_tab_is_refused(served, first, second) -> None:
    ack = verdict(second, held=False, key="k")
    assert not ack["ok"]
    assert "open in another tab" in ack["error"]
    assert served.log.events == []
    assert verdict(first, held=True, key="k")["ok"], "the key was not used up"


def test_taking_over_turns_it_round(served, first, second) -> None:
    assert second.ask("take_over")["ok"]
    assert first.until("hold")["holds"] is False
    assert [m["holds"] for m in second.seen if m["type"] == "hold"] == [True]
    assert not first.ask("select", suggestion=first.snapshot["selected"])["ok"]
    assert verdict(second, held=True, key="k")["ok"]
    assert len(served.log.events) == 1


def test_a_verdict_under_way_when_another_tab_takes_over_is_recorded_once(
    served, first, second
) -> None:
    """Typed while the tab held the session, it arrives after it has lost it, and is sent again."""
    second.ask("take_over")
    assert verdict(first, held=True, key="typed-before")["ok"]
    assert verdict(first, held=True, key="typed-before")["ok"]
    assert [e.idempotency_key for e in served.log.events] == ["typed-before"]
    assert not verdict(first, held=False, key="typed-after")["ok"]
    assert len(served.log.events) == 1


def test_an_undo_under_way_counts_too(served, first, second) -> None:
    verdict(first, held=True, key="k")
    seen = {"after": first.snapshot["newest_event"], "own": []}
    second.ask("take_over")
    assert not first.ask("undo", idempotency_key="u", held=True)["ok"], "it does not say of what"
    assert first.ask("undo", idempotency_key="u", held=True, seen=seen)["ok"]
    assert [e.event for e in served.log.events] == ["decision", "undo"]


@pytest.mark.parametrize("comes_back", [False, True])
def test_an_undo_that_waited_in_one_tab_spares_the_verdict_of_the_other(
    tmp_path, loop, comes_back: bool
) -> None:
    """It was pressed without a connection; then somebody went on in another tab."""
    with SqliteLabelStore(tmp_path / "labels.sqlite") as store:
        served = start(tmp_path, store)
        a = Page(served, loop, "tab=a&load=1")
        a.ask("propose", at_nm=AT, segment=str(CENTRE))
        one, two = [s["id"] for s in a.snapshot["list"]["suggestions"]][:2]
        a.decide(one, "accept")
        seen = {"after": a.snapshot["newest_event"], "own": []}
        a.close()
        b = Page(served, loop, "tab=b&load=1")
        b.ask("take_over")
        b.decide(two, "reject")
        again = Page(served, loop, "tab=a&load=1")
        if comes_back:
            again.ask("take_over")
        ack = again.ask("undo", idempotency_key="late", held=True, seen=seen)
        assert ack["error"].startswith("NOT done: tester has decided something else")
        b.ask("ping")
        assert b.snapshot["verdicts"] == {one: "accept", two: "reject"}
        again.ask("take_over")
        now = {"after": again.snapshot["newest_event"], "own": []}
        assert again.ask("undo", idempotency_key="anew", held=True, seen=now)["ok"]
        assert again.snapshot["verdicts"] == {one: "accept"}, "pressed again, it is the last one"
        for page in (again, b):
            page.close()
        served.server.stop()


@pytest.mark.parametrize(
    "seen", ["x", [], {}, {"after": 1}, {"after": True, "own": []}, {"after": -1, "own": []},
             {"after": 2**70, "own": []}, {"after": 1, "own": [5]}, {"after": 1, "own": "abc"},
             {"after": 1, "own": [], "needs": 7}],
)  # fmt: skip
def test_an_undo_that_says_nonsense_about_what_it_saw_is_refused(served, first, seen) -> None:
    verdict(first, held=True, key="k")
    assert not first.ask("undo", idempotency_key="u", seen=seen)["ok"]
    assert [e.event for e in served.log.events] == ["decision"]


def test_verdicts_of_both_tabs_pipelined_round_a_take_over_all_count(served, first, second) -> None:
    """Nobody waits for answers here: what was sent is recorded, whatever the order of arrival."""
    ids = [s["id"] for s in first.snapshot["list"]["suggestions"]]
    fields = {"verdict": "reject", "key": "d", "shown_ms": 1, "age_ms": 1, "idle_ms": 0}
    wanted = {}
    for i, (page, suggestion) in enumerate(zip([first, first, second, second], ids, strict=True)):
        if i == 2:
            second.write(json.dumps({"type": "take_over", "id": "t"}))
        name = os.urandom(8).hex()
        wanted[name] = suggestion
        page.write(
            json.dumps(
                {
                    "type": "decide", "id": name, "suggestion": suggestion, "held": True,
                    "idempotency_key": name, **fields,
                }
            )
        )  # fmt: skip
    for page, names in ((first, list(wanted)[:2]), (second, list(wanted)[2:])):
        for name in names:
            ack = next((m for m in page.seen if m.get("id") == name), None)
            ack = ack or page.until("ack", lambda m, name=name: m["id"] == name)
            assert ack["ok"]
    recorded = {e.idempotency_key: e.decision.suggestion.id for e in served.log.events}
    assert recorded == wanted


def test_a_reload_and_a_new_connection_keep_the_session(served, loop, first, second) -> None:
    first.close()
    again = Page(served, loop, "tab=a&load=2")
    assert again.hello["holds"] is True
    assert second.ask("ping")["ok"]
    assert not [m for m in second.seen if m["type"] == "hold"]
    again.close()


def test_a_tab_that_has_gone_leaves_the_session_to_the_other(first, second, monkeypatch) -> None:
    from cb2_assist.server import hold

    monkeypatch.setattr(hold, "GRACE_S", 0.1)
    monkeypatch.setattr(hold, "RELOAD_S", 0.1)
    first.close()
    assert second.until("hold")["holds"] is True
    assert second.ask("select", suggestion=second.snapshot["selected"])["ok"]
