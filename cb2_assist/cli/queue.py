"""`queue fill`, `queue status` and `queue next`."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cb2_assist.cli.options import (
    Numbers,
    SegmentIdType,
    Triple,
    UserName,
    chosen,
    dataset_options,
    json_option,
    kind_option,
    labels_option,
    model_option,
    model_options,
    open_assistant,
    point_nm,
    unit_option,
)
from cb2_assist.cli.output import tell
from cb2_assist.cli.progress import Seldom
from cb2_assist.core.durations import duration
from cb2_assist.core.errors import BadIdError, BadPointError, UsageError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel
from cb2_assist.core.records import Kind, SegmentId, segment_id
from cb2_assist.settings import login_name

if TYPE_CHECKING:
    from cb2_assist.assistant import Assistant
    from cb2_assist.labels.queue_store import QueueStore, Scope
    from cb2_assist.learning.cover import Stop
    from cb2_assist.learning.fill import FillProgress

Seed = tuple[SegmentId, PointNm | None]

_PROGRESS_S = 2.0


class Box(Numbers):
    """``X0,Y0,Z0,X1,Y1,Z1``."""

    name = "x0,y0,z0,x1,y1,z1"
    words = "six numbers"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Two corners, the second beyond the first."""
        got = super().convert(value, param, ctx)
        if not all(math.isfinite(v) for v in got):
            self.fail(f"{value!r} is not six numbers X0,Y0,Z0,X1,Y1,Z1", param, ctx)
        if not all(a < b for a, b in zip(got[:3], got[3:], strict=True)):
            self.fail(f"{value!r} is empty: X1,Y1,Z1 must lie beyond X0,Y0,Z0", param, ctx)
        return got


_strategy = click.option(
    "--strategy",
    metavar="NAME",
    help="Order of asking: margin (default), random, contact, size, confidence, entropy, "
    "disagreement, badge, coreset, bait, facility, typicality, value, mixture.",
)


@click.group()
def queue() -> None:
    """Sites that wait for a verdict: the most uncertain first, one in ten at random.

    On the page, q goes from one to the next.
    """


@queue.command()
@dataset_options
@model_options
@click.option("--segment", type=SegmentIdType(), help="Go along this segment.")
@click.option("--at", type=Triple(), help="A point on it; needed in large volumes.")
@click.option("--box", type=Box(), help="Go over all segments in this box.")
@click.option(
    "--roots",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Go along these segments: a line `ID` or `ID X Y Z` (nm) each.",
)
@unit_option("--at and --box")
@labels_option
@kind_option
@click.option("--limit", type=click.IntRange(1), help="Stop after so many new sites.")
@_strategy
@json_option
def fill(
    dataset: str | None,
    dataset_file: Path | None,
    model: Path | None,
    device: str,
    backend: str,
    segment: SegmentId | None,
    at: tuple[float, float, float] | None,
    box: tuple[float, ...] | None,
    roots: Path | None,
    unit: str,
    labels: str | None,
    kind: str | None,
    limit: int | None,
    strategy: str | None,
    as_json: bool,
) -> None:
    """Find, judge and queue sites; works beside a running server.

    --strategy holds for this part of the queue from now on, on the page too. One draw in ten is
    random, whatever the strategy; with `random`, all are. How likely each was is kept.

    The same command again goes on where it was broken off, or judges anew what is undecided.
    """
    if sum(v is not None for v in (segment, box, roots)) != 1:
        raise UsageError("Say where: one of --segment ID, --box X0,Y0,Z0,X1,Y1,Z1 or --roots FILE.")
    if at is not None and segment is None:
        raise UsageError("--at goes with --segment. In a --roots file, write `ID X Y Z` (nm).")
    seeds = [] if roots is None else read_roots(roots)
    assistant = open_assistant(dataset, dataset_file, model, device, backend)
    try:
        if segment is not None:
            seeds = [(segment, None if at is None else point_nm(at, unit, assistant.source))]
        scope, stops = _plan(assistant, seeds, box, unit)
        wanted = Kind(kind) if kind else None
        document = _fill(assistant, scope, stops, labels, wanted, limit, strategy)
    finally:
        assistant.close()
    if as_json:
        click.echo(json.dumps(document))
        return
    click.echo(
        f"{document['new']} new sites, {document['updated']} with new numbers, "
        f"{document['waiting']} waiting in {document['scope']}"
    )


