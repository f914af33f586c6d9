"""`suggest` and `score`: the same pipeline without a browser."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import click

from cb2_assist.cli.options import (
    SegmentIdType,
    Triple,
    dataset_options,
    json_option,
    kind_option,
    model_options,
    open_assistant,
    point_nm,
    unit_option,
)
from cb2_assist.cli.output import tell
from cb2_assist.core.errors import AssistError, UsageError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import BaseRate, Kind, SegmentId, Site, segment_id
from cb2_assist.datasets.source import GraphSource, PastSource
from cb2_assist.learning.export_filter import read_time
from cb2_assist.settings import MAX_CANDIDATES

if TYPE_CHECKING:
    from cb2_assist.assistant import Assistant
    from cb2_assist.datasets.source import Source


@click.command()
@dataset_options
@model_options
@click.option("--at", type=Triple(), required=True, help="Point on the segment.")
@unit_option("--at")
@click.option("--segment", type=SegmentIdType(), help="Default: the segment at the point.")
@kind_option
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_CANDIDATES),
    default=MAX_CANDIDATES,
    show_default=True,
    help="Most candidates to judge.",
)
@json_option
def suggest(
    dataset: str | None,
    dataset_file: Path | None,
    model: Path | None,
    device: str,
    backend: str,
    at: tuple[float, float, float],
    unit: str,
    segment: SegmentId | None,
    kind: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Suggest joins and cuts at a point, exactly as the page shows them."""
    assistant = open_assistant(dataset, dataset_file, model, device, backend)
    try:
        found = assistant.suggest(
            point_nm(at, unit, assistant.source), segment, Kind(kind) if kind else None, limit
        )
    finally:
        assistant.close()
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    for s in found.suggestions:
        what = (
            f"join {s.site.segment} + {s.site.partner}"
            if s.site.partner
            else f"cut {s.site.segment}"
        )
        # as on the page: a number that does not hold is not shown
        number = "not reliable here" if s.ood.flag else f"{s.confidence:6.1%}"
        click.echo(f"{number:17}  {what}  {s.reason}")
    for words in (found.note, found.uncalibrated):
        if words:
            click.echo(words)


@click.command()
@dataset_options
@model_options
@click.option(
    "--sites",
    type=click.Path(path_type=Path, allow_dash=True),
    required=True,
    help='JSON lines {"id","kind","segment","partner","point_nm"}; - for stdin. With "timestamp" '
    "(ISO 8601) a graph is read as it was then.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, allow_dash=True), required=True, help="- for stdout."
)
@click.option(
    "--batch", type=click.IntRange(1), default=16, show_default=True, help="Sites at once."
)
@click.option("--threads", type=click.IntRange(1), help="Default: one per core.")
@click.option(
    "--base-rate",
    default="state",
    show_default=True,
    metavar="state|auto|0..1",
    help="For the confidence: the dataset's saved rate, an estimate from the scores of these sites "
    "(which judges them twice; refused in words where it would not hold), or a number.",
)
def score(
    dataset: str | None,
    dataset_file: Path | None,
    model: Path | None,
    device: str,
    backend: str,
    sites: Path,
    out: Path,
    batch: int,
    threads: int | None,
    base_rate: str,
) -> None:
    """Judge given sites, in order.

    Each answer repeats id, kind, segment, partner, point_nm and timestamp and adds score,
    confidence, interval and ood, or error.
    """
    rate = None if base_rate == "auto" else _base_rate(base_rate)
    if str(out) != "-" and out.exists() and sites.exists() and out.samefile(sites):
        raise UsageError(f"--sites and --out are both {out}. Write the answers to another file.")
    with ExitStack() as stack:
        source = stack.enter_context(_input(sites))
        assistant = open_assistant(dataset, dataset_file, model, device, backend, threads)
        stack.callback(assistant.close)
        rates = dict.fromkeys(Kind, rate) if rate else assistant.base_rates
        if assistant.uncalibrated:
            tell(assistant.uncalibrated)
        sink = stack.enter_context(_output(out))
        lines: Iterable[str] = source
        if base_rate == "auto":
            lines = list(source)
            rates = _estimated(assistant, lines, batch)
        for row in _scored(assistant, lines, batch, rates):
            sink.write(json.dumps(row) + "\n")


def _estimated(assistant: Assistant, lines: Iterable[str], batch: int) -> dict[Kind, BaseRate]:
    """Rates from the scores of the sites themselves; says what they are."""
    from cb2_assist.learning.batch_rate import rates_from_scores
    from cb2_assist.learning.recalibrate import Model
    from cb2_assist.model.card import check_card
    from cb2_assist.suggestions.calibration import calibrator_from_card

    scores: dict[Kind, list[float]] = {kind: [] for kind in Kind}
    for row in _scored(assistant, lines, batch, assistant.base_rates):
        if "score" in row:
            scores[Kind(row["kind"])].append(row["score"])
    loaded = check_card(next(Path(m["folder"]) for m in assistant.known_models() if m["in_use"]))
    own = Model(loaded.sha256, loaded.card, calibrator_from_card(loaded.card))
    rates, words = rates_from_scores(scores, own, assistant.base_rates)
    for line in words:
        tell(line)
    return rates


