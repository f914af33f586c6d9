"""`/report`: what has been done, for the person whose server it is."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from label_makers import decision
from page_harness import start

from cb2_assist.labels.store import NewEvent, open_store


@pytest.fixture
def serving(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/labels.sqlite") as store:
        for n in range(6):
            store.append(NewEvent.of(decision(n, user="tester")))
            store.append(NewEvent.of(decision(n, user="<script>x", key=f"other-{n}")))
        running = start(tmp_path, store)
        yield running, store
        running.server.stop()


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, _attrs) -> None:
        self.seen.append(tag)


def test_the_page_and_its_document_say_the_same(serving) -> None:
    running, _ = serving
    status, headers, data = running.ask("GET", "/report", running.reading)
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    text = data.decode()
    tags = Tags(text).seen
    assert "script" not in tags
    assert tags.count("h1") == 1
    assert tags.count("table") >= 3
    status, headers, data = running.ask("GET", "/report.json", running.reading)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    document = json.loads(data)
    assert document["label_counts"]["n"] == 12
    assert [p["person"] for p in document["people"]] == ["tester"]
    assert "12 labels that are in force" in text


def test_labels_that_cannot_be_read_are_told(serving) -> None:
    running, store = serving
    store.close()
    status, _, data = running.ask("GET", "/report", running.reading)
    assert status == 500
    assert b"has been closed" in data
    assert b"Traceback" not in data


def test_without_the_secret_there_is_nothing(serving) -> None:
    running, _ = serving
    assert running.ask("GET", "/report", {"Host": running.host})[0] == 403
