"""Chromium, a toy server, and a picture of the page for every test that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_harness import CHROMIUM, FLAGS, ServerProcess, Tab, toy_process
from page_fakes import BASE, write_toy_volume
from playwright.sync_api import Browser, sync_playwright


# Not for the session: Playwright keeps an event loop running in this thread while it is open, and
# tests of other folders run their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_volume(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture
def server(toy_data: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    made = toy_process(toy_data, tmp_path).start()
    yield made
    made.stop()


@pytest.fixture
def tab(browser: Browser, server: ServerProcess) -> Iterator[Tab]:
    made = Tab.open(browser, server.url)
    yield made
    made.page.close()
    assert made.faults == []


@pytest.fixture(scope="module")
def shared_server(toy_data: Path, tmp_path_factory: pytest.TempPathFactory):
    made = toy_process(toy_data, tmp_path_factory.mktemp("shared")).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def shared_tab(browser: Browser, shared_server: ServerProcess) -> Iterator[Tab]:
    made = Tab.open(browser, shared_server.url)
    yield made
    made.page.close()


@pytest.fixture
def listed(shared_tab: Tab) -> Iterator[Tab]:
    """A tab with the middle segment's suggestions and no verdicts; a module's tests share it."""
    shared_tab.reset()
    assert shared_tab.point_at()["segment"] == str(BASE + 13)
    shared_tab.propose()
    yield shared_tab
    assert shared_tab.faults == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if call.when == "call" and report.failed and "browser" in item.fixturenames:
        factory: pytest.TempPathFactory = item._request.getfixturevalue("tmp_path_factory")
        folder = factory.mktemp("failed")
        tab = item.funcargs.get("tab") or item.funcargs.get("shared_tab")
        server = item.funcargs.get("server") or item.funcargs.get("shared_server")
        words = [f"server log: {server.log_path}"] if server else []
        if isinstance(tab, Tab) and not tab.page.is_closed():
            picture = folder / "page.png"
            tab.page.screenshot(path=picture)
            words += [f"screenshot: {picture}", f"status line: {tab.status!r}"]
        report.sections.append(("page", "\n".join(words)))
    return report
