"""What an edit made of the graph leaves with its label: applied, taken back, made again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from edit_world import Person
from label_makers import decision, suggestion
from labels_with_views import stack
from people import EDITOR

from cb2_assist.core.edits import Edit, EditKind, EditRecord, EditState
from cb2_assist.core.records import Kind, Site, Verdict
from cb2_assist.labels.store import NewEvent
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.learning.cb2_schema import find_shards
from cb2_assist.learning.export import export_labels
from cb2_assist.views.stack import content_sha256, to_bytes


@pytest.fixture
def person(cave, home, monkeypatch) -> Iterator[Person]:
    made = Person.of(cave, home, EDITOR.token, "ada", monkeypatch)
    yield made
    made.close()


def accept(person: Person, edit: Edit) -> EditRecord:
    """Record the accept of which an edit comes, with views, and stage the edit."""
    kind = Kind(edit.kind.value)
    seen = stack(0, is_true=True)
    ViewsStore(person.store.views_folder).put(to_bytes(seen), content_sha256(seen))
    site = Site(kind, edit.segment, edit.partner, edit.point)
    answer = decision(0, Verdict.ACCEPT, kind=kind, key=edit.decision_key, user=person.user)
    answer = replace(
        answer,
        suggestion=replace(suggestion(0, kind), id=edit.site, site=site),
        views_sha256=content_sha256(seen),
        dataset=edit.dataset,
        version=edit.version,
    )
    person.store.append(NewEvent.of(answer))
    return person.store.edits.add(edit)


def exported(person: Person, out: Path, form: str) -> dict[str, dict]:
    """Metadata of an export by sample type."""
    export_labels(person.store, out=out, format=form)
    columns = ["sample_type", "metadata"]
    rows = [
        r for s in find_shards(out, "all")[0] for r in pq.read_table(s, columns=columns).to_pylist()
    ]
    return {row["sample_type"]: json.loads(row["metadata"]) for row in rows}


def test_objects_that_an_applied_edit_made_leave_with_its_label(person, tmp_path) -> None:
    flow = person.flow()
    join = flow.apply(accept(person, person.join()))
    cut = flow.apply(accept(person, person.cut()))  # previewed
    assert exported(person, tmp_path / "staged", "cb2-v1")["split_edit"]["after_root_ids"] == []
    cut = flow.apply(cut)
    assert (join.state, cut.state) == (EditState.APPLIED, EditState.APPLIED)
    for form in ("cb2-v1", "cb2-v2"):
        meta = exported(person, tmp_path / form, form)
        for kind, record in (("merge_edit", join), ("split_edit", cut)):
            wanted = [str(root) for root in record.step.new_roots]
            assert meta[kind]["after_root_ids"] == wanted
            ours = meta[kind]["cb2assist"]
            assert ours["operation_id"] == str(record.step.operation)
            assert ours["operations"][0]["new_roots"] == wanted
        assert len(meta["merge_edit"]["after_root_ids"]) == 1
        assert len(meta["split_edit"]["after_root_ids"]) == 2


def test_an_edit_that_was_taken_back_made_nothing_and_a_redo_makes_it_again(
    person, tmp_path
) -> None:
    flow = person.flow()
    join = flow.apply(accept(person, person.join()))
    flow.apply(flow.take_back(join))
    assert exported(person, tmp_path / "undone", "cb2-v1")["merge_edit"]["after_root_ids"] == []
    again = flow.apply(flow.make_again(person.store.edits.get("join")))
    assert again.edit.kind is EditKind.REDO
    meta = exported(person, tmp_path / "again", "cb2-v1")["merge_edit"]
    assert meta["after_root_ids"] == [str(root) for root in again.step.new_roots]
    assert meta["cb2assist"]["operation_id"] == str(again.step.operation)
