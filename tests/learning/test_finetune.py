from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from beads import bead_dataset
from fixtures_model import EXTENT_NM, tiny_model
from label_makers import decision
from labels_with_views import stack, write_labels

from cb2_assist.core.errors import AssistError, DatasetError, ModelError, UsageError
from cb2_assist.core.records import Kind, Verdict
from cb2_assist.labels.store import NewEvent, open_store
from cb2_assist.learning import finetune_cache
from cb2_assist.learning.evaluate import Request, evaluate
from cb2_assist.learning.export import export_labels
from cb2_assist.learning.finetune import Plan, run_finetune
from cb2_assist.learning.finetune_labels import Source, collect
from cb2_assist.learning.finetune_tokens import Tokens, answers, tokens_of_inputs
from cb2_assist.model.card import ViewSpec, check_card
from cb2_assist.model.checkpoint import load_model
from cb2_assist.model.inputs import network_input
from cb2_assist.model.network import N_TOKENS
from cb2_assist.model.predictor import Predictor
from cb2_assist.views.surroundings import CONTACT_NAMES, MEASURED_NAMES, SHAPE

LABELS = 40
PRETRAINING = {"data": [{"name": "elsewhere", "licence": "CC BY-NC 4.0"}]}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_labels(tmp_path_factory.mktemp("labels") / "labels.sqlite", LABELS)


@pytest.fixture(scope="module")
def tuned(
    labels: str, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, dict]:
    model, out = (tmp_path_factory.mktemp("run") / n for n in ("model", "out"))
    shutil.copytree(tiny_model_folder, model)
    card = json.loads((model / "card.json").read_text())
    (model / "card.json").write_text(json.dumps(card | {"pretraining": PRETRAINING}))
    plan = Plan(Source(labels=labels), model, out)
    return plan, run_finetune(plan, str)


def base_part(folder: Path, px: int = 32, extent_nm: float = EXTENT_NM) -> Path:
    """60 prepared joins and 40 cuts, as `train` leaves them."""
    n, rng = 100, np.random.default_rng(5)
    answer = np.arange(n) % 2 == 0
    features = rng.normal(0, 1, (n, len(MEASURED_NAMES))).astype(np.float32)
    features[:, 30:40] += np.where(answer, 2, -2)[:, None]
    folder.mkdir()
    np.zeros((n, 3, 7, px, px), np.float16).tofile(folder / "geometry.raw")
    np.full((n, 3, 3, px, px), 128, np.uint8).tofile(folder / "em.raw")
    np.savez(
        folder / "rows.npz",
        features=features,
        neighbours=np.zeros((n, *SHAPE), np.float32),
        contacts=np.full((n, *SHAPE[:2]), -1, np.int8),
        task=np.where(np.arange(n) < 60, 0, 1),
        answer=answer,
        sample_type=np.full(n, "touching_pair"),
        group=np.arange(n) // 4,
        point_nm=np.zeros((n, 3)),
        z=np.arange(n),
        segment=np.arange(n, dtype=np.uint64),
        partner=np.arange(n, dtype=np.uint64) + n,
    )
    meta = {
        "name": "base",
        "n": n,
        "shapes": {"geometry": [3, 7, px, px], "em": [3, 3, px, px]},
        "profile": "clean",
        "extent_nm": extent_nm,
        "features": list(MEASURED_NAMES),
        "contact": list(CONTACT_NAMES),
    }
    (folder / "part.json").write_text(json.dumps(meta))
    return folder


def test_labels_make_a_model_that_answers_held_out_ones_better(tuned):
    plan, report = tuned
    held = report["held_out"]["join"]
    assert report["verdict"]["is"] == "better"
    assert held["after"]["balanced_accuracy"]["value"] == 1.0
    assert held["change"]["log_loss"]["ci95"][1] < 0
    counts = report["labels"]
    assert counts["n_learnt"] + counts["n_held_out"] + counts["n_apart"] == LABELS
    assert (plan.out / "report.md").read_text().startswith("# tiny+demo, fine-tuned from tiny")
    assert load_model(plan.out / "model").sha256 == report["model"]["sha256"]


