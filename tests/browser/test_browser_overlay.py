"""What the viewer shows of a suggestion, also after its iframe is loaded anew."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from browser_harness import ServerProcess, Tab
from page_fakes import BASE, RESOLUTION

pytestmark = pytest.mark.browser

ORANGE, BLUE, GREEN = [0xFF, 0x8C, 0x00], [0x1E, 0x90, 0xFF], [0x3D, 0xDC, 0x84]
CENTRE = str(BASE + 13)


def test_the_two_segments_stand_apart_and_each_suggestion_has_a_marker(listed: Tab) -> None:
    state = listed.viewer_state()
    chosen = listed.row(listed.selected_id)
    assert state["segments"] == sorted([CENTRE, chosen["partner"]])
    assert state["colours"][CENTRE] == ORANGE
    assert state["colours"][chosen["partner"]] == BLUE
    suggestions = listed.snapshot["list"]["suggestions"]
    assert [m["id"] for m in state["markers"]] == [s["id"] for s in suggestions]
    for marker, s in zip(state["markers"], suggestions, strict=True):
        where = [v * r for v, r in zip(marker["point"], RESOLUTION, strict=True)]
        assert where == pytest.approx(s["point_nm"], abs=0.01)
        conf, current, decided, unreliable = marker["properties"]
        assert conf == pytest.approx(s["confidence"], abs=1e-6)
        assert (current, decided) == (int(s["id"] == listed.selected_id), 0)
        assert unreliable == int(s["ood"]["flag"])
    assert state["shaderErrors"] == [None, None]


def test_the_camera_flies_to_the_selected_suggestion(listed: Tab) -> None:
    for key in ("j", "j", "k"):
        listed.press(key)
        listed.settle()
        s = next(x for x in listed.snapshot["list"]["suggestions"] if x["id"] == listed.selected_id)
        target = [v / r for v, r in zip(s["point_nm"], RESOLUTION, strict=True)]
        listed.until(
            "(t) => [...cb2.page.viewer.client.position.value]"
            ".every((v, i) => Math.abs(v - t[i]) < 0.01)",
            target,
        )


def test_the_preview_of_a_join_shows_one_segment(listed: Tab) -> None:
    partner = listed.row(listed.selected_id)["partner"]
    listed.press("t")
    listed.settle()
    state = listed.viewer_state()
    assert set(state["linked"]) == {CENTRE, partner}
    assert state["colours"][CENTRE] == state["colours"][partner] == GREEN
    listed.press("t")
    listed.settle()
    state = listed.viewer_state()
    assert state["linked"] == []
    assert state["segments"] == sorted([CENTRE, partner])
    assert (state["colours"][CENTRE], state["colours"][partner]) == (ORANGE, BLUE)


def test_the_preview_of_a_cut_shows_its_two_sides(listed: Tab) -> None:
    listed.press("j")
    listed.press("j")
    listed.settle()
    assert listed.row(listed.selected_id)["kind"] == "cut"
    assert listed.viewer_state()["segments"] == [CENTRE]
    listed.press("t")
    listed.until("() => cb2.page.view.sides !== null")
    listed.settle()
    sides = [m["properties"][0] for m in listed.viewer_state()["sides"]]
    assert (sides.count(0), sides.count(1)) == (3, 3)
    listed.press("k")
    listed.settle()
    assert listed.viewer_state()["sides"] == []


def test_decided_markers_are_marked_and_the_next_is_current(listed: Tab) -> None:
    chosen = listed.decide("d")
    markers = {m["id"]: m["properties"] for m in listed.viewer_state()["markers"]}
    assert markers[chosen][1:3] == [0, 1]
    assert markers[listed.selected_id][1:3] == [1, 0]


def test_segments_that_the_person_chose_stay(listed: Tab) -> None:
    own = str(BASE)
    listed.page.evaluate(
        """(id) => {
          const group = cb2.page.viewer.layer.displayState.segmentationGroupState.value;
          group.selectedSegments.add(BigInt(id));
          group.visibleSegments.add(BigInt(id));
        }""",
        own,
    )
    listed.press("j")
    listed.settle()
    state = listed.viewer_state()
    assert state["segments"] == sorted([own, CENTRE, listed.row(listed.selected_id)["partner"]])
    assert state["selected"] == state["segments"], "nothing is left starred and hidden"


def test_a_new_iframe_gets_the_overlay_and_the_keys_again(listed: Tab) -> None:
    listed.press("t")
    listed.settle()
    before = listed.viewer_state()
    listed.page.evaluate(
        """() => {
          window.oldLayer = cb2.page.viewer.layer;
          cb2.page.viewer.window.location.reload();
        }"""
    )
    listed.until("() => cb2.page.viewer.layer && cb2.page.viewer.layer !== window.oldLayer")
    listed.wait_for_viewer()
    listed.settle()
    after = listed.viewer_state()
    for part in ("segments", "colours", "markers", "linked"):
        assert after[part] == before[part], part
    left, top, width, height = listed.panel()
    listed.page.mouse.click(left + width / 2, top + height / 2)
    listed.press("x")
    assert listed.viewer_state()["segments"] == before["segments"]
    chosen = listed.decide("f")
    assert listed.verdicts == {chosen: "accept"}


def test_layers_built_anew_by_the_server_get_the_overlay_again(
    listed: Tab, shared_server: ServerProcess
) -> None:
    """A restarted server sends its own first state to the viewer that is open."""
    before = listed.viewer_state()
    listed.page.evaluate("() => (window.oldLayer = cb2.page.viewer.layer)")
    listed.expect_restart()
    assert shared_server.stop() == 0
    shared_server.start()
    listed.until("() => cb2.page.viewer.layer && cb2.page.viewer.layer !== window.oldLayer")
    listed.wait_for_viewer()
    listed.wait_for_restart()
    after = listed.viewer_state()
    for part in ("segments", "colours", "markers"):
        assert after[part] == before[part], part


def test_p_works_on_a_mesh_in_the_3d_panel(listed: Tab) -> None:
    cursor = listed.point_at(panel=1)
    assert int(cursor["segment"]) >= BASE
    listed.propose()
    assert listed.snapshot["list"]["segment"] == cursor["segment"]


@pytest.fixture
def forwarded(shared_server: ServerProcess) -> Iterator[str]:
    """The server's address through another local port, as ssh -L gives it."""
    port = int(shared_server.url.split(":")[2].split("/")[0])
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = [listener]

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", port))
            except OSError:  # the server is being restarted
                near.close()
                continue
            ends.extend([near, far])
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield shared_server.url.replace(f":{port}/", f":{listener.getsockname()[1]}/")
    listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    for end in ends:
        end.close()


def test_it_works_through_a_forwarded_port(browser, forwarded: str) -> None:
    tab = Tab.open(browser, forwarded)
    hosts = set()
    tab.page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    tab.reload()
    tab.point_at()
    tab.propose()
    tab.decide("f")
    assert hosts == {forwarded.split("/")[2]}
    tab.page.close()
    assert tab.faults == []


def test_a_forwarded_tab_attaches_itself_after_a_restart(
    browser, forwarded: str, shared_server: ServerProcess
) -> None:
    tab = Tab.open(browser, forwarded)
    tab.point_at()
    tab.propose()
    chosen = tab.decide("f")
    address = shared_server.url
    tab.expect_restart()
    assert shared_server.stop() == 0
    tab.page.get_by_role("alert").wait_for()
    shared_server.start()
    assert shared_server.url == address, "port and token are those of before"
    tab.wait_for_restart()
    assert tab.verdicts == {chosen: "accept"}
    assert tab.page.url == forwarded.split("?")[0]
    tab.page.close()
    assert tab.faults == []
