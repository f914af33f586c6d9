"""Labels as files for training and for others. Reads beside a running server."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cb2_assist.core.errors import AssistError, UsageError
from cb2_assist.core.records import Decision, Verdict
from cb2_assist.labels.filesystem import sync_folder
from cb2_assist.labels.store import Label, LabelState, LabelStore

Row = dict[str, Any]
Writer = Callable[[Iterable[Row], Path], list[Path]]
"""Writes rows into an existing folder as they come; returns the files."""

_WRITERS: dict[str, Writer] = {}


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote."""

    rows: int
    skipped: dict[str, int] = field(default_factory=dict)
    """Answers that are no labels, by reason: ``undone``, ``superseded``, ``unsure``, ``skip``."""
    files: tuple[Path, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For `export --json`."""
        return {
            "rows": self.rows,
            "skipped": self.skipped,
            "files": [str(path) for path in self.files],
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
    counted = _Counted(label_rows(store, dataset=dataset, with_names=with_names, skipped=skipped))
    try:
        out.mkdir(parents=True, exist_ok=True)
        files = writer(counted, out)
    except FileExistsError:
        raise UsageError(f"--out names a folder, but {out} is a file.") from None
    except OSError as e:
        raise AssistError(
            f"The export cannot be written to {out}: {e.strerror or e}. Free some space or name "
            "another folder with --out; the labels themselves are untouched."
        ) from e
    return ExportReport(counted.n, dict(sorted(skipped.items())), tuple(files))


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
def write_jsonl(rows: Iterable[Row], out: Path) -> list[Path]:
    """One JSON object a line in ``labels.jsonl``; segment ids are text."""
    path = out / "labels.jsonl"
    part = out / f".labels-{secrets.token_hex(4)}.part"
    try:
        with part.open("x", encoding="utf-8", newline="\n") as lines:
            for row in rows:
                lines.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            lines.flush()
            os.fsync(lines.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(out)
    return [path]


class _Counted:
    """Counts rows on their way through."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self.n = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.n += 1
            yield row


def _row(store: LabelStore, label: Label, with_names: bool) -> Row:
    event, d = label.event, label.event.decision
    assert d is not None
    return {
        "event_id": event.id,
        **_site_columns(label, d),
        "verdict": label.verdict.value,
        "label": int(label.verdict is Verdict.ACCEPT),
        "joint": d.verdict is Verdict.NONE,
        "base_rate": d.base_rate.to_json(),
        "dataset": d.dataset,
        "version": d.version,
        "species": d.species,
        "licence": d.licence,
        "model": {"name": d.model_name, "sha256": d.model_sha256},
        "calibrator": d.calibrator,
        "user": event.user if with_names else pseudonym(event.user, store.salt),
        "propensity": d.propensity,
        "score_hidden": d.score_hidden,
        "shown_at": d.shown_at,
        "decided_at": d.decided_at,
        "idle_ms": d.idle_ms,
        "n_alternatives": len(d.alternatives),
    }


def _site_columns(label: Label, d: Decision) -> Row:
    """The decision's own site, or the alternative that *none* closed."""
    if label.site == d.suggestion.id:
        s = d.suggestion.to_json()
        a, b = d.supervoxels
        rank: int | None = d.rank
        ood = s["ood"]
        supervoxels: list[str | None] | None = [str(a), None if b is None else str(b)]
        views = d.views_sha256
    else:
        rank, s = next((i, s) for i, s in enumerate(d.alternatives) if s["id"] == label.site)
        ood = None
        supervoxels = s.get("supervoxels")
        views = s.get("views_sha256")
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
    }
