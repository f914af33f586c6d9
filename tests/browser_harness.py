"""A server as a process, and a Chromium tab that presses real keys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page

CHROMIUM = os.environ.get("CB2_CHROMIUM", "/usr/bin/chromium")
# software GL: a machine for tests has no graphics card; as root Chromium needs --no-sandbox
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
VIEWER_MS = 120_000
PATIENCE_MS = 30_000


@dataclass
class ServerProcess:
    """One server, which may be stopped, killed and started again."""

    command: Sequence[str]
    log_path: Path
    url: str = ""
    started_s: float = 0.0
    process: subprocess.Popen[str] | None = None

    def start(self) -> ServerProcess:
        begun = time.monotonic()
        with self.log_path.open("a") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.started_s = time.monotonic() - begun
        assert line.startswith("cb2-assist: serving "), f"{line!r}\n{self.log_path.read_text()}"
        self.url = line.split(" at ", 1)[1].strip()
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        process = self.process
        if process is None:
            return 0
        process.send_signal(number)
        try:
            code = process.wait(20)
        except subprocess.TimeoutExpired:
            # with PYTHONFAULTHANDLER it says what every thread was at
            process.send_signal(signal.SIGABRT)
            process.wait(20)
            assert process.stdout is not None
            process.stdout.close()
            self.process = None
            raise AssertionError(f"does not end:\n{self.log_path.read_text()}") from None
        assert process.stdout is not None
        process.stdout.close()
        self.process = None
        return code


def toy_process(data: Path, folder: Path, words: str | None = None) -> ServerProcess:
    script = Path(__file__).parent / "browser" / "toy_server.py"
    command = [sys.executable, str(script), str(data), str(folder / "labels.sqlite")]
    if words is not None:
        command += ["0", words]
    return ServerProcess(command, folder / "server.log")


@dataclass
class Tab:
    """The page in a browser, seen as a proofreader sees it."""

    page: Page
    faults: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, browser: Browser, url: str) -> Tab:
        """A tab of a browser of its own; takes the session over if another one has it."""
        context = browser.new_context(viewport={"width": 1280, "height": 720})
        tab = cls._watched(context.new_page())
        tab.page.goto(url)
        tab.until("() => window.cb2?.page.api.isUp")
        if not tab.page.evaluate("cb2.page.api.holds"):
            tab.page.get_by_role("button", name="Take over here").click()
        tab.wait_for_viewer()
        return tab

    @classmethod
    def beside(cls, other: Tab, url: str) -> Tab:
        """A second tab of the same browser, without waiting for a viewer."""
        tab = cls._watched(other.page.context.new_page())
        tab.page.goto(url)
        tab.until("() => cb2.page.view !== null")
        return tab

    @classmethod
    def _watched(cls, page: Page) -> Tab:
        tab = cls(page)
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: tab.faults.append(str(error)))
        return tab

    def go(self, url: str) -> None:
        self.page.goto(url)
        self.wait_for_viewer()

    def reload(self) -> None:
        self.page.reload()
        self.wait_for_viewer()

    def wait_for_viewer(self) -> None:
        self.page.wait_for_function(
            "window.cb2?.page.view && cb2.page.viewer.layer && cb2.page.viewer.isComplete",
            timeout=VIEWER_MS,
        )

    def until(self, expression: str, argument: object = None) -> None:
        self.page.wait_for_function(expression, arg=argument)

    def reset(self) -> None:
        """No verdicts, the list of the middle segment, nothing else shown: as if just opened."""
        self.settle()
        while self.snapshot["can_undo"]:
            self.press("u")
            self.settle()
        self.page.evaluate(
            """() => {
              document.querySelector("#note")?.remove();
              cb2.page.viewer.flight++;
              const {layer, client} = cb2.page.viewer;
              const group = layer.displayState.segmentationGroupState.value;
              group.visibleSegments.clear();
              group.selectedSegments.clear();
              client.position.value = Float32Array.of(48, 48, 48);
            }"""
        )
        self.wait_for_viewer()

    def expect_restart(self) -> None:
        """To be called before the server is stopped; then see `wait_for_restart`."""
        self.page.evaluate(
            """() => {
              window.isPaintedAnew = false;
              const api = cb2.page.api, once = {once: true};
              api.addEventListener("hello", () => api.addEventListener("snapshot",
                () => (window.isPaintedAnew = true), once), once);
            }"""
        )

    def wait_for_restart(self) -> None:
        """Until the new server has its list back and has answered everything."""
        self.until(
            "() => window.isPaintedAnew && cb2.page.view.list && cb2.page.view.busy_with === null"
        )
        self.settle()

    # -- pointing

    def panel(self, number: int = 0) -> tuple[float, float, float, float]:
        """Left, top, width, height of a viewer panel: 0 is the section, 1 is 3-D."""
        box = self.page.evaluate(
            """(n) => {
              const frame = document.querySelector("#viewer").getBoundingClientRect();
              const panels = [...cb2.page.viewer.client.display.panels];
              const boxes = panels.map((p) => p.element.getBoundingClientRect());
              boxes.sort((a, b) => a.left - b.left);
              const b = boxes[n];
              return [frame.left + b.left, frame.top + b.top, b.width, b.height];
            }""",
            number,
        )
        return tuple(box)

    def point_at(self, dx: float = 0, dy: float = 0, panel: int = 0) -> dict:
        """Move the mouse to an offset in pixels from a panel's middle; what lies under it."""
        left, top, width, height = self.panel(panel)
        x, y = left + width / 2 + dx, top + height / 2 + dy
        # of a frame that was drawn before the camera moved, the place is new and the segment old
        self.page.evaluate(
            """() => new Promise((drawn) => {
              cb2.page.viewer.client.display.scheduleRedraw();
              const next = (n) => (n ? requestAnimationFrame(() => next(n - 1)) : drawn());
              next(3);
            })"""
        )
        self.page.mouse.move(x - 3, y)
        self.page.mouse.move(x, y, steps=3)
        # what lies under the mouse is read back from the frame that was drawn last, so the answer
        # may still be about the place where mouse or camera was before
        self.until(
            """([dx, dy, is2d]) => {
              const {client} = cb2.page.viewer, {mouseState: mouse, position} = client;
              if (!cb2.page.viewer.cursor(cb2.page.view.resolution_nm)?.segment) return false;
              const px = client.crossSectionScale.value;
              const off = (i, d) => mouse.unsnappedPosition[i] - position.value[i] - d * px;
              return !is2d || (Math.abs(off(0, dx)) < 2 * px && Math.abs(off(1, dy)) < 2 * px);
            }""",
            [dx, dy, panel == 0],
        )
        return self.page.evaluate("cb2.page.viewer.cursor(cb2.page.view.resolution_nm)")

    def point_away(self) -> None:
        self.page.mouse.move(40, 500)
        self.until("() => cb2.page.viewer.cursor(cb2.page.view.resolution_nm) === null")

    # -- keys

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def settle(self) -> None:
        """Wait until the server has answered everything and the viewer shows it."""
        self.until("() => cb2.page.api.isUp && cb2.page.api.underWay.size === 0")
        self.page.evaluate("() => new Promise((done) => setTimeout(done))")

    def propose(self) -> None:
        seen = self.page.evaluate("cb2.timings.proposals.length")
        self.press("p")
        self.until("(n) => cb2.timings.proposals.length > n", seen)
        self.settle()

    def decide(self, key: str) -> str:
        """Press a verdict's key; the id of the suggestion that was selected."""
        chosen = self.selected_id
        self.press(key)
        self.settle()
        return chosen

    # -- what is shown

    @property
    def rows(self) -> Locator:
        return self.page.get_by_role("listbox", name="Suggestions").get_by_role("option")

    def row(self, suggestion_id: str) -> dict[str, str]:
        """The attributes of a row."""
        return self.page.evaluate(
            "(id) => ({...document.getElementById(`option-${id}`).dataset})", suggestion_id
        )

    @property
    def selected_id(self) -> str:
        return self.page.locator('[role=option][aria-selected="true"]').get_attribute("data-id")

    @property
    def status(self) -> str:
        return self.page.get_by_role("status").inner_text()

    @property
    def verdicts(self) -> dict[str, str]:
        rows = self.page.evaluate(
            "() => [...document.querySelectorAll('[role=option]')]"
            ".map((r) => [r.dataset.id, r.dataset.verdict])"
        )
        return {name: verdict for name, verdict in rows if verdict}

    @property
    def snapshot(self) -> dict:
        return self.page.evaluate("() => ({...cb2.page.view, pending: undefined})")

    def viewer_state(self) -> dict:
        """What the viewer shows, read from its client."""
        return json.loads(
            self.page.evaluate(
                """() => {
              const viewer = cb2.page.viewer, state = viewer.layer.displayState;
              const group = state.segmentationGroupState.value;
              const colours = state.segmentationColorGroupState.value.segmentStatedColors;
              const list = (name) => [...viewer.client.layerManager.getLayerByName(name)
                .layer.localAnnotations].map((a) => ({
                  id: a.id, point: [...a.point], properties: [...a.properties]}));
              return JSON.stringify({
                segments: [...group.visibleSegments].map(String).sort(),
                selected: [...group.selectedSegments].map(String).sort(),
                colours: Object.fromEntries([...colours].map(([k, v]) => [String(k),
                  [Number(v & 255n), Number((v >> 8n) & 255n), Number((v >> 16n) & 255n)]])),
                linked: (group.segmentEquivalences.toJSON() ?? []).flat().map(String),
                markers: list("suggestions"), sides: list("cut sides"),
                position: [...viewer.client.position.value],
                shaderErrors: ["suggestions", "cut sides"].map((name) => viewer.client.layerManager
                  .getLayerByName(name).layer.annotationDisplayState.shaderError.value?.message),
              });
            }"""
            )
        )
