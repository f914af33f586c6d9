"""The programming interface: what a script decides is what the page would have recorded."""

from __future__ import annotations

import dataclasses
import json
import logging
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from fixtures_model import tiny_model

import cb2_assist
from cb2_assist import (
    PointNm,
    Verdict,
    export_labels,
    open_assistant,
    open_dataset,
    open_labels,
)
from cb2_assist.app import saved_state_file
from cb2_assist.core.errors import (
    AssistError,
    DatasetError,
    DecisionError,
    LabelFileLockedError,
    LabelFileReadOnlyError,
    UnknownDatasetError,
    UsageError,
)
from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.labels.lock import acquire_server_lock
from cb2_assist.labels.store import LabelState, label_file, labels_url
from cb2_assist.review.answers import Answer
from cb2_assist.review.session import ReviewSession
from cb2_assist.review.state import Cursor, StateFile
from cb2_assist.suggestions.base_rate import SavedState, write_state

AT = PointNm(485, 365, 625)

pytestmark = pytest.mark.usefixtures("own_data_home")


@pytest.fixture(scope="module")
def assistant(neurites_file, tiny_model_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("home")))
        with open_assistant(neurites_file, model=tiny_model_folder, device="cpu") as opened:
            yield opened


@pytest.fixture
def labels(tmp_path):
    with open_labels(tmp_path / "labels.sqlite") as opened:
        yield opened


def decision_of(labels, event):
    return labels.store.get(event.id).decision


# -- the package


def test_importing_the_package_loads_nothing_but_itself():
    code = "import sys, cb2_assist; print(sorted(m for m in sys.modules if 'cb2_assist' in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['cb2_assist']"


def test_every_exported_name_is_there_and_others_are_not():
    for name in cb2_assist.__all__:
        assert getattr(cb2_assist, name).__name__ == name
        assert name in dir(cb2_assist)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cb2_assist.nothing  # noqa: B018
    assert (Path(cb2_assist.__file__).parent / "py.typed").is_file()


def test_a_dataset_opens_by_name_by_file_and_by_folder(neurites_file, monkeypatch):
    for given in (neurites_file, str(neurites_file), neurites_file.parent):
        source = open_dataset(given)
        assert source.info.name == "neurites"
        source.close()
    monkeypatch.chdir(neurites_file.parent)
    assert open_dataset("dataset.toml").info.name == "neurites"
    with pytest.raises(UnknownDatasetError, match="demo"):
        open_dataset("moon")
    with pytest.raises(AssistError, match="no dataset file"):
        open_dataset("no/such/folder")


# -- decisions

MAY_DIFFER = ("user", "key", "idempotency_key", "shown_at", "decided_at", "idle_ms", "propensity")


def test_a_decision_has_the_fields_that_the_page_records(assistant, labels, tmp_path):
    info = assistant.info
    session = ReviewSession(
        assistant,
        labels.log(info, "page"),
        labels.views,
        user="page",
        state=StateFile(tmp_path / "state.json"),
    )
    session.proposals.propose(session.proposals.begin(Cursor(AT, None)), Cursor(AT, None))
    found = session.screen.list
    chosen = found.suggestions[1]
    session.decide(Answer(chosen.id, Verdict.REJECT, "k", "d", 2000.0, 0.0, 100.0))
    session.close(30)
    by_page = next(iter(labels.log(info, "page").history())).decision

    found = assistant.suggest(AT)
    event = assistant.decide(found.suggestions[1], "reject", labels=labels, user="script")
    by_script = decision_of(labels, event)

    def fixed(decision):
        document = dataclasses.asdict(decision)
        return {k: v for k, v in document.items() if k not in MAY_DIFFER}

    assert fixed(by_script) == fixed(by_page)
    assert by_script.views_sha256 is not None
    assert (by_script.user, by_script.key, by_script.propensity) == (
        "script",
        "",
        {"how": "script"},
    )
    shown, decided = (datetime.fromisoformat(t) for t in (by_script.shown_at, by_script.decided_at))
    assert shown <= decided
    assert len(by_script.alternatives) == len(found.suggestions)


