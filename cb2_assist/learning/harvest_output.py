"""What a harvest is for: files that `score`, `evaluate` and training read.

sites.jsonl         what `score --sites` takes, each with the time of the state to read
labels.jsonl        a row a decision with its answer, the columns of `export` and more
datasheet.md        what is in it
train/, val/, …     with views: the export format cb2-v1
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from cb2_assist.core.errors import AssistError, LoginError, NoAnswerError
from cb2_assist.core.records import Site
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.learning import datasheet
from cb2_assist.learning.cb2_cubes import NO_CUBES, Cubes
from cb2_assist.learning.export import Job, Written, write_cb2_v1, write_jsonl
from cb2_assist.learning.export_filter import TEST_CUBE
from cb2_assist.learning.export_views import ExportViews, site_of
from cb2_assist.learning.harvest_folder import Lines, write_whole
from cb2_assist.views.stack import ViewStack, content_sha256, to_bytes

Row = dict[str, Any]

SITES, VIEWS = "sites.jsonl", "views.jsonl"
_OF_A_SITE = ("id", "kind", "segment", "partner", "point_nm", "timestamp")
_NO_MODEL = {"name": "none (edit history)", "sha256": ""}
_NOTE = (
    "These are edits that people made in a shared graph, held against later edits; nobody was "
    "asked. Places where nobody looked are not in it, so shares say nothing about the volume."
)


class Renderer(Protocol):
    """An open dataset with a model's way of looking at it; the assistant."""

    def render(self, site: Site) -> ViewStack:
        """What the model sees of a site.

        Raises:
            AssistError: The site is not there or cannot be read.
        """


class Shown:
    """Views of a harvest's decisions, kept in its folder: each is rendered once.

    Args:
        folder: Of the harvest.
        renderer: Makes views of the state that was chosen last.
        read_at: Chooses the state.
    """

    def __init__(
        self, folder: Path, renderer: Renderer, read_at: Callable[[datetime], None]
    ) -> None:
        self.store = ViewsStore(folder / "views")
        self._renderer, self._read_at = renderer, read_at
        self._lines = Lines(folder / VIEWS, durable=True)
        self.sha256: dict[str, str | None] = {r["id"]: r["sha256"] for r in self._lines}
        """By id of the decision; None: there are no views of it."""

    def add(self, rows: Iterable[Row], on_each: Callable[[int], None]) -> None:
        """Render what is not there yet.

        Args:
            rows: Decisions.
            on_each: Told how many were rendered.

        Raises:
            LoginError: The server refuses the token.
            NoAnswerError: It is down; what was rendered is kept.
        """
        n = 0
        for row in rows:
            if row["id"] in self.sha256:
                continue
            self._read_at(datetime.fromisoformat(row["timestamp"]))
            address, why = None, ""
            try:
                stack = self._renderer.render(site_of(row))
                address = content_sha256(stack)
                self.store.put(to_bytes(stack), address)
            except (LoginError, NoAnswerError):
                raise
            except AssistError as e:
                why = str(e)
            self._lines.add({"id": row["id"], "sha256": address, **({"why": why} if why else {})})
            self.sha256[row["id"]] = address
            n += 1
            on_each(n)

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()


def write_results(
    rows: Callable[[], Iterable[Row]],
    out: Path,
    left_out: Mapping[str, int],
    *,
    cubes: Cubes = NO_CUBES,
    shown: Shown | None = None,
) -> tuple[list[Path], dict[str, int]]:
    """Write a harvest's files anew, each whole or not at all.

    Args:
        rows: All decisions, from the first, each time that it is called.
        out: The harvest's folder.
        left_out: Edits that are no decisions, by reason, for the datasheet.
        cubes: Decisions in a test cube of ConnectomeBench2 are left out.
        shown: Their views, for shards with views.

    Returns:
        The files, and decisions that some file lacks, by reason.

    Raises:
        AssistError: A file cannot be written.
    """
    skipped: Counter[str] = Counter()

    def kept() -> Iterator[Row]:
        for row in rows():
            split = cubes.split_of(row["dataset"], row["point_nm"])
            if split == "test":
                skipped[TEST_CUBE] += 1
            else:
                yield {**row, "cb2_split": split}

    sites = out / SITES
    write_whole(sites, (f"{json.dumps({n: r[n] for n in _OF_A_SITE})}\n" for r in kept()))
    skipped.clear()
    sheet = datasheet.Datasheet()
    views = {} if shown is None else shown.sha256
    store = ViewsStore(out / "views") if shown is None else shown.store

    def job(sheet: datasheet.Datasheet) -> Job:
        labels = (_label(row, views.get(row["id"])) for row in kept())
        return Job(labels, out, ExportViews(store), skipped, sheet)

    try:
        datasheet.check_replaceable(out / datasheet.NAME)
        written = write_jsonl(job(sheet))
        files, notes = [sites, *written.files], [_NOTE]
        if shown is not None:
            skipped.clear()
            shards: Written = write_cb2_v1(job(datasheet.Datasheet()))
            files += shards.files
            notes += shards.notes
        text = sheet.markdown("jsonl", {}, {**left_out, **skipped}, notes)
    except OSError as e:
        raise AssistError(
            f"The results cannot be written to {out}: {e.strerror or e}. Free some space and run "
            "this again; what was harvested is kept."
        ) from e
    write_whole(out / datasheet.NAME, [text])
    return [*files, out / datasheet.NAME], dict(sorted(skipped.items()))


def _label(row: Row, views_sha256: str | None) -> Row:
    """A decision with the columns of `export_rows.COLUMNS` first."""
    site = site_of(row)
    name = site.key(row["dataset"], row["version"])
    columns = {
        "event_id": row["operation_id"],
        "label_id": row["id"],
        "suggestion_id": name,
        "kind": row["kind"],
        "segment": row["segment"],
        "partner": row["partner"],
        "point_nm": row["point_nm"],
        "score": None,
        "confidence": None,
        "interval": None,
        "ood": None,
        "rank": None,
        "supervoxels": row["supervoxels"],
        "views_sha256": views_sha256,
        "verdict": row["verdict"],
        "label": row["label"],
        "reject_reason": "",
        "joint": False,
        "base_rate": None,
        "dataset": row["dataset"],
        "version": row["version"],
        "species": row["species"],
        "licence": row["licence"],
        "model": _NO_MODEL,
        "calibrator": "",
        "user": row["user"],
        "propensity": {"how": "history"},
        "score_hidden": True,
        "shown_at": row["edited_at"],
        "decided_at": row["edited_at"],
        "idle_ms": 0,
        "n_alternatives": 0,
        "timestamp": row["timestamp"],
        "cb2_split": row["cb2_split"],
    }
    more = (
        "sample_type",
        "operation_id",
        "root_id",
        "before",
        "after",
        "sides",
        "sources_nm",
        "sinks_nm",
        "touching",
        "citation",
    )
    return {**columns, **{n: row[n] for n in more}}
