"""Labels as files for training and for others. Reads beside a running server."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import itertools
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cb2_assist.core.errors import AssistError, UsageError
from cb2_assist.core.records import Decision, Verdict
from cb2_assist.labels.filesystem import sync_folder
from cb2_assist.labels.store import Label, LabelState, LabelStore
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.learning.export_views import ExportViews, NoViewsError, SiteRenderer

Row = dict[str, Any]

COLUMNS = (
    "event_id",
    "label_id",
    "suggestion_id",
    "kind",
    "segment",
    "partner",
    "point_nm",
    "score",
    "confidence",
    "interval",
    "ood",
    "rank",
    "supervoxels",
    "views_sha256",
    "verdict",
    "label",
    "reject_reason",
    "joint",
    "base_rate",
    "dataset",
    "version",
    "species",
    "licence",
    "model",
    "calibrator",
    "user",
    "propensity",
    "score_hidden",
    "shown_at",
    "decided_at",
    "idle_ms",
    "n_alternatives",
    "timestamp",
)
"""Keys of a row, in order. Later versions add at the end."""


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


class Written(NamedTuple):
    """What a format wrote."""

    rows: int
    files: list[Path]
    notes: tuple[str, ...] = ()


Writer = Callable[[Job], Written]
"""Writes rows as they come."""

_WRITERS: dict[str, Writer] = {}


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
    with_names: bool = False,
    renderer: SiteRenderer | None = None,
) -> ExportReport:
    """Write one row per label in force: the last accept or reject of a person on a site.

    *None of these* is a reject of each join that was open on screen. Undone and superseded
    decisions, *unsure* and *skip* never become rows.

    Args:
        store: May be in use by a server.
        out: Folder for the files; made when missing. Earlier exports of the same format in it are
            replaced, each in one step, once the new one is complete.
        format: One of `export_formats`.
        dataset: Only this one.
        with_names: Real user names in place of pseudonyms.
        renderer: Makes the views of labels that have none, for formats with views.

    Raises:
        UsageError: No such format, or ``out`` is no folder.
        AssistError: The folder cannot be written.
        LabelError: The labels cannot be read.
    """
    writer = _WRITERS.get(format)
    if writer is None:
        raise UsageError(
            f"There is no export format {format!r}. Known: {', '.join(export_formats())}."
        )
    skipped: Counter[str] = Counter()
    rows = label_rows(store, dataset=dataset, with_names=with_names, skipped=skipped)
    views = ExportViews(ViewsStore(store.views_folder), renderer)
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = writer(Job(rows, out, views, skipped))
    except FileExistsError:
        raise UsageError(f"--out names a folder, but {out} is a file.") from None
    except OSError as e:
        raise AssistError(
            f"The export cannot be written to {out}: {e.strerror or e}. Free some space or name "
            "another folder with --out; the labels themselves are untouched."
        ) from e
    return ExportReport(
        written.rows, dict(sorted(skipped.items())), tuple(written.files), written.notes
    )


def label_rows(
    store: LabelStore,
    *,
    dataset: str | None = None,
    with_names: bool = False,
    skipped: Counter[str] | None = None,
) -> Iterator[Row]:
    """The rows of an export, oldest first, in bounded memory.

    Args:
        store: Where the labels are.
        dataset: Only this one.
        with_names: Real user names in place of pseudonyms.
        skipped: Counts answers that are no labels, by reason.
    """
    for label in store.labels(dataset=dataset):
        if label.state is not LabelState.IN_FORCE:
            reason = label.state.value
        elif not label.verdict.is_label:
            reason = label.verdict.value
        else:
            yield _row(store, label, with_names)
            continue
        if skipped is not None:
            skipped[reason] += 1


def pseudonym(user: str, salt: bytes) -> str:
    """A name that stays the same for one label file and does not lead back to the person.

    Returns:
        ``user-`` and 12 hex digits of HMAC-SHA-256.
    """
    return f"user-{hmac.new(salt, user.encode(), hashlib.sha256).hexdigest()[:12]}"


@export_format("jsonl")
def write_jsonl(job: Job) -> Written:
    """One JSON object a line in ``labels.jsonl``; segment ids are text."""
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in job.rows)
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
    lines = _csv_lines(job.rows)
    return Written(_write_text(path, lines) - 1, [path])


@export_format("cb2-v1")
def write_cb2_v1(job: Job) -> Written:
    """Parquet shards that ConnectomeBench2's public loader reads; see `cb2_files`, `cb2_rows`."""
    # pyarrow takes a while to import and no other format needs it
    from cb2_assist.learning.cb2_files import write_cb2_files
    from cb2_assist.learning.cb2_rows import CB2_SPECIES, cb2_row
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
            made = cb2_row(row, stack, taken)
            taken.add(made["source_archive_sample_hash"])
            licences[f"{row['dataset']}: {row['licence']}"] += 1
            profiles[stack.profile] += 1
            species[row["species"]] += 1
            shown = (row["segment"], row["partner"])
            names = tuple(f"{row['dataset']}/{name}" for name in shown if name is not None)
            yield made, Sample(made["combined_sample_hash"], names)

    about = {
        "licences": licences,
        "species": species,
        "view_profiles": profiles,
        "left_out": job.skipped,
    }
    files, split = write_cb2_files(rows(), job.out, about)
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