def _plan(
    assistant: Assistant, seeds: list[Seed], box: tuple[float, ...] | None, unit: str
) -> tuple[Scope, list[Stop]]:
    from cb2_assist.datasets.source import GraphSource
    from cb2_assist.labels.queue_store import Scope
    from cb2_assist.learning.cover import stops_in_box, stops_on_arbours, stops_on_segments

    name, version, source = assistant.info.name, assistant.info.version, assistant.source
    every = Seldom(_PROGRESS_S)

    def told(text: str) -> None:
        if every.is_due():
            tell(text)

    if box is None:
        scope = Scope(name, version, tuple(sorted({s for s, _ in seeds})))
        if isinstance(source, GraphSource) and all(at is None for _, at in seeds):
            # a neuron of a graph is as long as its volume, and the graph knows where it is odd
            return scope, stops_on_arbours(source, [s for s, _ in seeds])
        return scope, stops_on_segments(source, seeds, told)
    edge = (1.0, 1.0, 1.0) if unit == "nm" else tuple(source.layers.resolution)
    lo, hi = (PointNm.of(v * e for v, e in zip(c, edge, strict=True)) for c in (box[:3], box[3:]))
    voxels = BoxVx(
        lo.to_voxel(source.resolution),
        PointVoxel(*(math.ceil(v / r) for v, r in zip(hi, source.resolution, strict=True))),
    )
    return Scope(name, version, (), (lo, hi)), stops_in_box(source, voxels, told)


def _fill(
    assistant: Assistant,
    scope: Scope,
    stops: list[Stop],
    labels: str | None,
    kind: Kind | None,
    limit: int | None,
    strategy: str | None,
) -> dict[str, Any]:
    from cb2_assist.labels.store import default_labels_url, open_store
    from cb2_assist.learning.fill import fill as run
    from cb2_assist.learning.queue import DEFAULT_STRATEGY
    from cb2_assist.learning.strategies.registry import STRATEGIES

    url = labels or default_labels_url(scope.dataset)
    if strategy is not None:
        STRATEGIES.find(strategy)
    every = Seldom(_PROGRESS_S)

    def told(p: FillProgress) -> None:
        if every.is_due():
            tell(_progress(p))

    with open_store(url) as store:
        if strategy is not None:
            store.queue.set_order(scope, strategy, now=time.time())
        done = run(assistant, store.queue, scope, stops, kind=kind, limit=limit, on_progress=told)
        waiting = len(store.queue.waiting(scope, now=time.time()))
        return {
            "dataset": scope.dataset,
            "version": scope.version,
            "scope": scope.words,
            "labels": store.url,
            "stops": {"done": done.done, "total": done.total, "missed": done.missed},
            "new": done.new,
            "updated": done.updated,
            "waiting": waiting,
            "strategy": store.queue.order(scope) or DEFAULT_STRATEGY,
        }


def _progress(p: FillProgress) -> str:
    left = "" if p.left_s is None else f", about {duration(p.left_s)} left"
    return f"{p.done} of {p.total} places, {p.new} new sites{left}"


def read_roots(path: Path) -> list[Seed]:
    """Segments of a file, a line ``ID`` or ``ID X Y Z`` each; ``#`` begins a comment.

    Raises:
        UsageError: Another kind of line, or none at all.
    """
    seeds: dict[SegmentId, PointNm | None] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as e:
        raise UsageError(f"{path} cannot be read: {e}.") from e
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            point = PointNm.of(float(w) for w in words[1:]) if len(words) > 1 else None
            seeds[segment_id(words[0])] = point
        except (BadIdError, BadPointError, ValueError) as e:
            raise UsageError(f"{path}, line {number}: {e} Write `ID` or `ID X Y Z` (nm).") from e
    if not seeds:
        raise UsageError(f"{path} names no segment. Write a line `ID` or `ID X Y Z` (nm) for each.")
    return list(seeds.items())


def _labels(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--user", type=UserName(), help="Whose next site. Default: your login name."
    )(command)
    return labels_option(command)


@queue.command()
@dataset_options
@_labels
@model_option
@json_option
def status(
    dataset: str | None,
    dataset_file: Path | None,
    labels: str | None,
    user: str | None,
    model: Path | None,
    as_json: bool,
) -> None:
    """Tell how many sites wait, who has which, and which is next; works beside a server."""
    from cb2_assist.app import saved_base_rates
    from cb2_assist.labels.store import open_store
    from cb2_assist.learning.queue_status import status_of

    name, url = _which(dataset, dataset_file, labels)
    with open_store(url, read_only=True) as store:
        document = status_of(
            store.queue,
            dataset=name,
            user=user or login_name(),
            now=time.time(),
            flags=store.flags(dataset=name),
        )
    for part in document["queues"]:
        rates = saved_base_rates(
            part["dataset"], model, sha256s=Counter(part["judged_by"]).elements()
        )
        part["base_rate"] = {k.value: rate.to_json() for k, rate in rates.items()}
    document["labels"] = url
    if as_json:
        click.echo(json.dumps(document))
        return
    if not document["queues"]:
        click.echo("Nothing is queued. Fill it: cb2-assist queue fill --help, or press q.")
    for part in document["queues"]:
        _print_status(part)


