"""A blind suggestion shows its number after the answer and not before."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing

import pytest
from browser_harness import Tab, toy_process

pytestmark = pytest.mark.browser


@pytest.fixture
def server(toy_data, tmp_path):
    plain = toy_process(toy_data, tmp_path)
    made = dataclasses.replace(plain, command=[*plain.command, "--blind"]).start()
    yield made
    made.stop()


def test_the_number_comes_with_the_answer_and_the_label_says_so(tab: Tab, tmp_path) -> None:
    tab.point_at()
    tab.propose()
    rows = tab.rows
    words = rows.locator(".confidence").all_inner_texts()
    assert set(words) == {"score hidden"}
    assert len(words) > 1
    assert "%" not in rows.first.inner_text()
    markers = tab.viewer_state()["markers"]
    assert len(markers) == len(words)
    assert {m["properties"][0] for m in markers} == {0.5}, "all of one colour"
    chosen = tab.decide("f")
    row = tab.row(chosen)
    assert (row["scoreHidden"], row["verdict"]) == ("false", "accept")
    assert 0 < float(row["confidence"]) < 1
    text = tab.page.locator(f"#option-{chosen} .confidence").inner_text()
    assert text.endswith("%") or text == "not reliable here"
    tab.decide("u")
    assert tab.row(chosen)["scoreHidden"] == "false", "it has been seen"
    with closing(sqlite3.connect(tmp_path / "labels.sqlite")) as labels:
        (hidden,) = labels.execute(
            "SELECT json_extract(body, '$.score_hidden') FROM events WHERE event = 'decision'"
        ).fetchone()
    assert hidden == 1
