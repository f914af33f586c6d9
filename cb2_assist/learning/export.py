"""Labels as files for training and for others. Reads beside a running server."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cb2_assist.core.errors import AssistError, UsageError
from cb2_assist.labels.filesystem import sync_folder
from cb2_assist.labels.store import LabelStore
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.learning import datasheet
from cb2_assist.learning.export_filter import EVERYTHING, Wanted
from cb2_assist.learning.export_rows import COLUMNS, Row, label_rows
from cb2_assist.learning.export_views import ExportViews, NoViewsError, SiteRenderer
from cb2_assist.views.stack import content_sha256, to_bytes

if TYPE_CHECKING:
    from cb2_assist.learning.cb2_layout import Layout


@dataclass(frozen=True, slots=True)
class Job:
    """What a format writes, and where."""

    rows: Iterable[Row]
    """Labels with the keys `COLUMNS`, oldest first."""
    out: Path
    """An existing folder."""
    views: ExportViews
    skipped: Counter[str]
    """Where a format counts labels that it cannot write, by reason."""
    sheet: datasheet.Datasheet
    """Is told of each row that is written."""

    def told(self) -> Iterator[Row]:
        """All rows, for a format that writes every one."""
        for row in self.rows:
            self.sheet.add(row)
            yield row


class Written(NamedTuple):
    """What a format wrote."""

    rows: int
    files: list[Path]
    notes: tuple[str, ...] = ()


Writer = Callable[[Job], Written]
"""Writes rows as they come."""

_WRITERS: dict[str, Writer] = {}
_WITHOUT_VIEWS = ("jsonl", "csv")
VIEWS = "views"
"""Folder of an export with views."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote."""

    rows: int
    skipped: dict[str, int] = field(default_factory=dict)
    """Answers that were left out, by reason: ``undone``, ``superseded``, ``unsure``, ``skip``.

    Of formats with views also labels whose views cannot be had.
    """
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person should know of this export, in words."""

    def to_json(self) -> dict[str, Any]:
        """For `export --json`."""
        return {
            "rows": self.rows,
            "skipped": self.skipped,
            "files": [str(path) for path in self.files],
            "notes": list(self.notes),
        }


def export_format(name: str) -> Callable[[Writer], Writer]:
    """Register a writer under the name that ``--format`` takes.

    Raises:
        ValueError: The name is taken.
    """

    def register(writer: Writer) -> Writer:
        if name in _WRITERS:
            raise ValueError(f"There is an export format {name!r} already.")
        _WRITERS[name] = writer
        return writer

    return register


def export_formats() -> tuple[str, ...]:
    """The names that ``--format`` takes."""
    return tuple(sorted(_WRITERS))


def export_labels(
    store: LabelStore,
    *,
    out: Path,
    format: str = "jsonl",  # noqa: A002 - the option's name
    dataset: str | None = None,
    wanted: Wanted = EVERYTHING,
    with_names: bool = False,
    renderer: SiteRenderer | None = None,
    with_views: bool = False,
) -> ExportReport:
    """Write one row per label in force: the last accept or reject of a person on a site.

    *None of these* is a reject of each join that was open on screen. Undone and superseded
    decisions, *unsure* and *skip* never become rows. A datasheet is written beside them.

    Args:
        store: May be in use by a server.
        out: Folder for the files; made when missing. Earlier exports of the same format in it are
            replaced, each in one step, once the new one is complete.
        format: One of `export_formats`.
        dataset: Only this one.
        wanted: Which of its labels.
        with_names: Real user names in place of pseudonyms.
        renderer: Makes the views of labels that have none, for formats with views.
        with_views: Beside ``jsonl`` and ``csv`` also a folder ``views`` with what the model saw.

    Raises:
        UsageError: No such format, views are asked for beside one that has them, or ``out`` is no
            folder or holds what others made.
        AssistError: The folder cannot be written.
        LabelError: The labels cannot be read.
    """
    writer = _WRITERS.get(format)
    if writer is None:
        raise UsageError(
            f"There is no export format {format!r}. Known: {', '.join(export_formats())}."
        )
    if with_views and format not in _WITHOUT_VIEWS:
        raise UsageError(f"--with-views goes with jsonl and csv; {format} has the views in it.")
    skipped: Counter[str] = Counter()
    rows = label_rows(store, dataset=dataset, wanted=wanted, with_names=with_names, skipped=skipped)
    views = ExportViews(ViewsStore(store.views_folder), renderer)
    if with_views:
        rows = _copying(rows, views, ViewsStore(out / VIEWS), skipped)
    sheet = datasheet.Datasheet()
    path = out / datasheet.NAME
    try:
        out.mkdir(parents=True, exist_ok=True)
        datasheet.check_replaceable(path)
        written = writer(Job(rows, out, views, skipped, sheet))
        left_out = dict(sorted(skipped.items()))
        notes = (*written.notes, *_what_there_is(store, dataset, written.rows))
        asked = {**({} if dataset is None else {"dataset": dataset}), **wanted.to_json()}
        _write_text(path, [sheet.markdown(format, asked, left_out, notes)])
    except FileExistsError:
        raise UsageError(f"--out names a folder, but {out} is a file.") from None
    except OSError as e:
        raise AssistError(
            f"The export cannot be written to {out}: {e.strerror or e}. Free some space or name "
            "another folder with --out; the labels themselves are untouched."
        ) from e
    return ExportReport(written.rows, left_out, (*written.files, path), notes)


def _copying(
    rows: Iterator[Row], views: ExportViews, to: ViewsStore, skipped: Counter[str]
) -> Iterator[Row]:
    """The rows whose views can be had, each once its views are in the folder."""
    for row in rows:
        try:
            stack = views.stack(row)
        except NoViewsError as e:
            skipped[str(e)] += 1
            continue
        address = content_sha256(stack)
        to.put(to_bytes(stack), address)
        yield {**row, "views_sha256": address}


def _what_there_is(store: LabelStore, dataset: str | None, n: int) -> Iterator[str]:
    """Where nothing of a dataset was found: which datasets there are."""
    if dataset is None or n or next(store.labels(dataset=dataset), None) is not None:
        return
    known = sorted({event.decision.dataset for event in store.events() if event.decision})
    yield (
        f"{store.url} has no labels of a dataset {dataset!r}; it has those of "
        f"{', '.join(known) or 'none'}"
    )


@export_format("jsonl")
def write_jsonl(job: Job) -> Written:
    """One JSON object a line in ``labels.jsonl``; segment ids are text."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in job.told())
    path = job.out / "labels.jsonl"
    return Written(_write_text(path, lines), [path])