def test_what_the_model_saw_is_kept_and_is_the_same_when_it_is_made_again(assistant, labels):
    chosen = assistant.suggest(AT).suggestions[0]
    seen = assistant.views_of(chosen.id)
    assistant._models.pipeline._recent.clear()
    event = assistant.decide(chosen, "accept", labels=labels)
    sha256 = decision_of(labels, event).views_sha256
    assert (sha256, labels.views.get(sha256)) == seen


def test_views_are_not_kept_when_not_wanted(assistant, tmp_path):
    chosen = assistant.suggest(AT).suggestions[0]
    with open_labels(tmp_path / "l.sqlite", keep_views=False) as labels:
        event = assistant.decide(chosen, "accept", labels=labels)
        assert decision_of(labels, event).views_sha256 is None
        assert not Path(labels.store.views_folder).exists()


def test_a_verdict_is_recorded_even_where_its_views_cannot_be_had(
    assistant, labels, monkeypatch, caplog
):
    chosen = assistant.suggest(AT).suggestions[0]
    assistant._models.pipeline._recent.clear()

    def fail(_site):
        raise AssistError("the disk fell over")

    monkeypatch.setattr(assistant._models.pipeline, "render", fail)
    with caplog.at_level(logging.WARNING):
        event = assistant.decide(chosen, Verdict.ACCEPT, labels=labels)
    assert decision_of(labels, event).views_sha256 is None
    assert "the disk fell over" in caplog.text


def test_undo_and_redo_are_events_of_one_person(assistant, labels):
    first, second = assistant.suggest(AT).suggestions[:2]
    for user in ("ada", "bob"):
        assistant.decide(first, "accept", labels=labels, user=user)
    last = assistant.decide(second, "reject", labels=labels, user="ada")
    assert assistant.undo(labels=labels, user="ada").target == last.id
    states = {(x.event.user, x.site): x.state for x in labels}
    assert states["ada", second.id] is LabelState.UNDONE
    assert states["bob", first.id] is LabelState.IN_FORCE
    assert assistant.redo(labels=labels, user="ada").target == last.id
    for user in ("ada", "ada", "bob"):
        assistant.undo(labels=labels, user=user)
    with pytest.raises(DecisionError, match="no decision of bob"):
        assistant.undo(labels=labels, user="bob")


def test_the_same_key_again_is_the_same_event_and_no_key_is_always_a_new_one(assistant, labels):
    chosen = assistant.suggest(AT).suggestions[0]
    first = assistant.decide(chosen, "accept", labels=labels, idempotency_key="row 7")
    again = assistant.decide(chosen, "accept", labels=labels, idempotency_key="row 7")
    assert first.id == again.id
    other = assistant.decide(chosen, "accept", labels=labels)
    assert other.id > first.id


def test_none_of_these_rejects_the_open_joins_of_the_list(assistant, labels):
    joins = assistant.suggest(AT, kind=Kind.JOIN).suggestions
    assistant.decide(joins[0], "none", labels=labels)
    assert {(x.site, x.verdict) for x in labels} == {(s.id, Verdict.REJECT) for s in joins}


def test_an_answer_goes_with_the_list_that_its_suggestion_came_from(assistant, labels):
    joins = assistant.suggest(AT, kind=Kind.JOIN).suggestions
    list(assistant.score([joins[0].site]))
    decision = decision_of(labels, assistant.decide(joins[0], "none", labels=labels))
    assert [a["id"] for a in decision.alternatives] == [s.id for s in joins]


def test_scored_sites_can_be_decided(assistant, labels):
    site = assistant.suggest(AT).suggestions[0].site
    (answer,) = assistant.score([site])
    decision = decision_of(labels, assistant.decide(answer.suggestion, "unsure", labels=labels))
    assert decision.suggestion == answer.suggestion
    assert decision.propensity == {"how": "given"}
    assert decision.rank == 0
    assert len(decision.alternatives) == 1


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "x/" + "y" * 300])
def test_a_path_that_cannot_be_looked_at_is_said(path):
    with pytest.raises(DatasetError):
        open_dataset(path)


def test_what_cannot_be_decided_is_refused_with_what_to_do(assistant, labels):
    chosen = assistant.suggest(AT).suggestions[0]
    with pytest.raises(UsageError, match=r"no verdict 'yes'\. Known: accept, reject"):
        assistant.decide(chosen, "yes", labels=labels)
    stranger = dataclasses.replace(chosen, id="0" * 16)
    with pytest.raises(DecisionError, match="call suggest or score again"):
        assistant.decide(stranger, "accept", labels=labels)
    with (
        open_labels(labels.url, read_only=True) as beside,
        pytest.raises(LabelFileReadOnlyError, match="Nothing was recorded"),
    ):
        assistant.decide(chosen, "accept", labels=beside)
    assert list(labels) == []


