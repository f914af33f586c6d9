"""A model on stored decisions: one score an operation, and everything else is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fixtures_model import tiny_model
from release_makers import geometry_blob, release_row, release_rows, write_shards

from cb2_assist.core.errors import DatasetError, ModelError
from cb2_assist.core.records import Kind
from cb2_assist.learning.cb2_decisions import read_decisions
from cb2_assist.learning.cb2_decode import decode
from cb2_assist.learning.cb2_schema import find_shards, release_of
from cb2_assist.learning.judge_rows import judge_rows
from cb2_assist.learning.judged import SUBSETS
from cb2_assist.model.card import ViewSpec
from cb2_assist.model.predictor import Predictor
from cb2_assist.suggestions.calibration import Calibrator, calibrator_from_card

BOTH = pytest.mark.parametrize("version", ["v1", "v2"])
VIEWS = ViewSpec(profile="cb2", extent_nm=7500.0, image_px=32)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    made = Predictor.open(tiny_model(tmp_path_factory.mktemp("cb2"), views=VIEWS), "cpu", 1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def clean(tiny_model_folder):
    made = Predictor.open(tiny_model_folder, "cpu", 1)
    yield made
    made.close()


def calibrator_of(predictor: Predictor) -> Calibrator:
    return calibrator_from_card(predictor.model.card)


def judge(folder: Path, predictor: Predictor, **options):
    files, _ = find_shards(folder, None)
    sets, tally = judge_rows(
        files,
        release_of(files),
        predictor,
        calibrator_of(predictor),
        say=lambda _: None,
        **options,
    )
    return {j.kind: j for j in sets}, tally


@BOTH
def test_each_operation_has_the_score_of_its_views(tmp_path, version, predictor) -> None:
    folder = write_shards(tmp_path, version, release_rows(version, 3))
    sets, tally = judge(folder, predictor)

    assert {k: (len(j), int(j.answer.sum())) for k, j in sets.items()} == {
        Kind.JOIN: (6, 3),
        Kind.CUT: (6, 3),
    }
    assert not tally.skipped
    assert not tally.unscored
    assert tally.clusters == {"body": 12}
    files, _ = find_shards(folder, None)
    for row in read_decisions(files, release_of(files), Counter()):
        judged = sets[row.kind]
        at = judged.key.tolist().index(row.operation)
        seen = decode(row, VIEWS, use_geometry=True, use_em=True)
        assert seen is not None
        logits = predictor.subset_logits(
            [seen.input], seen.present[None], [row.kind], list(SUBSETS.values())
        )[0]
        alone = {k: judged.scores[name][at] for k, name in enumerate(SUBSETS)}
        for k, logit in enumerate(logits):
            if np.isnan(logit):
                assert np.isnan(alone[k])
            else:
                expected = calibrator_of(predictor).score(row.kind, float(logit))
                assert alone[k] == expected
    assert not any(np.isnan(j.score).any() for j in sets.values())
    assert all(np.isnan(j.scores["features"]).all() for j in sets.values())


def test_rows_of_one_operation_are_one_decision_with_their_mean(tmp_path, predictor) -> None:
    one = release_row("v2", 1, "merge_edit")
    other = one | {
        "combined_sample_hash": "b" * 32,
        "geometry": geometry_blob(30),
    }
    apart = []
    for i, row in enumerate((one, other)):
        sets, _ = judge(write_shards(tmp_path / str(i), "v2", [row]), predictor)
        apart.append(sets[Kind.JOIN].score[0])
    both, tally = judge(write_shards(tmp_path / "both", "v2", [one, other]), predictor)

    assert len(both[Kind.JOIN]) == 1
    assert apart[0] != apart[1]
    assert both[Kind.JOIN].score[0] == pytest.approx(np.mean(apart))
    assert tally.rows == 2


def test_the_same_row_twice_counts_once(tmp_path, predictor) -> None:
    row = release_row("v1", 1, "merge_edit")
    for split in ("train", "val"):
        write_shards(tmp_path, "v1", [row], split)
    sets, tally = judge(tmp_path, predictor)

    assert len(sets[Kind.JOIN]) == 1
    assert tally.skipped == {"the same row was there before": 1}


def test_an_operation_with_both_answers_is_left_out_whole(tmp_path, predictor) -> None:
    one = release_row("v2", 1, "merge_edit")
    against = one | {
        "combined_sample_hash": "b" * 32,
        "same_neuron": False,
        "false_split_correction_label": 0.0,
    }
    rows = [one, against, release_row("v2", 2, "merge_edit")]
    sets, tally = judge(write_shards(tmp_path, "v2", rows), predictor)

    assert len(sets[Kind.JOIN]) == 1
    assert tally.skipped == {"its operation has rows with both answers": 2}


@BOTH
def test_damaged_views_leave_a_decision_without_a_score(tmp_path, version, predictor) -> None:
    em = "em_xz" if version == "v1" else "em_xz_before"
    rows = [
        release_row(version, 1, "merge_edit", geometry=b"junk"),
        release_row(version, 2, "merge_edit", **{em: {"bytes": b"junk", "path": None}}),
        release_row(version, 3, "merge_edit"),
    ]
    sets, tally = judge(write_shards(tmp_path, version, rows), predictor)

    joins = sets[Kind.JOIN]
    assert np.isnan(joins.score).tolist() == [True, True, False]
    assert sum(tally.unscored.values()) == 2
    entry = joins.task(draws=20)
    assert (entry["n"], entry["n_scored"]) == (3, 1)
    assert entry["accuracy"]["value"] <= 1 / 3
    assert entry["by"]["modality"]["em"]["n"] == 1


def test_modalities_count_the_decisions_that_have_them(tmp_path, predictor) -> None:
    no_em = dict.fromkeys(("em_xy_before", "em_xz_before", "em_yz_before"))
    rows = [
        *release_rows("v2", 2),
        release_row("v2", 80, "merge_edit", **no_em),
        release_row("v2", 81, "merge_edit", geometry=None),
    ]
    sets, _ = judge(write_shards(tmp_path, "v2", rows), predictor)
    entry = sets[Kind.JOIN].task(draws=20)

    assert entry["n"] == entry["n_scored"] == 6
    assert {k: v["n"] for k, v in entry["by"]["modality"].items()} == {
        "em": 5,
        "geometry": 5,
        "both": 4,
    }
    assert {k: v["n"] for k, v in entry["by"]["sample_type"].items()} == {
        "adjacent_control": 2,
        "merge_edit": 4,
    }
    rate = entry["positive_rate"]
    assert all(v["base_rate"] == rate for by in entry["by"].values() for v in by.values())


@BOTH
def test_a_model_of_another_encoding_is_refused(tmp_path, version, clean) -> None:
    folder = write_shards(tmp_path, version, release_rows(version, 1))
    with pytest.raises(ModelError, match=r"'clean'.*none of 4.*--any-profile"):
        judge(folder, clean)


def test_or_shown_the_views_all_the_same_and_that_is_said(tmp_path, clean) -> None:
    folder = write_shards(tmp_path, "v2", release_rows("v2", 1))
    sets, tally = judge(folder, clean, any_profile=True)

    assert len(sets[Kind.JOIN]) == 2
    said = " ".join(tally.mismatches)
    assert "geometry is cb2, the card wants clean: shown all the same" in said
    assert "reach 7500 nm, the card wants 320 nm" in said


def test_views_of_the_right_encoding_are_used_and_the_others_left_out(tmp_path, clean) -> None:
    about = {"cb2assist_profile": "clean", "view_extent_nm": 320.0}
    rows = [
        release_row("v1", 1, "merge_edit", about=about),
        release_row("v1", 2, "split_edit", about=about),
    ]
    sets, tally = judge(write_shards(tmp_path, "v1", rows), clean)

    assert list(sets) == [Kind.JOIN]
    assert sets[Kind.JOIN].there["em"].all()
    assert not sets[Kind.JOIN].there["geometry"].any()
    assert tally.mismatches["geometry is cb2, the card wants clean: left out"] == 1
    assert sum(tally.skipped.values()) == 1
    assert not any("reach" in why for why in tally.mismatches)


def test_a_folder_without_any_answer_says_why(tmp_path, predictor) -> None:
    row = release_row("v2", 1, "merge_edit", false_split_correction_label=None)
    with pytest.raises(DatasetError, match="1: it has no label"):
        judge(write_shards(tmp_path, "v2", [row]), predictor)


def test_an_empty_shard_has_no_decisions(tmp_path, predictor) -> None:
    folder = write_shards(tmp_path, "v2", release_rows("v2", 1))
    file = folder / "test" / "test-00000.parquet"
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    with pytest.raises(DatasetError, match="no rows"):
        judge(folder, predictor)