def _print_status(part: dict[str, Any]) -> None:
    click.echo(f"{part['dataset']} (version {part['version']}): {part['total']} sites")
    for state, by_kind in part["counts"].items():
        if any(by_kind.values()):
            click.echo(f"  {state:8} {by_kind['join']:6} joins {by_kind['cut']:6} cuts")
    for lease in part["leases"]:
        click.echo(f"  {lease['user']} has {lease['site']} until {lease['until']}")
    for flag in part["flags"]:
        at = ", ".join(f"{v:.0f}" for v in flag["point_nm"])
        click.echo(f"  flagged by {flag['user']}: {flag['kind']} at ({at}) nm: {flag['note']}")
    for kind, rate in part["base_rate"].items():
        click.echo(f"  base rate of {kind}s {rate['value']:.1%} ({rate['source']})")
    if part["oldest_waiting"]:
        click.echo(f"  the oldest that waits was judged at {part['oldest_waiting']}")
    for f in part["fills"]:
        kinds = f" ({f['kind']}s)" if f["kind"] else ""
        click.echo(f"  filled {f['scope']}{kinds}: {f['done']} of {f['total']} places")
    for kind, left in part["remaining"].items():
        if left["random_answers"]:
            low, high = left["interval"]
            click.echo(
                f"  {kind}s left: about {left['value']:.0f} ({low} to {high}), from "
                f"{left['random_answers']} random answers; {left['stop']['text']}"
            )
    click.echo(f"  asked by {part['strategy']}, one in ten at random")
    click.echo(f"  next: {_words(part['next'])}")


@queue.command("next")
@dataset_options
@_labels
@click.option("--segment", type=SegmentIdType(), help="Of this segment. Default: the last fill.")
@_strategy
@click.option("--lease", is_flag=True, help="Draw it for --user, for ten minutes, and log that.")
@json_option
def next_(
    dataset: str | None,
    dataset_file: Path | None,
    labels: str | None,
    user: str | None,
    segment: SegmentId | None,
    strategy: str | None,
    lease: bool,
    as_json: bool,
) -> None:
    """Print the site that comes next."""
    from cb2_assist.labels.store import open_store

    name, url = _which(dataset, dataset_file, labels)
    with open_store(url, read_only=not lease) as store:
        found = _next(store.queue, name, segment, user or login_name(), lease, strategy)
    if as_json:
        click.echo(json.dumps({"next": found}))
    else:
        click.echo(_words(found))


def _next(
    store: QueueStore,
    name: str | None,
    segment: SegmentId | None,
    user: str,
    lease: bool,
    strategy: str | None,
) -> dict[str, Any] | None:
    from cb2_assist.labels.queue_store import Scope
    from cb2_assist.learning.queue import draw
    from cb2_assist.learning.queue_status import default_scope, drawn_site, next_site

    now = time.time()
    places = sorted({(t.dataset, t.version) for t in store.tally(now=now)})
    places = [p for p in places if name in (None, p[0])]
    if not places:
        return None
    # of several versions, the one that was filled last
    fills = {p: store.fills(*p) for p in places}
    place = max(places, key=lambda p: fills[p][0].updated_at if fills[p] else 0.0)
    scope = Scope(*place, (segment,)) if segment else default_scope(fills[place], *place)
    if not lease:
        return next_site(store, scope, user, now=now, strategy=strategy)
    drawn = draw(store, scope, user, now=now, strategy=strategy)
    return None if drawn is None else drawn_site(store, scope, drawn)


def _words(site: dict[str, Any] | None) -> str:
    if site is None:
        return "nothing waits"
    what = f"join {site['segment']} + {site['partner']}"
    if site["partner"] is None:
        what = f"cut {site['segment']}"
    at = ", ".join(f"{v:.0f}" for v in site["point_nm"])
    how = "random" if site["propensity"]["explore"] else "by rank"
    n = site["propensity"]["n_open"]
    return f"{what} at ({at}) nm, score {site['score']:.2f}, {how} of {n}"


def _which(
    dataset: str | None, dataset_file: Path | None, labels: str | None
) -> tuple[str | None, str]:
    """Name of the dataset, if one was given, and the labels' URL."""
    from cb2_assist.app import dataset_name
    from cb2_assist.labels.store import default_labels_url

    if dataset is None and dataset_file is None:
        if labels is None:
            raise UsageError(
                "Say which queue: --labels URL, or --dataset NAME or --dataset-file FILE.toml for "
                "its default label file."
            )
        return None, labels
    name = dataset_name(chosen(dataset, dataset_file))
    return name, labels or default_labels_url(name)


COMMANDS = (queue,)