# -- label files


def test_a_file_that_a_server_uses_is_refused_by_the_address_of_its_page(tmp_path):
    path = tmp_path / "labels.sqlite"
    with (
        acquire_server_lock(path, {"url": "http://127.0.0.1:4321/"}),
        pytest.raises(
            LabelFileLockedError, match=r"server \(process \d+ at http://127\.0\.0\.1:4321/"
        ),
    ):
        open_labels(path)
    with open_labels(path):
        pass


def test_a_script_keeps_servers_and_other_scripts_out_until_it_closes(tmp_path):
    url = labels_url(tmp_path / "labels.sqlite")
    with open_labels(url) as labels:
        with pytest.raises(LabelFileLockedError, match="another cb2-assist script"):
            open_labels(url)
        with pytest.raises(LabelFileLockedError, match="stop that script"):
            acquire_server_lock(label_file(url), {"url": ""})
        with open_labels(url, read_only=True) as beside:
            assert list(beside) == []
        assert labels.url == url
    labels.close()
    acquire_server_lock(label_file(url), {"url": ""}).close()


def test_a_file_that_cannot_be_opened_leaves_no_lock(tmp_path):
    path = tmp_path / "labels.sqlite"
    path.write_text("not a database, but a text that is long enough to look like a file" * 20)
    for _ in range(2):
        with pytest.raises(AssistError) as caught:
            open_labels(path)
        assert not isinstance(caught.value, LabelFileLockedError)


def test_labels_of_a_script_are_exported(assistant, labels, tmp_path):
    chosen = assistant.suggest(AT).suggestions[0]
    assistant.decide(chosen, "accept", labels=labels, user="ada")
    report = export_labels(labels.store, out=tmp_path / "out")
    (row,) = (json.loads(x) for x in report.files[0].read_text().splitlines())
    assert row["licence"] == "CC0 1.0"
    assert "ada" not in json.dumps(row)


def test_another_model_answers_from_now_on_and_every_list_and_decision_names_its_own(
    neurites_file, tiny_model_folder, labels, tmp_path
):
    other = tiny_model(tmp_path / "other", seed=1)
    with open_assistant(neurites_file, model=tiny_model_folder, device="cpu") as assistant:
        before = assistant.suggest(AT)
        told = assistant.use_model(other)
        after = assistant.suggest(AT)
        assert after.model_sha256 == told["sha256"] != before.model_sha256
        assert [s.score for s in after.suggestions] != [s.score for s in before.suggestions]
        # what is on screen is still of the one before, and is recorded so
        events = [assistant.decide(f.suggestions[0], "accept", labels=labels, user=user)
                  for f, user in ((before, "ada"), (after, "bob"))]  # fmt: skip
        named = [decision_of(labels, e).model_sha256 for e in events]
        assert named == [before.model_sha256, after.model_sha256]
        (other / "card.json").write_text("{}")
        with pytest.raises(AssistError, match="format"):
            assistant.use_model(other)
        assert assistant.suggest(AT).model_sha256 == after.model_sha256
        assert assistant.use_model(tiny_model_folder)["sha256"] == before.model_sha256
        again = assistant.suggest(AT)
        assert [s.score for s in again.suggestions] == [s.score for s in before.suggestions]


def test_a_calibration_that_was_saved_since_is_taken_up_on_request(
    neurites_file, tiny_model_folder
):
    with open_assistant(neurites_file, model=tiny_model_folder, device="cpu") as assistant:
        before = assistant.suggest(AT)
        rates = {Kind.JOIN: BaseRate(0.9, "labels", 100)}
        write_state(saved_state_file(assistant.info.name), SavedState(rates, version=1))
        assert assistant.suggest(AT).calibrator == before.calibrator
        assistant.use_model()
        after = assistant.suggest(AT)
        assert after.calibrator != before.calibrator
        assert after.base_rates[Kind.JOIN].value == 0.9
        same = {s.id: s.score for s in before.suggestions}
        assert {s.id: s.score for s in after.suggestions} == same
