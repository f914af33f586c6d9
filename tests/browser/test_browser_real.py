"""The promise of the whole program, on real tissue and on the shipped demo, from the command line:
what the page showed is what `suggest` prints and what `export` writes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from browser_harness import ServerProcess, Tab
from fixtures_fib25 import fib25_ffn

from cb2_assist.labels.store import labels_url

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

PROGRAM = (sys.executable, "-m", "cb2_assist")
EXTRA = os.environ.get("CB2_TEST_OPTIONS", "").split()
"""Options for every command that takes a model, e.g. ``--model DIR`` to try another one."""
MIDDLE = slice(45, 205)


@dataclass
class RealServer:
    """The program's own server and what to ask its other commands."""

    process: ServerProcess
    dataset: list[str]
    labels: str
    folder: Path

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*PROGRAM, *arguments], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(params=[pytest.param("fib25", marks=pytest.mark.shared), "demo"])
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealServer]:
    if request.param == "demo":
        dataset = ["--dataset", "demo"]
    else:
        shared_data = request.getfixturevalue("shared_data")
        dataset = ["--dataset-file", str(fib25_ffn(shared_data, tmp_path, (MIDDLE,) * 3))]
    labels = labels_url(tmp_path / "labels.sqlite")
    serve = ["serve", *dataset, *EXTRA, "--labels", labels, "--no-browser", "--user", "tester"]
    process = ServerProcess([*PROGRAM, *serve], tmp_path / "server.log").start()
    yield RealServer(process, dataset, labels, tmp_path)
    process.stop()


@pytest.fixture
def tab(browser, real: RealServer) -> Iterator[Tab]:
    made = Tab.open(browser, real.process.url)
    made.page.set_default_timeout(180_000)
    yield made
    made.page.close()
    assert made.faults == []


def _propose_somewhere(tab: Tab) -> None:
    """Point at places of the section until a segment has suggestions."""
    for dx, dy in ((0, 0), (60, 40), (-60, 50), (50, -70), (-80, -60), (110, 0), (0, 110)):
        if tab.point_at(dx, dy)["segment"] == "0":
            continue
        tab.propose()
        if tab.rows.count():
            return
        tab.page.evaluate("cb2.page.viewer.flight++")
    raise AssertionError(f"no suggestions anywhere: {tab.status}")


def _without_times(document: dict) -> dict:
    return {k: v for k, v in document.items() if k != "timing_ms"}


def test_page_suggest_and_export_agree(tab: Tab, real: RealServer) -> None:
    _propose_somewhere(tab)
    shown = tab.snapshot["list"]
    row = tab.row(tab.selected_id)
    chosen = tab.decide("f")
    tab.press("u")
    tab.settle()
    assert tab.verdicts == {}
    assert tab.decide("f") == chosen
    assert tab.verdicts == {chosen: "accept"}
    tab.reload()
    assert tab.verdicts == {chosen: "accept"}
    tab.expect_restart()
    assert real.process.stop() == 0
    real.process.start()
    tab.wait_for_restart()
    assert tab.verdicts == {chosen: "accept"}
    assert _without_times(tab.snapshot["list"]) == _without_times(shown)

    at = ",".join(repr(v) for v in shown["at_nm"])
    ask = ["--at", at, "--segment", shown["segment"], "--json"]
    printed = json.loads(real.run("suggest", *real.dataset, *EXTRA, *ask))
    assert _without_times(printed) == _without_times(shown)

    out = real.folder / "export"
    real.run("export", "--labels", real.labels, "--format", "jsonl", "--out", str(out))
    (exported,) = [
        json.loads(line)
        for path in sorted(out.glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    assert exported["kind"] == row["kind"]
    assert exported["segment"] == row["segment"]
    assert (exported["partner"] or "") == row["partner"]
    assert exported["verdict"] == "accept"
    assert "Traceback" not in real.process.log_path.read_text()
