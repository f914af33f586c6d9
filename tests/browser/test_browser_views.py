"""The views that the model saw: beside the suggestion, and the camera flies to them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from browser_harness import ServerProcess, Tab
from page_fakes import BASE

from cb2_assist.core.cameras import CAMERAS

pytestmark = pytest.mark.browser

SITE = "(t) => [...cb2.page.viewer.client.position.value].every((v, i) => Math.abs(v - t[i]) < .01)"


def orientations(tab: Tab) -> dict[str, list[float]]:
    return tab.page.evaluate(
        """() => {
          const client = cb2.page.viewer.client;
          return {
            "3d": [...client.perspectiveNavigationState.pose.orientation.orientation],
            section: [...client.navigationState.pose.orientation.orientation],
          };
        }"""
    )


def turned(tab: Tab, panel: str, wanted: list[float]) -> None:
    """Wait until a panel has exactly an orientation."""
    tab.until(
        """([panel, wanted]) => {
          const {perspectiveNavigationState, navigationState} = cb2.page.viewer.client;
          const state = panel === "3d" ? perspectiveNavigationState : navigationState;
          return [...state.pose.orientation.orientation]
            .every((v, i) => Math.abs(v - wanted[i]) < 1e-6);
        }""",
        [panel, wanted],
    )


def pictures(tab: Tab) -> None:
    tab.until(
        "() => [...document.querySelectorAll('cb2-views img')].every("
        "(i) => i.src.includes(cb2.page.view.selected) && i.complete && i.naturalWidth === 224)"
    )


def view(tab: Tab, name: str):
    return tab.page.locator(f"cb2-views button[data-view={name}]")


def site(tab: Tab) -> list[float]:
    chosen = next(s for s in tab.snapshot["list"]["suggestions"] if s["id"] == tab.selected_id)
    return [v / 10 for v in chosen["point_nm"]]


def test_each_view_stands_there_with_its_own_score(listed: Tab) -> None:
    pictures(listed)
    group = listed.page.get_by_role("group", name="Views that the model saw")
    assert "uncalibrated" in group.inner_text()
    chosen = listed.snapshot["list"]["suggestions"][0]
    for camera, row in zip(CAMERAS, chosen["evidence"]["views"], strict=True):
        assert row["name"] == camera.name
        score = f"{row['score']:.2f}"
        assert view(listed, camera.name).locator(".score").inner_text() == score
        what = "shape seen" if camera.panel == "3d" else "section"
        group.get_by_role("img", name=f"{what} {camera.words}, own score {score}").wait_for()


def test_pictures_follow_the_selection_and_are_fetched_once(listed: Tab) -> None:
    pictures(listed)
    asked: list[str] = []
    listed.page.on("request", lambda r: asked.append(r.url) if "/views/" in r.url else None)
    listed.press("j")
    pictures(listed)
    first = len(asked)
    assert first <= len(CAMERAS)
    listed.press("k")
    pictures(listed)
    listed.press("j")
    pictures(listed)
    fetched = listed.page.evaluate(
        "() => performance.getEntriesByType('resource')"
        ".filter((e) => e.name.includes('/views/') && e.transferSize > 0).map((e) => e.name)"
    )
    assert len(fetched) == len(set(fetched)), "the rest came from the browser's own store"


def test_a_click_turns_one_panel_exactly_to_the_view_and_back(listed: Tab) -> None:
    pictures(listed)
    before = orientations(listed)
    for camera in CAMERAS:
        other = "section" if camera.panel == "3d" else "3d"
        listed.page.evaluate(
            "() => (cb2.page.viewer.client.position.value = Float32Array.of(9, 9, 9))"
        )
        view(listed, camera.name).click()
        turned(listed, camera.panel, list(camera.orientation))
        listed.until(SITE, site(listed))
        assert orientations(listed)[other] == pytest.approx(before[other], abs=1e-6)
        assert view(listed, camera.name).get_attribute("aria-pressed") == "true"
        view(listed, camera.name).click()
        turned(listed, camera.panel, before[camera.panel])
        assert view(listed, camera.name).get_attribute("aria-pressed") == "false"


def test_what_is_on_screen_lies_as_in_the_view(listed: Tab) -> None:
    """Asks the client itself where it draws a point to the right of and above the site."""
    pictures(listed)
    for name, right, up in (
        ("front", [0, -1, 0], [0, 0, 1]),
        ("side", [1, 0, 0], [0, 0, 1]),
        ("top", [1, 0, 0], [0, 1, 0]),
    ):
        camera = next(c for c in CAMERAS if c.name == name)
        view(listed, name).click()
        turned(listed, "3d", list(camera.orientation))
        drawn = listed.page.evaluate(
            """([at, right, up]) => {
              const it = [...cb2.page.viewer.client.display.panels].find((p) =>
                p.projectionParameters?.value?.viewProjectionMat
                && p.viewer?.showSliceViews !== undefined);
              const m = it.projectionParameters.value.viewProjectionMat;
              const draw = (p) => {
                const v = [0, 1, 2, 3].map((r) =>
                  m[r] * p[0] + m[r + 4] * p[1] + m[r + 8] * p[2] + m[r + 12]);
                return [v[0] / v[3], v[1] / v[3]];
              };
              const add = (d) => at.map((v, i) => v + 5 * d[i]);
              return [draw(at), draw(add(right)), draw(add(up))];
            }""",
            [site(listed), right, up],
        )
        (x, y), (right_x, right_y), (up_x, up_y) = drawn
        assert right_x > x + 0.01, name
        assert right_y == pytest.approx(y, abs=1e-3)
        assert up_y > y + 0.01, name
        assert up_x == pytest.approx(x, abs=1e-3)
    view(listed, "top").click()


def test_another_suggestion_turns_the_viewer_back(listed: Tab) -> None:
    pictures(listed)
    before = orientations(listed)
    view(listed, "em_xz").click()
    turned(listed, "section", list(CAMERAS[4].orientation))
    view(listed, "top").click()
    turned(listed, "3d", list(CAMERAS[2].orientation))
    turned(listed, "section", before["section"])
    listed.press("j")
    turned(listed, "3d", before["3d"])
    assert listed.page.locator("cb2-views [aria-pressed=true]").count() == 0


def test_views_are_reached_with_the_keyboard(listed: Tab) -> None:
    pictures(listed)
    before = orientations(listed)
    view(listed, "front").focus()
    listed.press("Tab")
    listed.press("Enter")
    turned(listed, "3d", list(CAMERAS[1].orientation))
    listed.press("Enter")
    turned(listed, "3d", before["3d"])
    chosen = listed.decide("f")
    assert listed.verdicts == {chosen: "accept"}, "the page's keys work from there"


def test_the_selected_row_and_its_views_are_visible_together(listed: Tab) -> None:
    for _ in range(3):
        listed.press("j")
    listed.settle()
    pictures(listed)
    for width, height in ((1920, 1080), (1280, 720)):
        listed.page.set_viewport_size({"width": width, "height": height})
        listed.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => done()))")
        _check_layout(listed, height)


def _check_layout(tab: Tab, height: int) -> None:
    boxes = tab.page.evaluate(
        """() => {
          const box = (e) => { const b = e.getBoundingClientRect();
            return [b.left, b.top, b.right, b.bottom]; };
          const aside = document.querySelector("aside");
          return {
            parts: [...aside.children].filter((e) => !e.hidden).map(box),
            row: box(document.querySelector('[role=option][aria-selected=true]')),
            list: box(document.querySelector("cb2-suggestions")),
            frame: box(document.querySelector("#viewer")), aside: box(aside),
            images: [...document.querySelectorAll("cb2-views img")].map(box),
          };
        }"""
    )
    parts = boxes["parts"]
    for above, below in pairwise(parts):
        assert above[3] <= below[1] + 0.5, "nothing overlaps"
    assert parts[-1][3] <= height + 0.5
    assert boxes["list"][3] - boxes["list"][1] > 180, "the list stays readable"
    assert boxes["row"][1] >= boxes["list"][1] - 0.5
    assert boxes["row"][3] <= boxes["list"][3] + 0.5
    assert boxes["frame"][0] >= boxes["aside"][2] - 0.5, "EM is not hidden"
    assert all(88 <= i[2] - i[0] <= 112 for i in boxes["images"])


def test_pictures_that_are_gone_leave_their_words(
    listed: Tab, shared_server: ServerProcess
) -> None:
    status = listed.page.evaluate(f"fetch('views/{BASE:016x}0/front.png').then((r) => r.text())")
    assert "Press p on its segment" in status
    assert "Traceback" not in shared_server.log_path.read_text()
