"""`agreement` and `queue overlap`: several people on the same sites."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cb2_assist.cli.options import json_option, kind_option, names_option
from cb2_assist.cli.queue import queue
from cb2_assist.core.errors import AssistError, UsageError
from cb2_assist.core.records import Kind

if TYPE_CHECKING:
    from cb2_assist.core.records import Decision
    from cb2_assist.labels.store import LabelStore
    from cb2_assist.learning.ratings import Ratings


@click.command()
@click.option(
    "--labels",
    metavar="URL",
    multiple=True,
    required=True,
    help="Label file; several are compared with each other. Repeatable.",
)
@click.option("--dataset", metavar="NAME", help="Only this dataset.")
@kind_option
@click.option(
    "--queue",
    "to_queue",
    is_flag=True,
    help="Put sites on which people disagree into the queue of the first file, for a further one.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for agreement.json, agreement.md and consensus.jsonl.",
)
@click.option("--draws", type=click.IntRange(100), default=2000, show_default=True, hidden=True)
@names_option
@json_option
def agreement(
    labels: tuple[str, ...],
    dataset: str | None,
    kind: str | None,
    to_queue: bool,
    out: Path | None,
    draws: int,
    with_names: bool,
    as_json: bool,
) -> None:
    """Compare people with each other and with the model; works beside running servers.

    Cohen's and Fleiss' kappa and Krippendorff's alpha with bootstrap intervals by site, McNemar's
    test. The model accepts where its score, as it was when the person answered, is above one half.
    The consensus is the majority; a tie stays one.

    With --queue, q on the page leads to the disagreements, each asked of one person who has not
    answered it; the earlier answers stay as they are. Two people who settle them together do so
    under a name of their own: cb2-assist serve --user NAME.
    """
    from cb2_assist.labels.store import open_store, same_labels
    from cb2_assist.learning.agreement import agreement as compare
    from cb2_assist.learning.agreement_report import agreement_report
    from cb2_assist.learning.export_rows import pseudonym
    from cb2_assist.learning.ratings import read_ratings

    if len({same_labels(url) for url in labels}) < len(labels):
        raise UsageError("The same label file was named twice with --labels.")
    with ExitStack() as stack:
        stores = [
            stack.enter_context(open_store(url, read_only=not (to_queue and n == 0)))
            for n, url in enumerate(labels)
        ]
        ratings = read_ratings(stores, dataset=dataset, kind=Kind(kind) if kind else None)
        salt = stores[0].salt
        document = compare(
            ratings,
            name=lambda user: user if with_names else pseudonym(user, salt),
            labels=labels,
            draws=draws,
        )
        if to_queue:
            document["queued"] = _queue(stores, ratings)
    text = agreement_report(document)
    if out is not None:
        document["files"] = _write(out, document, text, ratings)
    if as_json:
        click.echo(json.dumps(document, allow_nan=False))
        return
    click.echo(text)
    if to_queue:
        click.echo(f"{document['queued']} new sites at the desk of disagreements; press q")
    for file in document.get("files", ()):
        click.echo(f"  {file}")


def _queue(stores: Sequence[LabelStore], ratings: Ratings) -> int:
    from cb2_assist.learning.asks import ask_disagreements
    from cb2_assist.learning.ratings import disagreements

    def found() -> Iterator[tuple[Decision, str, list[str]]]:
        for item, of_item in disagreements(ratings):
            rating = next(iter(of_item.values()))
            decision = stores[rating.file].get(rating.event).decision
            if decision is not None:
                yield decision, item.site, sorted(of_item)

    return ask_disagreements(
        stores[0].queue, found(), after_event=ratings.newest[0], now=time.time()
    )


def _write(out: Path, document: dict[str, Any], text: str, ratings: Ratings) -> list[str]:
    from cb2_assist.learning.ratings import about

    files = [out / name for name in ("agreement.json", "agreement.md", "consensus.jsonl")]
    try:
        out.mkdir(parents=True, exist_ok=True)
        files[0].write_text(
            json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
        )
        files[1].write_text(text, encoding="utf-8")
        with files[2].open("w", encoding="utf-8") as lines:
            for item, of_item in ratings.everything.items():
                lines.write(json.dumps(about(item, of_item), ensure_ascii=False) + "\n")
    except OSError as e:
        raise AssistError(f"{out} cannot be written: {e.strerror or e}. Name another --out.") from e
    return [str(file) for file in files]


@queue.command()
@click.option("--labels", metavar="URL", required=True, help="Label file with the queue.")
@click.option("--dataset", metavar="NAME", help="Only this dataset.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=0.1, show_default=True)
@click.option(
    "--people", type=click.IntRange(2, 20), default=2, show_default=True, help="Who shall answer."
)
@json_option
def overlap(labels: str, dataset: str | None, share: float, people: int, as_json: bool) -> None:
    """Have a share of the sites that wait answered by several people.

    Which ones follows from the sites' names, so that the command may be given again after a fill.
    Each person is asked once; see `cb2-assist agreement`.
    """
    from cb2_assist.labels.queue_store import Scope
    from cb2_assist.labels.store import open_store
    from cb2_assist.learning.asks import ask_overlap

    now = time.time()
    with open_store(labels) as store:
        places = sorted({(t.dataset, t.version) for t in store.queue.tally(now=now)})
        places = [p for p in places if dataset in (None, p[0])]
        if not places:
            what = "nothing" if dataset is None else f"nothing of {dataset!r}"
            raise UsageError(
                f"The queue of {labels} has {what}. Fill it first: cb2-assist queue fill --help."
            )
        n = sum(
            ask_overlap(store.queue, Scope(*p), share=share, people=people, now=now) for p in places
        )
    if as_json:
        click.echo(json.dumps({"labels": labels, "new": n, "share": share, "people": people}))
    else:
        click.echo(f"{n} more sites will be asked of {people} people each")


COMMANDS = (agreement,)
