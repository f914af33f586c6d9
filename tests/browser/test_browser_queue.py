"""The queue as a proofreader meets it: real keys, a fill beside the server, a restart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from browser_harness import ServerProcess, Tab
from page_fakes import INFO, ToyAssistant

from cb2_assist.core.geometry import PointNm
from cb2_assist.labels.queue_store import Scope
from cb2_assist.labels.store import labels_url, open_store
from cb2_assist.learning.cover import stops_in_box
from cb2_assist.learning.fill import fill

pytestmark = pytest.mark.browser

BOX = Scope(INFO.name, INFO.version, (), (PointNm(0, 0, 0), PointNm(960, 960, 960)))


@pytest.fixture
def labels(tmp_path: Path, server: ServerProcess) -> str:
    """The running server's label file, filled by another process: this one."""
    assert server.url
    url = labels_url(tmp_path / "labels.sqlite")
    assistant = ToyAssistant()
    with open_store(url) as store:
        fill(assistant, store.queue, BOX, stops_in_box(assistant.source, assistant.source.bounds))
    return url


def status(labels: str) -> dict:
    """As the command line tells it."""
    words = ["queue", "status", "--labels", labels, "--user", "tester", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "cb2_assist", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (part,) = json.loads(done.stdout)["queues"]
    return {state: sum(by_kind.values()) for state, by_kind in part["counts"].items()}


def press_q(tab: Tab) -> str:
    """Press q and wait for the list; the site that it led to."""
    seen = tab.page.evaluate("cb2.timings.proposals.length")
    tab.press("q")
    tab.until("(n) => cb2.timings.proposals.length > n", seen)
    tab.settle()
    return tab.snapshot["queue"]["site"]


def decisions(labels: str) -> list:
    with open_store(labels, read_only=True) as store:
        return [e.decision for e in store.events() if e.decision]


def test_fill_q_f_q_q_restart_q(tab: Tab, labels: str, server: ServerProcess) -> None:
    n = sum(status(labels).values())
    line = tab.page.locator("cb2-queue")
    assert not line.is_visible()

    first = press_q(tab)
    assert tab.selected_id == first
    assert f"queue: {n - 1} open" in line.inner_text()
    assert "picked by rank" in line.inner_text() or "picked at random" in line.inner_text()
    assert tab.row(first)["segment"] in tab.viewer_state()["segments"]
    target = next(s for s in tab.snapshot["list"]["suggestions"] if s["id"] == first)
    tab.until(
        "(at) => [...cb2.page.viewer.client.position.value].every("
        "(v, i) => Math.abs(v - at[i] / 10) < 1)",
        target["point_nm"],
    )
    assert tab.decide("f") == first

    second = press_q(tab)
    assert second != first
    third = press_q(tab)
    assert third not in (first, second)
    tab.until("(n) => cb2.page.view.queue.open === n", n - 2)
    assert status(labels) == {
        "open": n - 3,
        "leased": 1,
        "decided": 1,
        "implied": 0,
        "skipped": 1,
        "stale": 0,
        "flagged": 0,
        "again": 0,
    }

    tab.expect_restart()
    assert server.stop() == 0
    server.start()
    tab.wait_for_restart()
    assert tab.snapshot["queue"]["site"] == third
    assert tab.selected_id == third
    fourth = press_q(tab)
    assert fourth not in (first, second, third)

    accepted, *skipped = decisions(labels)
    assert (accepted.suggestion.id, accepted.verdict.value) == (first, "accept")
    assert [(d.suggestion.id, d.verdict.value, d.key) for d in skipped] == [
        (second, "skip", "q"),
        (third, "skip", "q"),
    ]
    for k, d in enumerate((accepted, *skipped)):
        p = d.propensity
        assert (p["how"], p["floor"], p["n_open"]) == ("queue", 0.1, n - k)
        ways = (0.1 / (n - k), 0.9 + 0.1 / (n - k))
        assert p["probability"] == pytest.approx(ways[0]) or p["probability"] == pytest.approx(
            ways[1]
        )
    assert len({d.propensity["draw"] for d in (accepted, *skipped)}) == 3
    assert status(labels)["decided"] == 1
    assert status(labels)["skipped"] == 2


def test_q_on_a_new_segment_searches_it_and_undo_reopens(tab: Tab, tmp_path: Path) -> None:
    labels = labels_url(tmp_path / "labels.sqlite")
    tab.press("q")
    tab.settle()
    assert "Nothing is queued yet" in tab.status
    tab.point_at()
    tab.propose()
    own = [s["id"] for s in tab.snapshot["list"]["suggestions"]]
    first = press_q(tab)
    assert first in own
    tab.until("() => cb2.page.view.queue.filling === null")
    counts = status(labels)
    assert counts["leased"] == 1
    assert counts["open"] == sum(counts.values()) - 1 >= 3
    tab.decide("d")
    assert status(labels)["decided"] == 1
    tab.press("u")
    tab.settle()
    assert status(labels)["decided"] == 0
    assert tab.selected_id == first
