"""`harvest`: the edits that people made in a graph, as decisions with answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cb2_assist.cli.options import SegmentIdType, chosen, dataset_options, with_login
from cb2_assist.cli.progress import ProgressLine, Seldom
from cb2_assist.core.durations import duration
from cb2_assist.core.errors import AssistError, UsageError
from cb2_assist.core.records import SegmentId
from cb2_assist.learning.export_filter import read_time

if TYPE_CHECKING:
    from cb2_assist.app import DatasetChoice
    from cb2_assist.datasets.cave.source import CaveSource
    from cb2_assist.learning.cb2_cubes import Cubes
    from cb2_assist.learning.harvest import Harvest, Progress, Report
    from cb2_assist.learning.harvest_output import Renderer

_PER_S = 4.0


@click.command()
@dataset_options
@click.option(
    "--roots",
    type=click.Path(path_type=Path),
    help="Text file of objects, an id first on each line.",
)
@click.option("--root", type=SegmentIdType(), multiple=True, help="An object; again for more.")
@click.option("--since", metavar="TIME", help="Only edits of then or later, ISO 8601, UTC.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder. The same command again goes on where it stopped.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.01, 100),
    default=_PER_S,
    show_default=True,
    help="Most requests a second to the graph's server, which others use as well.",
)
@click.option(
    "--near-nm",
    type=click.FloatRange(0),
    default=2500.0,
    show_default=True,
    help="A later cut of the object within this distance casts doubt on a join or a control.",
)
@click.option(
    "--controls",
    type=click.IntRange(0, 16),
    default=3,
    show_default=True,
    help="Most neighbours of a merge that become rejected joins.",
)
@click.option(
    "--views",
    is_flag=True,
    help="Also render what a model sees of each: shards in cb2-v1 for evaluate and training.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Whose views those are. Default: the shipped one's.",
)
@click.option(
    "--cb2-cubes",
    type=click.Path(path_type=Path),
    metavar="CSV",
    help="Cubes of ConnectomeBench2's split, as for export: what lies in a test cube is left out.",
)
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON on stdout.")
def harvest(
    dataset: str | None,
    dataset_file: Path | None,
    roots: Path | None,
    root: tuple[SegmentId, ...],
    since: str | None,
    out: Path,
    rate: float,
    near_nm: float,
    controls: int,
    views: bool,
    model: Path | None,
    cb2_cubes: Path | None,
    as_json: bool,
) -> None:
    """Turn a graph's edit history into decisions, in the state before each edit.

    Merges become accepted joins, splits accepted cuts; neighbours of a merge become rejected joins
    and its seam a rejected cut. What was undone or contradicted later is left out, and counted.

    --out gets sites.jsonl for `score --sites`, labels.jsonl with the answers, datasheet.md, and
    with --views what `evaluate --data` takes. People are pseudonyms. Later edits count up to the
    moment at which the harvest was begun.
    """
    from cb2_assist.learning.cb2_cubes import NO_CUBES, read_cubes
    from cb2_assist.learning.harvest import Harvest, Wanted, pseudonym_salt, read_roots

    if (roots is None) == (not root):
        raise UsageError("Name objects: --root ID, again for more, or --roots FILE.")
    if model is not None and not views:
        raise UsageError("--model says whose views are rendered: it goes with --views.")
    wanted = Wanted(
        tuple(dict.fromkeys(root)) if roots is None else read_roots(roots),
        None if since is None else read_time(since, "--since"),
        near_nm,
        controls,
        pseudonym_salt(),
    )
    cubes = NO_CUBES if cb2_cubes is None else read_cubes(cb2_cubes)
    with ExitStack() as stack:
        opened = _open(chosen(dataset, dataset_file), model, with_views=views)
        stack.callback(opened.close)
        history = opened.source.history
        history.limit(rate)
        until = datetime.fromisoformat(opened.source.timestamp)
        work = Harvest(history, opened.source.info, wanted, out, until)
        stack.callback(work.close)
        line = stack.enter_context(ProgressLine())
        try:
            report = work.run(_edits_told(line))
            files, skipped = _written(work, opened, report, cubes, line)
        except AssistError:
            line(f"broken off; what was found is kept in {out}, the same command goes on")
            raise
    _say(report, files, skipped, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Opened:
    source: CaveSource
    close: Callable[[], None]
    renderer: Renderer | None


def _open(choice: DatasetChoice, model: Path | None, *, with_views: bool) -> _Opened:
    """The graph, and where views are wanted what makes them.

    Raises:
        UsageError: The dataset is no graph.
    """
    from cb2_assist.app import build_assistant
    from cb2_assist.datasets.cave.source import CaveSource
    from cb2_assist.datasets.registry import open_dataset

    if with_views:
        assistant = with_login(lambda: build_assistant(choice, model=model, network=False))
        source, close, renderer = assistant.source, assistant.close, assistant
    else:
        source = with_login(lambda: open_dataset(choice.name, choice.file))
        close, renderer = source.close, None
    if not isinstance(source, CaveSource):
        close()
        raise UsageError(
            f"{source.info.name} is a plain volume without an edit history. Harvest from a graph, "
            "e.g. --dataset minnie65, or a dataset file with [cave]."
        )
    return _Opened(source, close, renderer)


def _written(
    work: Harvest, opened: _Opened, report: Report, cubes: Cubes, line: ProgressLine
) -> tuple[list[Path], dict[str, int]]:
    from cb2_assist.learning.harvest_output import Shown, write_results

    out = work.folder.folder
    if opened.renderer is None:
        return write_results(work.rows, out, report.left_out, cubes=cubes)
    shown = Shown(out, opened.renderer, opened.source.read_at)
    try:
        left = sum(row["id"] not in shown.sha256 for row in work.rows())
        shown.add(work.rows(), _views_told(line, left))
        return write_results(work.rows, out, report.left_out, cubes=cubes, shown=shown)
    finally:
        shown.close()


def _edits_told(line: ProgressLine) -> Callable[[Progress], None]:
    every = Seldom(line.every_s)

    def tell(p: Progress) -> None:
        if every.is_due() or p.done == p.total:
            line(
                f"{p.done} of {p.total} edits ({100 * p.done / p.total:.0f} %), {p.decisions} "
                f"decisions, {duration(p.left_s or 0.0)} left"
            )

    return tell


def _views_told(line: ProgressLine, total: int) -> Callable[[int], None]:
    every, begun = Seldom(line.every_s), time.monotonic()

    def tell(n: int) -> None:
        if every.is_due() or n == total:
            left_s = (time.monotonic() - begun) / n * (total - n)
            line(f"views of {n} of {total} ({100 * n / total:.0f} %), {duration(left_s)} left")

    return tell


def _say(report: Report, files: list[Path], skipped: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        document = {**report.to_json(), "skipped": skipped, "files": [str(f) for f in files]}
        click.echo(json.dumps(document))
        return
    for text in _summary(report, skipped):
        click.echo(text)
    for path in files:
        click.echo(str(path))


def _summary(report: Report, skipped: dict[str, int]) -> Iterator[str]:
    yield f"{report.edits} edits, of which {report.used} gave decisions"
    for name, n in report.by_type.items():
        yield f"{n:7} {name}"
    for why, n in report.left_out.items():
        yield f"{n:7} left out: {why}"
    for why, n in skipped.items():
        yield f"{n:7} not in every file: {why}"
    for root, why in report.unread.items():
        yield f"{root}: {why}"
    if report.waiting:
        yield f"{report.waiting} edits got no full answer: run the same command again"


COMMANDS = (harvest,)
