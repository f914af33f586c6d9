"""A server on fakes and a page that talks to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from page_harness import Page, Served, start
from tornado.ioloop import IOLoop


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "seg").mkdir()
    (tmp_path / "seg" / "info").write_text('{"type": "segmentation"}')
    running = start(tmp_path)
    yield running
    running.server.stop()


@pytest.fixture
def loop() -> Iterator[IOLoop]:
    made = IOLoop(make_current=False)
    yield made
    made.close()


@pytest.fixture
def page(served: Served, loop: IOLoop) -> Iterator[Page]:
    made = Page(served, loop)
    yield made
    made.close()