def _row(store: LabelStore, label: Label, with_names: bool) -> Row:
    event, d = label.event, label.event.decision
    assert d is not None
    site = _site_columns(label, d)
    propensity = site.pop("propensity")
    return {
        "event_id": event.id,
        "label_id": _label_id(label, d, store.salt),
        **site,
        "verdict": label.verdict.value,
        "label": int(label.verdict is Verdict.ACCEPT),
        "reject_reason": label.reason,
        "joint": d.verdict is Verdict.NONE,
        "base_rate": d.base_rate.to_json(),
        "dataset": d.dataset,
        "version": d.version,
        "species": d.species,
        "licence": d.licence,
        "model": {"name": d.model_name, "sha256": d.model_sha256},
        "calibrator": d.calibrator,
        "user": event.user if with_names else pseudonym(event.user, store.salt),
        "propensity": propensity,
        "score_hidden": d.score_hidden,
        "shown_at": d.shown_at,
        "decided_at": d.decided_at,
        "idle_ms": d.idle_ms,
        "n_alternatives": len(d.alternatives),
        "timestamp": d.timestamp or None,
    }


def _label_id(label: Label, d: Decision, salt: bytes) -> str:
    """Names one person's answer on one site: the same in every export of one label file."""
    text = f"{d.dataset}|{d.version}|{label.site}|{label.event.user}"
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()[:16]


def _site_columns(label: Label, d: Decision) -> Row:
    """The decision's own site, or the alternative that *none* closed."""
    if label.site == d.suggestion.id:
        s = d.suggestion.to_json()
        a, b = d.supervoxels
        rank: int | None = d.rank
        ood = s["ood"]
        supervoxels: list[str | None] | None = [str(a), None if b is None else str(b)]
        views = d.views_sha256
        propensity = d.propensity
    else:
        rank, s = next((i, s) for i, s in enumerate(d.alternatives) if s["id"] == label.site)
        ood = s.get("ood")
        supervoxels = s.get("supervoxels")
        views = s.get("views_sha256")
        propensity = s.get("propensity", d.propensity)
    return {
        "suggestion_id": label.site,
        "kind": s["kind"],
        "segment": s["segment"],
        "partner": s["partner"],
        "point_nm": s["point_nm"],
        "score": s.get("score"),
        "confidence": s.get("confidence"),
        "interval": s.get("interval"),
        "ood": ood,
        "rank": rank,
        "supervoxels": supervoxels,
        "views_sha256": views,
        "propensity": propensity,
    }
