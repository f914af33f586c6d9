"""From the cursor to the stored label, in a real browser with real keys."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_harness import ServerProcess, Tab
from page_fakes import BASE, INFO

from cb2_assist.core.records import LabelEvent, Verdict
from cb2_assist.labels.store import Label, LabelState, labels_url, open_store

pytestmark = pytest.mark.browser


def stored(folder: Path) -> tuple[list[LabelEvent], list[Label]]:
    with open_store(labels_url(folder / "labels.sqlite"), read_only=True) as store:
        return list(store.events()), list(store.labels())


def in_force(folder: Path) -> Iterator[Label]:
    return (label for label in stored(folder)[1] if label.state is LabelState.IN_FORCE)


def test_propose_accept_undo_accept_reload_restart(
    tab: Tab, server: ServerProcess, tmp_path: Path
) -> None:
    cursor = tab.point_at()
    assert cursor["segment"] == str(BASE + 13)
    tab.propose()
    assert tab.rows.count() == 4
    shown = tab.row(tab.selected_id)
    assert (shown["kind"], shown["segment"]) == ("join", cursor["segment"])

    chosen = tab.decide("f")
    assert tab.verdicts == {chosen: "accept"}
    assert tab.status.startswith("Accepted: join of")
    tab.press("u")
    tab.settle()
    assert tab.verdicts == {}
    assert tab.selected_id == chosen
    assert tab.decide("f") == chosen
    assert [e.event for e in stored(tmp_path)[0]] == ["decision", "undo", "decision"]

    (label,) = in_force(tmp_path)
    decision = label.event.decision
    assert decision is not None
    site = decision.suggestion.site
    assert label.verdict is Verdict.ACCEPT
    assert (site.kind.value, str(site.segment), str(site.partner)) == (
        shown["kind"],
        shown["segment"],
        shown["partner"],
    )
    assert str(decision.suggestion.confidence) == shown["confidence"]
    assert (decision.user, decision.key, decision.licence) == ("tester", "f", INFO.licence)
    assert decision.views_sha256 is not None

    selected = tab.selected_id
    tab.reload()
    assert tab.verdicts == {chosen: "accept"}
    assert tab.selected_id == selected

    tab.expect_restart()
    assert server.stop() == 0
    tab.page.get_by_role("alert").wait_for()
    server.start()
    tab.wait_for_restart()
    assert tab.verdicts == {chosen: "accept"}
    assert tab.selected_id == selected
    tab.until("() => document.querySelector('cb2-connection').hidden")


def test_each_verdict_is_stored_for_the_row_that_was_selected(tab: Tab, tmp_path: Path) -> None:
    tab.point_at()
    tab.propose()
    wanted = {}
    for key, verdict in (("d", Verdict.REJECT), ("g", Verdict.UNSURE), ("f", Verdict.ACCEPT)):
        wanted[tab.decide(key)] = verdict
    assert {label.site: label.verdict for label in in_force(tmp_path)} == wanted
    tab.press("Control+z")
    tab.settle()
    tab.press("Control+z")
    tab.settle()
    tab.press("Control+Shift+Z")
    tab.settle()
    left = dict(list(wanted.items())[:2])
    assert {label.site: label.verdict for label in in_force(tmp_path)} == left
    assert tab.verdicts == {site: verdict.value for site, verdict in left.items()}


def test_a_digit_gives_the_reason_of_the_verdict_before_it(
    tab: Tab, server: ServerProcess, tmp_path: Path
) -> None:
    tab.point_at()
    tab.propose()
    layers = "() => cb2.page.viewer.client.layerManager.managedLayers.map((l) => l.visible)"
    visible = tab.page.evaluate(layers)
    tab.press("2")
    assert tab.status == "A reason (other neuron) needs a reject (d) or unsure (g) first."

    rejected = tab.decide("d")
    assert "1 mitochondrion, 2 other neuron, 3 artefact, 4 cannot see" in tab.status
    tab.press("2")
    tab.settle()
    assert tab.status.startswith("Other neuron: rejected join of")
    assert tab.row(rejected)["reason"] == "other_neuron"
    assert tab.page.locator(f"#option-{rejected}").inner_text().endswith("rejected · other neuron")
    # typed without waiting for any answer; each digit belongs to the verdict before it
    unsure = tab.selected_id
    for key in "g4f3":
        tab.press(key)
    tab.settle()
    assert tab.snapshot["reasons"] == {rejected: "other_neuron", unsure: "cannot_see"}
    tab.press("3")
    assert "needs a reject" in tab.status

    # back on a rejected row, a digit is about that row and takes the place of its first reason
    tab.page.locator(f"#option-{rejected}").click()
    tab.press("1")
    tab.settle()
    events = stored(tmp_path)[0]
    kinds = ["decision", "reason", "decision", "reason", "decision", "reason"]
    assert [e.event for e in events] == kinds
    assert [(e.target, e.reason) for e in events if e.reason] == [
        (1, "other_neuron"),
        (3, "cannot_see"),
        (1, "mitochondrion"),
    ]
    assert {label.site: label.reason for label in in_force(tmp_path)} == {
        rejected: "mitochondrion",
        unsure: "cannot_see",
        events[4].decision.suggestion.id: None,
    }
    assert tab.page.evaluate(layers) == visible, "a digit switches no layer"

    tab.expect_restart()
    server.stop()
    server.start()
    tab.wait_for_restart()
    assert tab.row(rejected)["reason"] == "mitochondrion"


def test_fast_keys_each_count_for_what_was_visible(tab: Tab, tmp_path: Path) -> None:
    """No key waits for an answer of the server, nor counts for a row that it did not show."""
    tab.point_at()
    tab.propose()
    ids = tab.page.evaluate("cb2.page.view.list.suggestions.map((s) => s.id)")
    for key in "fdgf":
        tab.press(key)
    tab.settle()
    wanted = dict(zip(ids, ["accept", "reject", "unsure", "accept"], strict=True))
    assert tab.verdicts == wanted
    assert {label.site: label.verdict.value for label in in_force(tmp_path)} == wanted


def test_a_key_held_down_decides_once(tab: Tab, tmp_path: Path) -> None:
    tab.point_at()
    tab.propose()
    for _ in range(6):
        tab.page.keyboard.down("f")
    tab.page.keyboard.up("f")
    tab.settle()
    assert len(stored(tmp_path)[0]) == 1
    for _ in range(6):
        tab.page.keyboard.down("j")
    tab.page.keyboard.up("j")
    tab.settle()
    assert tab.selected_id == tab.rows.last.get_attribute("data-id"), "moving does repeat"


def test_verdicts_typed_without_a_connection_arrive_once(
    tab: Tab, server: ServerProcess, tmp_path: Path
) -> None:
    import signal

    tab.point_at()
    tab.propose()
    tab.expect_restart()
    server.stop(signal.SIGKILL)
    tab.page.get_by_role("alert").wait_for()
    first = tab.selected_id
    tab.press("f")
    second = tab.selected_id
    assert second != first, "the next row is selected without waiting"
    tab.press("d")
    assert tab.verdicts == {first: "accept", second: "reject"}
    assert tab.row(first)["pending"] == "true"
    assert "2 verdicts kept here" in tab.page.get_by_role("alert").inner_text()
    server.start()
    tab.wait_for_restart()
    events = stored(tmp_path)[0]
    assert [(e.decision.suggestion.id, e.decision.verdict.value) for e in events if e.decision] == [
        (first, "accept"),
        (second, "reject"),
    ]
    assert tab.verdicts == {first: "accept", second: "reject"}


def test_the_page_shows_what_suggest_prints(tab: Tab) -> None:
    tab.point_at()
    tab.propose()
    suggestions = tab.snapshot["list"]["suggestions"]
    assert [r.get_attribute("data-id") for r in tab.rows.all()] == [s["id"] for s in suggestions]
    for s in suggestions:
        row = tab.row(s["id"])
        assert (row["kind"], row["segment"], row["partner"]) == (
            s["kind"],
            s["segment"],
            s["partner"] or "",
        )
        assert float(row["confidence"]) == s["confidence"]
    unreliable = tab.page.locator("[data-unreliable=true]")
    assert "not reliable here" in unreliable.inner_text()
    assert "22 %" not in unreliable.inner_text()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("labels", "from 214 labels"),
        ("estimated", "estimated from 214 sites"),
        ("default", "default"),
    ],
)
def test_the_header_says_where_the_base_rate_is_from(tab: Tab, source: str, words: str) -> None:
    tab.page.evaluate(
        """(source) => {
          const joins = {value: 0.25, source, n: 214};
          const cuts = {value: 0.01, source: "default", n: 0};
          const base_rate = {...joins, by_kind: {join: joins, cut: cuts}};
          const model = {name: "m", sha256: "0"};
          const list = {segment: "1", model, base_rate, suggestions: []};
          cb2.page.header.update({...cb2.page.view, list});
        }""",
        source,
    )
    rate = tab.page.locator("cb2-header .rate")
    assert rate.inner_text() == f"base rate 25 % ({words})"
    title = rate.get_attribute("title") or ""
    assert f"joins 25 % ({words})" in title
    assert "cuts 1 % (default)" in title


def test_an_uncalibrated_model_is_marked_where_its_numbers_would_stand(tab: Tab) -> None:
    tab.point_at()
    tab.propose()
    why = "toy-model is not calibrated: no confidence of it can be relied on."
    tab.page.evaluate(
        """(why) => {
          const view = {...cb2.page.view, list: structuredClone(cb2.page.view.list)};
          view.list.model.uncalibrated = why;
          view.list.suggestions.forEach((s) => Object.assign(s, {interval: [0, 1],
            ood: {percentile: 100, flag: true}}));
          cb2.page.list.update(view);
          cb2.page.header.update(view);
        }""",
        why,
    )
    for row in tab.rows.all():
        assert row.locator(".confidence").inner_text() == "not reliable here"
        assert row.locator(".interval").text_content() == "uncalibrated"
    model = tab.page.locator("cb2-header .model")
    assert "toy-model (uncalibrated)" in model.inner_text()
    assert model.get_attribute("title").startswith(why)


def test_words_of_the_server_are_text_and_nothing_else(tab: Tab) -> None:
    evil = "<img src=x onerror='window.broken=1'>"
    tab.page.evaluate(
        """(evil) => {
          const view = structuredClone({...cb2.page.view, pending: undefined});
          view.pending = new Set();
          view.list = {segment: evil, note: evil, model: {name: evil}, base_rate: {value: 0.1,
            source: evil, n: 0}, suggestions: [{id: "a", kind: evil, segment: evil, partner: evil,
            confidence: 0.5, interval: [0.4, 0.6], ood: {flag: false}, reason: evil,
            evidence: {views: []}}]};
          cb2.page.list.update(view);
          cb2.page.header.update(view);
          cb2.page.say(evil);
        }""",
        evil,
    )
    assert evil in tab.rows.inner_text()
    assert tab.page.locator("aside img").count() == 0
    assert tab.page.evaluate("window.broken") is None


def test_a_browser_without_webgl_is_told_what_to_do(server: ServerProcess) -> None:
    """Needs a browser of its own, as the switch goes for all of it."""
    script = Path(__file__).parent / "no_webgl.py"
    done = subprocess.run(
        [sys.executable, str(script), server.url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "This browser has no WebGL 2" in done.stdout, done.stderr
