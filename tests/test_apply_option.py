"""What --apply means for a dataset, said at the start."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from cb2_assist.app_server import ServeOptions, _applying
from cb2_assist.cli.main import cli
from cb2_assist.datasets.source import EditableSource
from cb2_assist.labels.sqlite import SqliteLabelStore

INFO = SimpleNamespace(name="mini")


def said(source, mode: str, store: SqliteLabelStore) -> tuple[object, list[str]]:
    words: list[str] = []
    options = ServeOptions(user="ada", apply=mode)
    assistant = SimpleNamespace(source=source, sides_at=None)
    return _applying(assistant, store, SimpleNamespace(), options, words.append), words


@pytest.fixture
def store(tmp_path):
    with SqliteLabelStore(tmp_path / "labels.sqlite") as opened:
        yield opened


@pytest.mark.parametrize("mode", ["stage", "live"])
@pytest.mark.parametrize(
    "source",
    [SimpleNamespace(info=INFO), SimpleNamespace(info=INFO, editor=None)],
    ids=["plain volume", "pinned graph"],
)
def test_what_cannot_be_edited_says_so_and_nothing_is_applied(source, mode, store):
    applying, words = said(source, mode, store)
    assert applying is None
    assert words == ["mini is read only: decisions are logged, nothing is applied"]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("stage", "accepted edits of mini wait in a list; y applies them, one by one"),
        (
            "live",
            "accepted joins are applied to mini after 3 s, which u cancels; cuts wait for y",
        ),
    ],
)
def test_what_can_be_edited_says_how(mode, words, store):
    source = SimpleNamespace(info=INFO, editor=SimpleNamespace())
    assert isinstance(source, EditableSource)
    applying, told = said(source, mode, store)
    assert told == [words]
    assert applying.to_json() == {"mode": mode, "waiting": [], "ended": [], "sides": None}
    assert applying.close(30)


def test_off_is_the_default_and_quiet_without_a_graph(store):
    assert ServeOptions(user="ada").apply == "off"
    assert said(SimpleNamespace(info=INFO), "off", store) == (None, [])


def test_another_word_is_refused():
    done = CliRunner().invoke(cli, ["serve", "--dataset", "demo", "--apply", "all"])
    assert done.exit_code == 2
    assert "'off', 'stage', 'live'" in done.output
