"""Commands on a graph behind a CAVE server, over real HTTP, beside the same volume on disk."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator

import pytest
from cave_worlds import EDITOR, NEWCOMER, STRANGER, CaveWorld, cave_world, own_home

from cb2_assist.app import open_assistant
from cb2_assist.cli import options
from cb2_assist.core.errors import LoginError, UntrustedHostError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, Verdict
from cb2_assist.datasets.cave.login import find_token, missing
from cb2_assist.datasets.cave.trust import trusted_file
from cb2_assist.datasets.registry import open_dataset
from cb2_assist.decisions.labels import open_labels

AT = "485,365,625"


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory) -> Iterator[pytest.MonkeyPatch]:
    with own_home(tmp_path_factory.mktemp("home")) as patch:
        yield patch


@pytest.fixture(scope="module")
def world(tmp_path_factory, neurites_file) -> Iterator[CaveWorld]:
    # the same species: views and calibration follow it
    about = '[dataset]\nname = "graph"\nspecies = "fly"\nlicence = "CC0 1.0"'
    with cave_world(tmp_path_factory.mktemp("cave"), neurites_file, about) as world:
        yield world


@pytest.fixture
def model(tiny_model_folder):
    return ["--model", tiny_model_folder, "--device", "cpu"]


def as_answered(document: dict) -> list[tuple]:
    """What a list says apart from names."""
    return sorted(
        (s["kind"], *s["point_nm"], s["score"], s["confidence"], *s["interval"])
        for s in document["suggestions"]
    )


def test_suggest_answers_as_on_the_same_volume_on_disk(call, world, model, neurites_file) -> None:
    asked = ["--at", AT, "--json"]
    code, out, err = call("suggest", "--dataset-file", world.file, *model, *asked)
    assert (code, err) == (0, "")
    graph = json.loads(out)
    _, out, _ = call("suggest", "--dataset-file", neurites_file, *model, *asked)
    disk = json.loads(out)
    assert as_answered(graph) == as_answered(disk)
    assert {s["kind"] for s in graph["suggestions"]} == {"join", "cut"}
    join = next(s for s in graph["suggestions"] if s["kind"] == "join")
    assert join["affinity"] > 0
    assert all(int(part) >> 56 == 1 for part in join["supervoxels"])
    assert graph["timestamp"].endswith("Z")
    assert disk["timestamp"] is None


def test_a_decision_keeps_supervoxels_roots_and_time(world, tiny_model_folder, tmp_path) -> None:
    with (
        open_assistant(world.file, model=tiny_model_folder, device="cpu") as assistant,
        open_labels(f"sqlite:///{tmp_path / 'labels.sqlite'}") as labels,
    ):
        found = assistant.suggest(PointNm(485, 365, 625))
        join = next(s for s in found.suggestions if s.site.kind is Kind.JOIN)
        decided = assistant.decide(join, Verdict.ACCEPT, labels=labels, user="ada")
        kept = labels.log(assistant.info, "ada").event(decided.id).decision
        graph = assistant.source._graph
        assert kept.timestamp == found.timestamp == assistant.source.timestamp
        assert (kept.suggestion.site.segment, kept.suggestion.site.partner) == tuple(
            graph.root_of(part, assistant.source._objects.time) for part in kept.supervoxels
        )
        assert kept.suggestion.affinity == join.affinity
        assert kept.version == world.cave.deployment.names.table


def test_doctor_looks_at_every_part(call, world) -> None:
    code, out, _ = call("doctor", "--dataset-file", world.file, "--json")
    checks = {c["name"]: c for c in json.loads(out)["checks"]}
    parts = ("login", "info", "graph", "terms", "em", "segmentation", "meshes")
    assert {checks[p]["state"] for p in parts} == {"ok"}, [checks[p] for p in parts]
    assert "CAVE_TOKEN" in checks["login"]["text"]
    assert EDITOR.token not in out
    assert code in (0, 1)


@pytest.mark.parametrize(
    ("token", "failing", "words"),
    [
        ("d0" * 16, "info", "settings/tokens"),
        (NEWCOMER.token, "terms", "accept, then run this again"),
        (STRANGER.token, "terms", "Ask the dataset's owners"),
    ],
)
def test_doctor_says_what_to_do_about_an_account(call, world, token, failing, words) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAVE_TOKEN", token)
        code, out, err = call("doctor", "--dataset-file", world.file, "--json")
    checks = {c["name"]: c for c in json.loads(out)["checks"]}
    assert code == 1
    assert checks[failing]["state"] == "fail"
    assert words in checks[failing]["text"]
    others = {p: checks[p]["state"] for p in ("login", "info", "graph") if p in checks}
    assert [p for p, state in others.items() if state == "fail"] == (
        ["info"] if failing == "info" else []
    )
    assert token not in out + err


def test_a_token_goes_to_no_host_that_nobody_approved(call, tmp_path) -> None:
    file = tmp_path / "cave.toml"
    file.write_text('[cave]\ndatastack = "trap"\nserver = "https://trap.example"\n')
    with pytest.raises(UntrustedHostError) as refused:
        open_dataset(None, file)
    assert "--trust trap.example" in str(refused.value)
    code, _, err = call("doctor", "--trust", "trap.example")
    assert code == 0
    assert "trap.example" in err
    kept = trusted_file()
    assert json.loads(kept.read_text())["hosts"] == ["trap.example"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    kept.unlink()
    code, _, err = call("doctor", "--trust", "https://trap.example/path")
    assert (code, "without https" in err) == (2, True)


def test_datasets_names_login_sources_and_what_nobody_verified(call) -> None:
    code, out, _ = call("datasets", "--offline", "--json")
    rows = {row["name"]: row for row in json.loads(out)["datasets"]}
    assert code == 0
    assert rows["minnie65"]["needs_login"]
    assert not rows["minnie65-static"]["needs_login"]
    assert "not verified" in rows["banc"]["note"]
    _, out, _ = call("datasets", "--offline")
    assert "minnie65-static" in out
    assert "[cave]" in out


class TestAsking:
    """Who sits at a terminal is asked for a token that is missing, once."""

    SERVER = "https://global.example.org"

    @pytest.fixture
    def opened(self, monkeypatch, tmp_path) -> list[str | None]:
        """The token, or None, that each attempt to open the dataset found."""
        found: list[str | None] = []
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("CAVE_TOKEN")

        def build(*_parts, **_options):
            token = find_token(self.SERVER)
            found.append(None if token is None else token.value)
            if token is None:
                raise missing(self.SERVER, "graph")
            return "an assistant"

        monkeypatch.setattr("cb2_assist.app.build_assistant", build)
        return found

    def open(self) -> object:
        return options.open_assistant("minnie65", None, None, "cpu", "auto")

    def test_it_is_asked_kept_and_used(self, opened, monkeypatch, capsys) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("click.prompt", lambda *_, **__: EDITOR.token)
        assert self.open() == "an assistant"
        assert opened == [None, EDITOR.token]
        said = capsys.readouterr().err
        assert f"{self.SERVER}/sticky_auth/settings/tokens" in said
        assert EDITOR.token not in said

    def test_no_answer_is_no_second_question(self, opened, monkeypatch) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("click.prompt", lambda *_, **__: "")
        with pytest.raises(LoginError, match="settings/tokens"):
            self.open()
        assert opened == [None]

    def test_a_script_is_not_asked(self, opened, monkeypatch) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: False)
        monkeypatch.setattr("click.prompt", lambda *_, **__: pytest.fail("asked"))
        with pytest.raises(LoginError):
            self.open()
        assert opened == [None]
