"""A graph behind a CAVE server in the page: layers drawn, suggestions made, the token kept away."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest
from browser_harness import ServerProcess, Tab
from cave_worlds import EDITOR, CaveWorld, cave_world, own_home
from page_fakes import wait_until

from cb2_assist.labels.store import labels_url, open_store

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

LOADED = """() => {
  const names = ["em", "segments"], viewer = cb2.page.viewer.client;
  return names.map((name) => viewer.layerManager.getLayerByName(name).layer.dataSources.map(
    (source) => source.loadState?.error ? String(source.loadState.error) :
      source.loadState ? source.spec.url : "not loaded"));
}"""


DRAWN_IN_PART = (
    "import cb2_assist.settings as settings; settings.MOST_DRAWN_PARTS = 1; "
    "from cb2_assist.cli import main; main()"
)
"""The program, where any object is a large one."""


LOOKS = "(n) => cb2.timings.answers.filter((a) => a.type === 'look_at').length > n"


def look_at_z(tab: Tab, z: int) -> None:
    """Move the camera, and wait until the server was told."""
    known = tab.page.evaluate("cb2.timings.answers.filter((a) => a.type === 'look_at').length")
    tab.page.evaluate(
        """(z) => {
          cb2.page.viewer.flight++;
          cb2.page.viewer.client.position.value = Float32Array.of(48, 36, z);
        }""",
        z,
    )
    tab.until(LOOKS, known)
    tab.settle()


def drawn_at_z(world: CaveWorld, z: int) -> bool:
    """Whether the surface of an object of several parts was asked for round there."""
    asked = [r.query for r in world.cave.faults.requests() if "/manifest/" in r.path]
    ends = [re.search(r"bounds=.*_(\d+)-(\d+)", query) for query in asked]
    return any(int(e[1]) <= z < int(e[2]) for e in ends if e)


@pytest.fixture
def graph(
    tmp_path, neurites_file, tiny_model_folder
) -> Iterator[tuple[ServerProcess, str, CaveWorld]]:
    labels = labels_url(tmp_path / "labels.sqlite")
    with own_home(tmp_path), cave_world(tmp_path, neurites_file) as world:
        command = [sys.executable, "-c", DRAWN_IN_PART, "--dataset-file", str(world.file)]
        options = ["--model", str(tiny_model_folder), "--device", "cpu", "--labels", labels]
        start = ["--at", "485,365,625", "--no-browser", "--user", "ada"]
        process = ServerProcess([*command, *options, *start], tmp_path / "server.log").start()
        yield process, labels, world
        process.stop()


def test_a_graph_is_shown_asked_about_and_decided_on(browser, graph) -> None:
    process, labels, world = graph
    sent: list[str] = []
    tab = Tab.open(browser, process.url)
    tab.page.set_default_timeout(180_000)  # the first p waits for the network to be loaded
    tab.page.context.on("request", lambda r: sent.append(f"{r.url} {r.headers}"))
    em, segments = tab.page.evaluate(LOADED)
    assert em[0].startswith("precomputed://http://127.0.0.1:")
    assert segments[0].startswith("graphene://http://127.0.0.1:")
    assert "/graph/segmentation/table/" in segments[0]
    # under the mouse the client knows the supervoxel; the object is found from it
    part = tab.point_at()["segment"]
    tab.propose()
    shown = tab.snapshot["list"]
    assert int(part) >> 56 == 1
    assert shown["segment"] != part
    assert tab.rows.count() >= 1, tab.status
    state = tab.viewer_state()
    assert shown["segment"] in state["segments"]
    # its supervoxels are coloured as one, where the camera is; a suggestion has led it away
    look_at_z(tab, 60)
    tab.until(
        """([part, root]) => {
          const {segmentEquivalences: links} =
            cb2.page.viewer.layer.displayState.segmentationGroupState.value;
          return links.get(BigInt(part)) === links.get(BigInt(root));
        }""",
        [part, shown["segment"]],
    )
    tab.wait_for_viewer()
    # of its surface only what lies near the camera is drawn, wherever that goes
    assert not drawn_at_z(world, 10)
    look_at_z(tab, 10)
    wait_until(lambda: drawn_at_z(world, 10), 60)
    tab.wait_for_viewer()
    chosen = tab.decide("f")
    assert tab.verdicts == {chosen: "accept"}
    assert not [text for text in sent if EDITOR.token in text]
    assert EDITOR.token not in tab.page.content()
    tab.page.close()
    assert tab.faults == []
    assert EDITOR.token not in process.log_path.read_text()
    with open_store(labels) as store:
        (event,) = store.events()
    assert all(part is None or int(part) >> 56 == 1 for part in event.decision.supervoxels)
    assert event.decision.timestamp.endswith("Z")