def test_the_card_says_what_the_model_was_made_from_and_under_which_licences(
    tuned, tiny_model_folder
):
    plan, _ = tuned
    card = check_card(plan.out / "model").card
    assert card["parent"] == {"name": "tiny", "sha256": check_card(tiny_model_folder).sha256}
    wanted = {"name": "demo", "version": "v1", "species": "fly", "licence": "CC-BY-4.0"}
    assert card["data"] == [{**wanted, "labels": LABELS}]
    assert card["pretraining"] == PRETRAINING
    assert card["finetune"]["verdict"]["is"] == "better"
    assert card["calibration"]["join"]["n"] == card["finetune"]["labels"]["n_learnt"]
    assert card["base_rates"] == check_card(tiny_model_folder).card["base_rates"]


def test_the_same_command_gives_the_same_weights_and_reads_no_views_twice(
    tuned, tmp_path, monkeypatch
):
    plan, report = tuned
    again = replace(plan, out=tmp_path / "again")
    shutil.copytree(plan.out / "work", again.out / "work")

    def read(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(finetune_cache.Reader, "read", read)
    assert run_finetune(again, str)["model"]["sha256"] == report["model"]["sha256"]
    assert run_finetune(plan, str) == report
    with pytest.raises(UsageError, match="other labels, options or model"):
        run_finetune(replace(plan, seed=1), str)


def test_with_base_data_more_is_fitted_and_what_is_forgotten_is_measured(
    labels, tiny_model_folder, tmp_path
):
    plan = Plan(
        Source(labels=labels),
        tiny_model_folder,
        tmp_path / "out",
        replay=(base_part(tmp_path / "base"),),
        held_out=0.05,
        level="decision",
        steps=3,
    )
    report = run_finetune(plan, str)
    assert set(report["base"]) == {"join", "cut"}
    assert report["fit"]["replay_share"] == 0.5
    card = check_card(plan.out / "model")
    before, after = load_model(tiny_model_folder).network, load_model(plan.out / "model").network
    assert (before.fusion.in_proj_weight != after.fusion.in_proj_weight).any()
    assert (before.em_patches.weight == after.em_patches.weight).all()
    assert card.ood is not None
    assert card.card["ood"]["n_training"] == report["labels"]["n_learnt"] + 100 - sum(
        f["n"] for f in report["base"].values()
    )


def test_base_data_for_another_model_is_refused(labels, tiny_model_folder, tmp_path):
    plan = Plan(Source(labels=labels), tiny_model_folder, tmp_path / "out")
    other = base_part(tmp_path / "base", extent_nm=500.0)
    with pytest.raises(DatasetError, match="500 nm at 32 px"):
        run_finetune(replace(plan, replay=(other,)), str)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no base data"):
        run_finetune(replace(plan, replay=(tmp_path / "empty",)), str)
    with pytest.raises(UsageError, match="needs base data"):
        run_finetune(replace(plan, level="decision"), str)


@pytest.mark.parametrize(
    ("n", "accepted", "source", "kind", "words"),
    [
        (0, 0.5, {}, DatasetError, "no label to learn from: none was recorded"),
        (10, 1.0, {}, DatasetError, "10 joins, 10 of them accepted"),
        (3, 0.4, {"dataset": "other"}, DatasetError, r"no label of 'other'.*demo \(3\)"),
        (3, 0.4, {"version": "v9"}, DatasetError, r"segmentation 'v9'.*v1 \(3\)"),
    ],
)
def test_labels_that_cannot_be_learnt_from_are_named(
    n, accepted, source, kind, words, tiny_model_folder, tmp_path
):
    url = write_labels(tmp_path / "labels.sqlite", n, accepted=accepted)
    plan = Plan(Source(labels=url, **source), tiny_model_folder, tmp_path / "out")
    with pytest.raises(kind, match=words):
        run_finetune(plan, str)
    assert not (plan.out / "model").exists()


def test_a_model_that_sees_other_views_than_people_did_is_refused(labels, tmp_path):
    wide = tiny_model(tmp_path / "wide", views=ViewSpec(extent_nm=640.0, image_px=32))
    with pytest.raises(ModelError, match=r"wants clean views of 640 nm.*clean views of 320 nm"):
        run_finetune(Plan(Source(labels=labels), wide, tmp_path / "out"), str)


def test_labels_of_two_datasets_are_not_mixed_unasked(tmp_path):
    write_labels(tmp_path / "labels.sqlite", 2)
    url = write_labels(tmp_path / "labels.sqlite", 2, kind=Kind.CUT, dataset="other")
    with pytest.raises(UsageError, match=r"several datasets: demo \(2\), other \(2\)"):
        collect(Source(labels=url))
    found = collect(Source(labels=url, dataset="other"))
    assert [r.kind for r in found.rows] == [Kind.CUT, Kind.CUT]
    assert found.left_out["of another dataset"] == 2


def test_two_people_on_one_site_count_once_and_not_at_all_when_they_disagree(tmp_path):
    path = tmp_path / "labels.sqlite"
    write_labels(path, 2, accepted=0.1)
    for name in ("bob", "eve"):
        # both reject what one person accepted and another rejected
        write_again(path, name, Kind.JOIN)
    found = collect(Source(labels=f"sqlite:///{path}"))
    assert [r.answer for r in found.rows] == [False, False]
    assert found.left_out["the same site again"] == 4
    write_again(path, "zoe", Kind.JOIN, accepted=1.0)
    found = collect(Source(labels=f"sqlite:///{path}"))
    assert found.left_out["people disagree on the site"] == 4


def write_again(path: Path, user: str, kind: Kind, accepted: float = 0.0) -> None:
    """Another person on the same two sites, without views."""
    with open_store(f"sqlite:///{path}") as store:
        seen = {e.decision.suggestion.id: e.decision for e in store.events() if e.decision}
        verdict = Verdict.ACCEPT if accepted else Verdict.REJECT
        for k, d in enumerate(seen.values()):
            given = decision(k, verdict, key=f"{user}-{k}", kind=kind)
            store.append(NewEvent.of(replace(given, suggestion=d.suggestion, user=user)))


@pytest.mark.parametrize("format_", ["jsonl", "cb2-v1"])
def test_an_export_can_be_learnt_from_elsewhere_and_evaluated(
    format_, labels, tiny_model_folder, tmp_path
):
    out = tmp_path / "export"
    with open_store(labels, read_only=True) as store:
        export_labels(store, out=out, format=format_, with_views=format_ == "jsonl")
    report = run_finetune(Plan(Source(data=out), tiny_model_folder, tmp_path / "run"), str)
    assert report["labels"]["n"] == LABELS
    assert report["labels"]["licences"] == {"CC-BY-4.0": LABELS}
    assert report["verdict"]["is"] == "better"
    if format_ == "jsonl":
        return
    asked = Request(data=out, model=tmp_path / "run/model", out=tmp_path / "ev", split="all",
                    draws=20)  # fmt: skip
    join = evaluate(asked, str)["tasks"]["join"]
    assert join["n"] == LABELS
    assert join["auroc"]["value"] == 1.0


def test_a_damaged_export_is_named_by_its_line(tiny_model_folder, tmp_path):
    (tmp_path / "labels.jsonl").write_text('{"kind": "join"}\n')
    with pytest.raises(DatasetError, match=r"labels\.jsonl line 1 is no label"):
        run_finetune(Plan(Source(data=tmp_path), tiny_model_folder, tmp_path / "out"), str)
    with pytest.raises(AssistError, match="There is no"):
        collect(Source(data=tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="--data DIR"):
        collect(Source())


def test_what_is_fitted_and_measured_is_what_the_program_will_answer(tiny_model_folder):
    model = load_model(tiny_model_folder)
    stacks = [stack(k, is_true=k > 1) for k in range(3)]
    kinds = [Kind.JOIN, Kind.CUT, Kind.JOIN]
    predictor = Predictor(model, threads=1, backend="torch")
    try:
        wanted = [(o.logit, o.embedding) for o in predictor.predict(stacks, kinds)]
    finally:
        predictor.close()
    tokens = tokens_of_inputs(
        model.network,
        [network_input(s, model.views.image_px) for s in stacks],
        np.ones((3, N_TOKENS), bool),
        np.array([0, 1, 0]),
        np.ones(3, bool),
    )
    logits, embeddings = answers(model.network, tokens)
    assert logits == pytest.approx([logit for logit, _ in wanted], abs=1e-4)
    assert embeddings == pytest.approx(np.stack([e for _, e in wanted]), abs=1e-4)


def test_base_data_is_made_from_a_dataset_with_truth_and_seen_once(
    tiny_model_folder, tmp_path, monkeypatch
):
    dataset = bead_dataset(tmp_path / "beads")
    model = load_model(tiny_model_folder)

    def replay() -> tuple[Tokens, np.ndarray]:
        return finetune_cache.replay_tokens(
            (dataset,), None, model, model.network, tmp_path, seed=0, say=str
        )

    tokens, group = replay()
    assert len(tokens) == len(group) > 10
    monkeypatch.setattr(finetune_cache, "tokens_of_part", None)
    again, _ = replay()
    assert (again.views == tokens.views).all()
