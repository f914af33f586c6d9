"""`cb2-v1`: what ConnectomeBench2's public loader needs, from kept views and from none."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from contracts import cb2_v1
from PIL import Image
from proofread import AT, Proofreader

from cb2_assist.app import DatasetChoice, build_assistant
from cb2_assist.assistant import Assistant
from cb2_assist.core.channels import EmView
from cb2_assist.core.errors import AssistError, UsageError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, Verdict
from cb2_assist.labels.store import NewEvent, open_store
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.learning import cb2_files
from cb2_assist.learning.cb2_decisions import read_decisions
from cb2_assist.learning.cb2_layout import CB2_V1, CB2_V2
from cb2_assist.learning.cb2_rows import (
    are_both_pieces_known,
    cb2_row,
    differences,
    em_png,
    geometry_npz,
)
from cb2_assist.learning.cb2_schema import find_shards, release_of
from cb2_assist.learning.export import ExportReport, export_labels
from cb2_assist.learning.export_rows import label_rows
from cb2_assist.learning.export_views import SiteRenderer
from cb2_assist.model.card import check_card
from cb2_assist.views.encode import as_one_segment, encode_cb2
from cb2_assist.views.hitmap import EMPTY, HitMap
from cb2_assist.views.stack import ViewStack, from_bytes, to_bytes


@pytest.fixture(scope="module")
def assistant(neurites_file, tiny_model_folder) -> Iterator[Assistant]:
    made = build_assistant(
        DatasetChoice(file=neurites_file), model=tiny_model_folder, device="cpu", threads=1
    )
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/labels.sqlite") as opened:
        yield opened


@pytest.fixture
def ada(assistant, store) -> Proofreader:
    return Proofreader(assistant, store)


@pytest.fixture
def renderer(neurites_file, tiny_model_folder) -> Iterator[SiteRenderer]:
    choice = DatasetChoice(file=neurites_file)
    made = SiteRenderer(
        lambda: build_assistant(choice, model=tiny_model_folder, network=False),
        check_card(tiny_model_folder).sha256,
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def exported(assistant, tmp_path_factory) -> tuple[Path, ExportReport, dict[str, ViewStack]]:
    """All four answers: ada accepts both questions, bob rejects both."""
    folder = tmp_path_factory.mktemp("exported")
    stacks = {}
    with open_store(f"sqlite:///{folder}/labels.sqlite") as store:
        for user, verdict in (("ada", Verdict.ACCEPT), ("bob", Verdict.REJECT)):
            person = Proofreader(assistant, store, user)
            for kind in Kind:
                asked = person.first(kind)
                event = person.decide(asked, verdict)
                stacks[str(event.id)] = from_bytes(assistant.views_of(asked.id)[1])
                if verdict is Verdict.REJECT:
                    person.log.give_reason(asked.id, "artefact", idempotency_key=f"r-{kind}")
        report = export_labels(store, out=folder / "out", format="cb2-v1")
        export_labels(store, out=folder / "v2", format="cb2-v2")
    return folder / "out", report, stacks


@pytest.fixture
def by_type(exported) -> dict[str, dict]:
    found = [r for split in ("train", "val") for r in cb2_v1.rows(exported[0], split)]
    assert len(found) == 4
    return {r["sample_type"]: r for r in found}


def test_each_answer_becomes_the_sample_type_and_label_that_it_means(by_type) -> None:
    def of(row: dict) -> tuple:
        both = (row["false_split_correction_label"], row["false_merge_identification_label"])
        return (row["same_neuron"], *both, row["task_routing"])

    correction, identification = ["false_split_correction"], ["false_merge_identification"]
    assert {name: of(row) for name, row in by_type.items()} == {
        "merge_edit": (True, True, False, correction),
        "adjacent_control": (False, False, True, correction),
        "split_edit": (False, False, True, [*identification, "split_mask_generation"]),
        "junction_control": (True, True, False, identification),
    }
    labels = {name: {i["label"] for i in cb2_v1.items(row)} for name, row in by_type.items()}
    assert labels == {
        "merge_edit": {1},
        "adjacent_control": {0},
        "split_edit": {1},
        "junction_control": {0},
    }


def test_every_row_gives_three_geometry_and_three_em_views(by_type) -> None:
    for row in by_type.values():
        made = cb2_v1.items(row)
        assert [i["x"].shape[0] for i in made] == [7] * 3 + [3] * 3
        assert all(np.isfinite(i["x"]).all() and i["x"].any() for i in made)
        assert row["em_best"] is None
        filled = {name for name in (*cb2_v1.EM, "geometry", "geometry_single") if row[name]}
        assert row["present_slots"] == sorted(filled)
        assert row["has_em"]


def test_the_oblique_plane_of_a_join_leaves_as_em_best_and_a_cut_never_has_one(ada, store) -> None:
    plane = np.random.default_rng(0).integers(0, 256, (3, 224, 224)).astype(np.uint8)
    for kind in Kind:
        asked = ada.first(kind)
        ada.decide(asked, Verdict.ACCEPT)
        stack = from_bytes(ada.assistant.views_of(asked.id)[1])
        (row,) = (r for r in label_rows(store) if r["kind"] == kind.value)
        assert cb2_row(row, stack)["em_best"] is None
        made = cb2_row(row, replace(stack, em_oblique=plane))
        if kind is Kind.CUT:
            assert made["em_best"] is None
            continue
        with Image.open(io.BytesIO(made["em_best"]["bytes"])) as image:
            np.testing.assert_array_equal(np.asarray(image).transpose(2, 0, 1), plane)
        assert "em_best" in made["present_slots"]


def test_what_differs_depends_on_what_geometry_was_made_from(exported) -> None:
    stack = next(iter(exported[2].values()))
    drawn = replace(stack, geometry_from="meshes")
    published = replace(drawn, profile="cb2")
    said = [" ".join(differences(s, Kind.JOIN)) for s in (stack, drawn, published)]
    assert [("voxels" in t, "closed, at the view's box" in t, "quarter" in t) for t in said] == [
        (True, False, True),
        (False, True, True),
        (False, False, False),
    ]


def test_geometry_is_the_published_encoding_of_what_was_seen(by_type, exported) -> None:
    for name, row in by_type.items():
        hits = exported[2][json.loads(row["metadata"])["operation_id"]].hits
        single = encode_cb2(as_one_segment(hits))
        if name in ("merge_edit", "adjacent_control"):
            assert row["geometry_single"] is None
            np.testing.assert_array_equal(cb2_v1.npz(row["geometry"]), encode_cb2(hits))
            continue
        found = cb2_v1.npz(row["geometry_single"])
        np.testing.assert_array_equal(found, single)
        np.testing.assert_array_equal(found[:, cb2_v1.MASK_A], found[:, 0])
        assert not found[:, cb2_v1.MASK_B].any()
        assert (row["geometry"] is not None) == (name == "split_edit")
    masks = [i["target"] for i in cb2_v1.items(by_type["split_edit"]) if i["has_mask"]]
    assert len(masks) == 3
    assert any(set(np.unique(m)) == {0, 1, 2} for m in masks)


def test_em_is_what_was_seen_and_does_not_tell_where_a_cut_is(by_type, exported) -> None:
    for name, row in by_type.items():
        seen = exported[2][json.loads(row["metadata"])["operation_id"]].em / np.float32(255)
        for view, column in zip(EmView, cb2_v1.EM, strict=False):
            red, green, blue = cb2_v1.png(row[column])
            np.testing.assert_array_equal(red, seen[view, 0])
            if name in ("merge_edit", "adjacent_control"):
                np.testing.assert_array_equal([green, blue], seen[view, 1:])
            else:
                np.testing.assert_array_equal(green, seen[view, 1:].max(0))
                assert not blue.any()


def test_files_are_laid_out_as_the_release_is(exported) -> None:
    out, report, _ = exported
    for split in ("train", "val"):
        (shard,) = cb2_v1.shards(out, split)
        assert shard.name == f"{split}-00000.parquet"
        meta = pq.ParquetFile(shard).metadata
        column = meta.row_group(0).column(0)
        assert column.compression == "SNAPPY"
        assert column.has_offset_index
        assert column.has_column_index
        about = json.loads(pq.read_schema(shard).metadata[b"huggingface"])
        assert about == {"info": {"features": {name: {"_type": "Image"} for name in cb2_v1.EM}}}
        light = pq.read_table(out / "metadata" / f"{split}.parquet").to_pylist()
        rows = cb2_v1.rows(out, split)
        assert [r["combined_sample_hash"] for r in light] == [
            r["combined_sample_hash"] for r in rows
        ]
        assert {r["shard"] for r in light} == {f"{split}/{shard.name}"}
        assert {r["split"] for r in rows} == {split}
    with (out / "shards.csv").open(newline="") as f:
        listed = list(csv.DictReader(f))
    for line in listed:
        data = (out / line["path"]).read_bytes()
        assert int(line["size_bytes"]) == len(data)
        assert line["sha256"] == hashlib.sha256(data).hexdigest()
    assert sum(int(line["n_samples"]) for line in listed) == report.rows == 4
    assert [p.name for p in report.files if not p.exists()] == []
    assert not list(out.glob(".*"))


def test_hashes_follow_the_rule_and_are_unique(by_type) -> None:
    for row in by_type.values():
        text = f"{row['source_archive']}|{row['source_archive_sample_hash']}"
        assert row["combined_sample_hash"] == hashlib.md5(text.encode()).hexdigest()
        assert len(row["source_archive_sample_hash"]) == 12
        assert row["source_archive"] == "cb2-assist_neurites"
    assert len({r["source_archive_sample_hash"] for r in by_type.values()}) == 4


def test_metadata_carry_provenance_licence_and_what_differs(by_type, assistant) -> None:
    row = by_type["adjacent_control"]
    meta = json.loads(row["metadata"])
    assert list(meta) == sorted(meta)
    asked = assistant.suggest(AT).suggestions
    join = next(s for s in asked if s.site.kind is Kind.JOIN)
    assert meta["segment1_id"] == meta["base_root"] == str(join.site.segment)
    assert meta["segment2_id"] == meta["adjacent_root"] == str(join.site.partner)
    assert meta["interface_point_nm"] == join.site.point.to_json()
    assert meta["licence"] == "CC0 1.0"
    assert meta["view_extent_nm"] == 320.0
    assert meta["cb2assist_profile"] == "clean"
    assert any("640 nm" in text for text in meta["cb2assist_differences"])
    assert any("z-score" in text for text in meta["cb2assist_differences"])
    ours = meta["cb2assist"]
    assert (ours["reject_reason"], ours["verdict"]) == ("artefact", "reject")
    assert ours["model"]["name"] == "tiny"
    assert ours["suggestion_id"] == join.id
    assert (ours["operation_id"], ours["operations"]) == (None, [])
    assert "bob" not in row["metadata"]
    assert by_type["merge_edit"]["species"] == "fly"


def test_one_label_is_in_both_splits(ada, store, tmp_path: Path) -> None:
    ada.decide(ada.first(Kind.JOIN), Verdict.ACCEPT)
    report = export_labels(store, out=tmp_path / "out", format="cb2-v1")
    assert report.rows == 1
    assert report.notes == ("train 1, val 1: one label: it is in train and in val",)
    train, val = (cb2_v1.rows(tmp_path / "out", split) for split in ("train", "val"))
    assert train[0]["combined_sample_hash"] == val[0]["combined_sample_hash"]
    assert len(cb2_v1.items(val[0])) == 6


def test_a_species_that_the_release_does_not_know_is_told(ada, store, tmp_path: Path) -> None:
    ada.decide(ada.first(Kind.JOIN), Verdict.ACCEPT, species="other")
    report = export_labels(store, out=tmp_path / "out", format="cb2-v1")
    assert cb2_v1.rows(tmp_path / "out", "train")[0]["species"] == "other"
    assert report.notes[1].startswith("rows of species 'other' (1)")


def test_answers_that_are_no_labels_never_become_rows(ada, store, tmp_path: Path) -> None:
    join, cut = ada.first(Kind.JOIN), ada.first(Kind.CUT)
    ada.decide(join, Verdict.ACCEPT)
    ada.log.undo(idempotency_key="u")
    ada.decide(join, Verdict.UNSURE)
    ada.decide(cut, Verdict.ACCEPT)
    ada.decide(cut, Verdict.REJECT)
    report = export_labels(store, out=tmp_path / "out", format="cb2-v1")
    assert report.rows == 1
    assert report.skipped == {"superseded": 1, "undone": 1, "unsure": 1}
    (row,) = cb2_v1.rows(tmp_path / "out", "train")
    assert row["sample_type"] == "junction_control"


def test_no_labels_make_empty_shards_that_are_read(store, tmp_path: Path) -> None:
    assert export_labels(store, out=tmp_path / "out", format="cb2-v1").rows == 0
    assert cb2_v1.rows(tmp_path / "out", "val") == []


class TestRenderedAgain:
    def test_bytes_are_those_that_would_have_been_kept(self, ada, store, renderer, tmp_path):
        """Labels without views, exported with the dataset, and the same labels with views."""
        asked = [ada.first(kind) for kind in Kind]
        for s in asked:
            ada.decide(s, Verdict.ACCEPT, keep_views=False)
        report = export_labels(store, out=tmp_path / "again", format="cb2-v1", renderer=renderer)
        assert (report.rows, report.skipped) == (2, {})
        with open_store(f"sqlite:///{tmp_path}/kept.sqlite") as other:
            person = Proofreader(ada.assistant, other)
            for s in asked:
                person.decide(s, Verdict.ACCEPT)
            export_labels(other, out=tmp_path / "kept", format="cb2-v1")
        blobs = [
            {
                (r["sample_type"], name): r[name]
                for split in ("train", "val")
                for r in cb2_v1.rows(tmp_path / folder, split)
                for name in ("geometry", "geometry_single", *cb2_v1.EM)
            }
            for folder in ("again", "kept")
        ]
        assert blobs[0] == blobs[1]

    def test_the_container_is_the_same_byte_for_byte(self, ada, store, renderer) -> None:
        for kind in Kind:
            ada.decide(ada.first(kind), Verdict.REJECT, keep_views=False)
        rows = list(label_rows(store))
        assert len(rows) == 2
        for row in rows:
            kept = ada.assistant.views_of(row["suggestion_id"])[1]
            assert to_bytes(renderer.stack(row)) == kept

    def test_views_that_were_lost_must_come_out_as_recorded(self, ada, store, renderer, tmp_path):
        ada.decide(ada.first(Kind.JOIN), Verdict.ACCEPT)
        ada.decide(ada.first(Kind.CUT), Verdict.ACCEPT, keep_views=False, views_sha256="ab" * 32)
        shutil.rmtree(store.views_folder)
        report = export_labels(store, out=tmp_path / "out", format="cb2-v1", renderer=renderer)
        assert report.rows == 1
        assert report.skipped == {"views lost, and rendered ones differ from what was seen": 1}

    def test_members_of_none_are_rendered_too(self, ada, store, renderer, tmp_path) -> None:
        ada.none_of([ada.first(Kind.JOIN)])
        assert export_labels(store, out=tmp_path / "a", format="cb2-v1").skipped == {
            "no views kept": 1
        }
        report = export_labels(store, out=tmp_path / "b", format="cb2-v1", renderer=renderer)
        assert report.rows == 1

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"model_sha256": "00" * 32}, "no views kept, and made with another model"),
            ({"version": "older"}, "no views kept, and of another version of the dataset"),
            ({"dataset": "other"}, "no views kept, and of another dataset"),
        ],
    )
    def test_what_cannot_be_the_same_is_left_out_and_counted(
        self, ada, store, renderer, tmp_path, changes, why
    ) -> None:
        made = ada.decision(ada.first(Kind.JOIN), Verdict.ACCEPT, None, **changes)
        store.append(NewEvent.of(made))
        report = export_labels(store, out=tmp_path / "out", format="cb2-v1", renderer=renderer)
        assert report.rows == 0
        ((reason, n),) = report.skipped.items()
        assert reason.startswith(why)
        assert n == 1

    def test_a_site_that_is_not_there_is_counted(self, ada, store, renderer, tmp_path) -> None:
        s = ada.first(Kind.JOIN)
        far = replace(s, site=replace(s.site, point=PointNm(9e6, 0, 0)))
        ada.log.decide(replace(ada.decision(s, Verdict.ACCEPT, None), suggestion=far))
        report = export_labels(store, out=tmp_path / "out", format="cb2-v1", renderer=renderer)
        assert report.skipped == {"no views kept, and the site cannot be rendered": 1}

    def test_a_dataset_that_cannot_be_opened_is_counted_and_told(
        self, ada, store, tiny_model_folder, tmp_path
    ) -> None:
        ada.decide(ada.first(Kind.JOIN), Verdict.ACCEPT, keep_views=False)
        choice = DatasetChoice("nowhere")
        broken = SiteRenderer(
            lambda: build_assistant(choice, model=tiny_model_folder, network=False),
            check_card(tiny_model_folder).sha256,
        )
        report = export_labels(store, out=tmp_path / "out", format="cb2-v1", renderer=broken)
        assert report.skipped == {"no views kept, and the dataset cannot be opened": 1}
        assert isinstance(broken.failure, AssistError)

    def test_a_dataset_is_not_opened_when_all_views_are_kept(self, ada, store, tmp_path) -> None:
        ada.decide(ada.first(Kind.JOIN), Verdict.ACCEPT)
        closed = SiteRenderer(lambda: pytest.fail("opened"), ada.found.model_sha256)
        assert (
            export_labels(store, out=tmp_path / "out", format="cb2-v1", renderer=closed).rows == 1
        )


def test_damaged_views_are_left_out_and_counted(ada, store, tmp_path: Path) -> None:
    ada.decide(ada.first(Kind.JOIN), Verdict.ACCEPT)
    ada.decide(ada.first(Kind.CUT), Verdict.ACCEPT)
    kept = ViewsStore(store.views_folder)
    sha256 = ada.assistant.views_of(ada.first(Kind.CUT).id)[0]
    path = kept.folder / sha256[:2] / f"{sha256}.cb2v"
    path.write_bytes(path.read_bytes()[:-50])
    report = export_labels(store, out=tmp_path / "out", format="cb2-v1")
    assert (report.rows, report.skipped) == (1, {"kept views are damaged": 1})


def test_a_cut_whose_pieces_cannot_be_told_apart_trains_no_mask() -> None:
    depth = np.full((3, 2, 224, 224), EMPTY, np.int16)
    depth[:, 0, 50:90, 50:90] = 5
    normal = np.zeros((3, 2, 3, 224, 224), np.int8)
    assert not are_both_pieces_known(encode_cb2(HitMap(depth, normal)))
    depth[:, 1, 60:80, 60:80] = 9
    assert not are_both_pieces_known(encode_cb2(HitMap(depth, normal))), "B has no pixel alone"
    depth[1, 1, 100:110, 100:110] = 9
    assert are_both_pieces_known(encode_cb2(HitMap(depth, normal)))


def test_blobs_do_not_depend_on_when_they_are_made(exported) -> None:
    stack = next(iter(exported[2].values()))
    geometry = encode_cb2(stack.hits)
    assert geometry_npz(geometry) == geometry_npz(geometry.copy())
    assert em_png(stack, EmView.XY, Kind.CUT) == em_png(stack, EmView.XY, Kind.CUT)


class TestSecondRelease:
    @pytest.fixture
    def files(self, exported) -> list[Path]:
        return sorted((exported[0].parent / "v2").glob("*/*-?????.parquet"))

    @pytest.fixture
    def v2(self, files) -> dict[str, dict]:
        found = [row for file in files for row in pq.read_table(file).to_pylist()]
        assert len(found) == 4
        return {row["sample_type"]: row for row in found}

    def test_only_the_label_of_its_own_question_is_there(self, v2) -> None:
        labels = ("false_split_correction_label", "false_merge_identification_label")
        assert {name: tuple(row[k] for k in labels) for name, row in v2.items()} == {
            "merge_edit": (1.0, None),
            "adjacent_control": (0.0, None),
            "split_edit": (None, 1.0),
            "junction_control": (None, 0.0),
        }
        assert {name: row["has_after_mask"] for name, row in v2.items()} == {
            "merge_edit": False,
            "adjacent_control": False,
            "split_edit": True,
            "junction_control": False,
        }

    def test_both_releases_have_the_same_row_under_the_same_name(self, v2, by_type) -> None:
        same = ("combined_sample_hash", "source_archive_sample_hash", "same_neuron", "species")
        for name, row in v2.items():
            first = by_type[name]
            for column in (*same, "task_routing", "source_archive"):
                assert row[column] == first[column], column
            geometry = first[
                "geometry" if "false_split" in row["task_routing"][0] else "geometry_single"
            ]
            assert row["geometry"] == geometry
            assert [row[f"{em}_before"] for em in cb2_v1.EM] == [first[em] for em in cb2_v1.EM]
            filled = {n for n, cell in row.items() if n in CB2_V2.blobs and cell is not None}
            assert row["present_slots"] == sorted(filled)

    def test_both_encodings_of_a_mask_say_the_same(self, v2, by_type, exported) -> None:
        pair = cb2_v1.npz(by_type["split_edit"]["geometry"])
        hits = exported[2][json.loads(v2["split_edit"]["metadata"])["operation_id"]].hits
        seen = []
        for view, name in enumerate(("front", "side", "top")):
            with Image.open(io.BytesIO(v2["split_edit"][f"split_mask_{name}"]["bytes"])) as image:
                assert (image.mode, image.size) == ("L", (224, 224))
                mask = np.asarray(image)
            a, b = pair[view, cb2_v1.MASK_A] > 0.5, pair[view, cb2_v1.MASK_B] > 0.5
            assert set(np.unique(mask)) <= {0, 128, 255}
            np.testing.assert_array_equal(mask == 255, ~(a | b))
            assert (mask[a & ~b] == 0).all()
            assert (mask[b & ~a] == 128).all()
            # where both are, the one whose depth the fused geometry has
            own = {
                value: encode_cb2(HitMap(*_only(hits, side)))[view, 1]
                for side, value in enumerate((0, 128))
            }
            for value, depth in own.items():
                at = (mask == value) & a & b
                np.testing.assert_array_equal(depth[at], pair[view, 1][at])
            seen.append((a & b).any())
        assert any(seen), "no pixel with both pieces: nothing was decided"
        assert v2["junction_control"]["split_mask_front"] is None

    def test_metadata_have_the_second_release_s_keys(self, v2) -> None:
        meta = {name: json.loads(row["metadata"]) for name, row in v2.items()}
        assert {name: m["is_merge"] for name, m in meta.items()} == {
            "merge_edit": True,
            "adjacent_control": True,
            "split_edit": False,
            "junction_control": False,
        }
        control, edit = meta["adjacent_control"], meta["merge_edit"]
        assert control["root_ids"] == [control["base_root"], control["adjacent_root"]]
        assert control["before_root_ids"] is control["after_root_ids"] is None
        assert edit["before_root_ids"] == [edit["segment1_id"], edit["segment2_id"]]
        assert edit["root_ids"] is None
        assert edit["edit_point_nm"] == edit["interface_point_nm"]
        assert edit["cb2_split"] == edit["cb2assist"]["cb2_split"] == "unknown"
        masks = meta["split_edit"]["cb2assist_mask_values"]
        assert masks == {"A": 0, "B": 128, "background": 255}

    def test_evaluate_reads_it_as_it_reads_the_first(self, exported) -> None:
        def read(folder: Path) -> dict[str, tuple]:
            files, _ = find_shards(folder, "all")
            skipped: Counter[str] = Counter()
            found = list(read_decisions(files, release_of(files), skipped))
            assert not skipped
            assert len(found) == 4
            return {
                d.row_key: (
                    d.kind,
                    d.answer,
                    d.operation,
                    d.cluster,
                    d.em_profile,
                    d.extent_nm,
                    d.geometry,
                    d.em,
                    d.damage,
                )
                for d in found
            }

        first = read(exported[0])
        assert read(exported[0].parent / "v2") == first
        assert {(kind, answer) for kind, answer, *_ in first.values()} == {
            (kind, answer) for kind in Kind for answer in (True, False)
        }

    def test_one_export_takes_the_place_of_the_other(self, ada, store, tmp_path) -> None:
        ada.decide(ada.first(Kind.JOIN), Verdict.ACCEPT)
        for form in ("cb2-v1", "cb2-v2"):
            export_labels(store, out=tmp_path / "out", format=form)
            assert json.loads((tmp_path / "out" / "cb2-assist.json").read_text())["format"] == form
        (file,) = (tmp_path / "out" / "train").iterdir()
        schema = pq.read_schema(file)
        assert schema.names == CB2_V2.schema.names
        assert schema.metadata[b"huggingface"] == CB2_V2.schema.metadata[b"huggingface"]
        light = pq.read_schema(tmp_path / "out" / "metadata" / "train.parquet")
        assert light.names == [n for n in CB2_V2.schema.names if n not in CB2_V2.blobs] + ["shard"]
        assert "1 labels in the format `cb2-v2`" in (tmp_path / "out" / "datasheet.md").read_text()

    def test_a_row_without_views_is_not_on_the_datasheet(self, ada, store, tmp_path) -> None:
        ada.decide(ada.first(Kind.JOIN), Verdict.ACCEPT, keep_views=False)
        assert export_labels(store, out=tmp_path, format="cb2-v2").rows == 0
        sheet = (tmp_path / "datasheet.md").read_text()
        assert "0 labels in the format" in sheet
        assert "| no views kept | 1 |" in sheet


def _only(hits: HitMap, side: int) -> tuple[np.ndarray, np.ndarray]:
    """One of the two segments alone, with its own depths."""
    depth, normal = hits.depth_nm.copy(), hits.normal_i8.copy()
    depth[:, 1 - side] = EMPTY
    return depth, normal


class TestFolder:
    def test_shards_of_a_size_with_equal_rows(self, exported, tmp_path, monkeypatch) -> None:
        rows = [cb2_v1.rows(exported[0], split)[0] for split in ("train", "val")]
        monkeypatch.setattr(cb2_files, "SHARD_BYTES", 500_000)
        made = []
        for n in range(45):
            name = hashlib.md5(str(n).encode()).hexdigest()
            made.append(
                (
                    {**rows[n % 2], "combined_sample_hash": name},
                    cb2_files.Sample(name, (f"d/{n}",)),
                )
            )
        files, split = cb2_files.write_cb2_files(made, tmp_path, {}, CB2_V1)
        assert len(split.train) + len(split.val) == 45
        assert len([f for f in files if f.parent.name == "train"]) > 1
        sizes = [pq.read_metadata(f).num_rows for f in cb2_v1.shards(tmp_path, "train")]
        assert max(sizes) - min(sizes[:-1] or sizes) == 0
        found = [
            r["combined_sample_hash"]
            for name in ("train", "val")
            for r in cb2_v1.rows(tmp_path, name)
        ]
        assert sorted(found) == sorted(r["combined_sample_hash"] for r, _ in made)

    def test_an_export_takes_the_place_of_an_earlier_one(self, ada, store, tmp_path) -> None:
        out = tmp_path / "out"
        ada.decide(ada.first(Kind.JOIN), Verdict.ACCEPT)
        export_labels(store, out=out, format="cb2-v1")
        ada.decide(ada.first(Kind.CUT), Verdict.ACCEPT)
        export_labels(store, out=out, format="cb2-v1")
        assert [len(cb2_v1.rows(out, s)) for s in ("train", "val")] == [1, 1]
        assert json.loads((out / "cb2-assist.json").read_text())["labels"] == 2

    def test_what_another_program_made_is_never_replaced(self, ada, store, tmp_path) -> None:
        ada.decide(ada.first(Kind.JOIN), Verdict.ACCEPT)
        foreign = tmp_path / "out" / "train" / "train-00007.parquet"
        foreign.parent.mkdir(parents=True)
        foreign.write_bytes(b"a download")
        with pytest.raises(UsageError, match=r"train-00007\.parquet.*will not replace"):
            export_labels(store, out=tmp_path / "out", format="cb2-v1")
        assert foreign.read_bytes() == b"a download"

    def test_a_failed_export_leaves_the_earlier_one(self, ada, store, tmp_path, monkeypatch):
        out = tmp_path / "out"
        ada.decide(ada.first(Kind.JOIN), Verdict.ACCEPT)
        export_labels(store, out=out, format="cb2-v1")
        before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

        def full(_fd: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(cb2_files.os, "fsync", full)
        with pytest.raises(AssistError, match="No space left"):
            export_labels(store, out=out, format="cb2-v1")
        assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_an_assistant_that_only_renders_needs_no_torch(neurites_file, tiny_model_folder) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from cb2_assist.app import DatasetChoice, build_assistant\n"
        f"choice = DatasetChoice(file=Path({str(neurites_file)!r}))\n"
        f"a = build_assistant(choice, model=Path({str(tiny_model_folder)!r}), network=False)\n"
        "assert 'torch' not in sys.modules; a.close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