def _scored(
    assistant: Assistant, lines: Iterable[str], batch: int, rates: dict[Kind, BaseRate]
) -> Iterator[dict[str, Any]]:
    """Answers in order; lines that are no sites become errors in their place."""
    rows: list[_Given] = []
    states = _States(assistant.source)

    def flush() -> Iterator[dict[str, Any]]:
        if rows:
            states.read(rows[0].at)
        answers = assistant.score(
            [r.site for r in rows if r.site is not None], batch=batch, base_rates=rates
        )
        for given, site, error, _ in rows:
            if site is None:
                yield {**given, "error": error}
                continue
            answer = next(answers)
            if answer.suggestion is None:
                yield {**given, "error": answer.error}
            else:
                s = answer.suggestion
                yield {
                    **given,
                    "score": s.score,
                    "confidence": s.confidence,
                    "interval": list(s.interval),
                    "ood": s.ood.to_json(),
                    "base_rate": rates[site.kind].to_json(),
                }
        rows.clear()

    for number, line in enumerate(lines, 1):
        if line.strip():
            row = states.check(_read_site(line, number), number)
            # sites of one batch share a state
            if rows and row.at != rows[0].at:
                yield from flush()
            rows.append(row)
        if len(rows) == batch:
            yield from flush()
    yield from flush()
    states.read(None)


class _Given(NamedTuple):
    """A line of sites, and why it is none."""

    answer: dict[str, Any]
    """What the answer repeats."""
    site: Site | None
    error: str
    at: datetime | None = None
    """The state to read; None: the present one."""


class _States:
    """Reads a graph as it was when a site asks for it, and as it is for the others."""

    def __init__(self, source: Source) -> None:
        self._source = source if isinstance(source, PastSource) else None
        self._present: datetime | None = None
        if isinstance(source, GraphSource):
            self._present = datetime.fromisoformat(source.timestamp)

    def check(self, row: _Given, number: int) -> _Given:
        """The row, or an error in its place where the dataset has no other state."""
        if row.at is None or self._source is not None:
            return row
        why = f"line {number}: this dataset has one state only; leave timestamp out"
        return _Given(row.answer, None, why)

    def read(self, at: datetime | None) -> None:
        """Choose a state; None is the present one."""
        wanted = at or self._present
        if self._source is not None and wanted is not None:
            self._source.read_at(wanted)


def _read_site(line: str, number: int) -> _Given:
    given: dict[str, Any] = {"id": None}
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            return _Given(given, None, f"line {number} is not a JSON object")
        given = {k: row.get(k) for k in ("id", "kind", "segment", "partner", "point_nm")}
        at = None
        if row.get("timestamp") is not None:
            given["timestamp"] = row["timestamp"]
            at = read_time(str(row["timestamp"]), f"line {number}: timestamp")
        partner = row.get("partner")
        site = Site(
            Kind(row["kind"]),
            segment_id(row["segment"]),
            None if partner is None else segment_id(partner),
            PointNm.of(row["point_nm"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError, AssistError) as e:
        what = f"{e} is missing" if isinstance(e, KeyError) else str(e)
        return _Given(given, None, f"line {number}: {what}")
    # ids are text on the way out, however they came in
    given["segment"] = str(site.segment)
    given["partner"] = None if site.partner is None else str(site.partner)
    return _Given(given, site, "", at)


def _base_rate(text: str) -> BaseRate | None:
    if text == "state":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise UsageError(
            f"--base-rate takes state, auto or a number between 0 and 1, got {text!r}."
        )
    return BaseRate(value, "given", 0)


def _input(sites: Path) -> AbstractContextManager[IO[str]]:
    if str(sites) == "-":
        return nullcontext(sys.stdin)
    try:
        # a byte that is no UTF-8 spoils its own line, not the file
        return sites.open(encoding="utf-8", errors="replace")
    except OSError as e:
        raise UsageError(f"The sites {sites} cannot be read: {e.strerror}.") from e


def _output(out: Path) -> AbstractContextManager[IO[str]]:
    if str(out) == "-":
        return nullcontext(sys.stdout)
    try:
        return out.open("w", encoding="utf-8")
    except OSError as e:
        raise UsageError(f"{out} cannot be written: {e.strerror}.") from e


COMMANDS = (suggest, score)