@export_format("csv")
def write_csv(job: Job) -> Written:
    """``labels.csv`` as in RFC 4180: a header, one line a label, CR LF, UTF-8.

    Nested values are JSON text, nothing is an empty cell, truth values are ``true`` and ``false``.
    A cell that a spreadsheet could take for a formula has an apostrophe in front. To read a value
    back, take one apostrophe off the front of every cell that begins with one. Ids have up to 20
    digits: let a spreadsheet read them as text.
    """
    path = job.out / "labels.csv"
    lines = _csv_lines(job.told())
    return Written(_write_text(path, lines) - 1, [path])


@export_format("cb2-v1")
def write_cb2_v1(job: Job) -> Written:
    """Parquet shards that ConnectomeBench2's public loader reads; see `cb2_files`, `cb2_rows`."""
    # pyarrow takes a while to import and no other format needs it
    from cb2_assist.learning.cb2_layout import CB2_V1

    return _write_cb2(job, CB2_V1)


@export_format("cb2-v2")
def write_cb2_v2(job: Job) -> Written:
    """Parquet shards with the columns of ConnectomeBench2's second release; see `cb2_rows_v2`."""
    from cb2_assist.learning.cb2_layout import CB2_V2

    return _write_cb2(job, CB2_V2)


def _write_cb2(job: Job, layout: Layout) -> Written:
    from cb2_assist.learning.cb2_files import write_cb2_files
    from cb2_assist.learning.cb2_rows import CB2_SPECIES
    from cb2_assist.learning.cb2_split import Sample

    licences: Counter[str] = Counter()
    profiles: Counter[str] = Counter()
    species: Counter[str] = Counter()
    taken: set[str] = set()

    def rows() -> Iterator[tuple[Row, Sample]]:
        for row in job.rows:
            try:
                stack = job.views.stack(row)
            except NoViewsError as e:
                job.skipped[str(e)] += 1
                continue
            made = layout.row(row, stack, taken)
            job.sheet.add(row)
            taken.add(made["source_archive_sample_hash"])
            licences[f"{row['dataset']}: {row['licence']}"] += 1
            profiles[stack.profile] += 1
            species[row["species"]] += 1
            # of edits of one neuron each names segments of its own, yet they belong together
            shown = (row["segment"], row["partner"], row.get("root_id"))
            names = tuple(f"{row['dataset']}/{name}" for name in shown if name is not None)
            yield made, Sample(made["combined_sample_hash"], names)

    about = {
        "licences": licences,
        "species": species,
        "view_profiles": profiles,
        "left_out": job.skipped,
    }
    files, split = write_cb2_files(rows(), job.out, about, layout)
    notes = [f"train {len(split.train)}, val {len(split.val)}: {split.rule}"]
    notes += [
        f"rows of species {name!r} ({n}): ConnectomeBench2's own training configuration "
        "(full_4sp.yaml) leaves them out unless its include_species names it"
        for name, n in species.items()
        if name not in CB2_SPECIES
    ]
    return Written(len(taken), files, tuple(notes))


_FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠'")


def _csv_lines(rows: Iterable[Row]) -> Iterator[str]:
    buffer = io.StringIO(newline="")
    lines = csv.writer(buffer, lineterminator="\r\n")
    for cells in itertools.chain([COLUMNS], ([row[name] for name in COLUMNS] for row in rows)):
        lines.writerow([_cell(value) for value in cells])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _write_text(path: Path, lines: Iterable[str]) -> int:
    """Write a file whole or not at all; returns the number of lines."""
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}.part")
    n = 0
    try:
        with part.open("x", encoding="utf-8", newline="") as file:
            for n, line in enumerate(lines, 1):  # noqa: B007
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return n
