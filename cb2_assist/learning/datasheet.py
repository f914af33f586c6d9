"""The datasheet of an export, in Markdown: made from the rows alone, in bounded memory.

After the questions of Gebru et al. (Datasheets for Datasets, CACM 64(12):86, 2021): what is in it,
who decided, how the items came to be asked, and what it cannot be used for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cb2_assist import __version__
from cb2_assist.core.errors import UsageError
from cb2_assist.learning.evaluation_report import cell, table
from cb2_assist.learning.export_filter import utc

NAME = "datasheet.md"
_TITLE = "# Labels of cb2-assist: datasheet"
_NON_COMMERCIAL = ("-nc", "noncommercial", "non-commercial")
_MOST_LINES = 30

Row = dict[str, Any]


class Datasheet:
    """Counts rows as they are written."""

    def __init__(self) -> None:
        self.n = 0
        self._answers: Counter[tuple[str, str]] = Counter()
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _TABLES}
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._backwards = 0
        self._joint = 0

    def add(self, row: Row) -> None:
        """Count a row of `export_rows.label_rows`."""
        self.n += 1
        self._answers[row["kind"], row["verdict"]] += 1
        self._joint += row["joint"]
        for name, of in _TABLES.items():
            self._counts[name][of(row)] += 1
        try:
            decided = utc(datetime.fromisoformat(row["decided_at"]))
            shown = utc(datetime.fromisoformat(row["shown_at"]))
        except ValueError:
            return
        self._backwards += decided < shown
        self._first = decided if self._first is None else min(self._first, decided)
        self._last = decided if self._last is None else max(self._last, decided)

    def markdown(
        self, form: str, asked: Mapping[str, Any], skipped: Mapping[str, int], notes: Sequence[str]
    ) -> str:
        """The sheet.

        Args:
            form: Name of the export format.
            asked: Filters, as `export_filter.Wanted.to_json` tells them.
            skipped: Answers that were left out, by reason.
            notes: What else a person should know.
        """
        return "\n".join([*self._head(form, asked), *self._body(), *self._tail(skipped, notes)])

    def _head(self, form: str, asked: Mapping[str, Any]) -> Iterator[str]:
        yield from (_TITLE, "")
        yield (
            f"{self.n} labels in the format `{form}`, written by cb2-assist {__version__}. A label "
            "is one person's accept or reject, in force when this was written, of one proposed "
            "edit: *join* (these two segments are one neuron) or *cut* (this segment holds two "
            "neurons here). Undone and replaced answers, *unsure* and *skip* are no labels."
        )
        yield ""
        for name, value in asked.items():
            yield f"- asked for: {name} {cell(_words(value))}"
        if self._first is not None and self._last is not None:
            days = f"{self._first:%Y-%m-%d} to {self._last:%Y-%m-%d}"
            yield f"- decided: {days} (UTC, by the clocks of the machines that recorded them)"
        yield ""

    def _body(self) -> Iterator[str]:
        kinds = sorted({kind for kind, _ in self._answers})
        yield from ("## Answers", "")
        rows = []
        for kind in kinds:
            yes, no = self._answers[kind, "accept"], self._answers[kind, "reject"]
            rows.append((kind, str(yes), str(no), f"{100 * yes / (yes + no):.1f} %"))
        yield from table(("kind", "accept", "reject", "accepted"), rows)
        if self._joint:
            yield f"{self._joint} rejects come from *none of these* on several joins at one end."
            yield ""
        for name, counts in self._counts.items():
            yield from (f"## {name}", "")
            yield from _counted(counts, self.n)

    def _tail(self, skipped: Mapping[str, int], notes: Sequence[str]) -> Iterator[str]:
        if skipped:
            yield from ("## Left out", "")
            yield from table(("why", "answers"), [(cell(w), str(n)) for w, n in skipped.items()])
        yield from ("## Limits", "")
        yield from (f"- {limit}" for limit in (*self._limits(), *map(cell, notes)))
        yield ""

    def _limits(self) -> Iterator[str]:
        asked = self._counts[_ASKED]
        no_sample = asked.total() - asked[_RANDOM] - asked[_BY_RANK]
        if no_sample:
            yield (
                f"{no_sample} of {self.n} were not drawn by the queue: where a person pointed, or "
                "what stood beside it. Shares among those say nothing about the volume."
            )
        if asked[_BY_RANK]:
            yield (
                "Sites drawn by rank are those that the model was least sure of. For rates over "
                "all sites weight each label by `propensity.probability`, or use the random draws "
                f"alone ({asked[_RANDOM]})."
            )
        people = self._counts[_PEOPLE]
        if len(people) == 1:
            yield "One person decided all of it: there is no measure of agreement."
        elif people:
            name, most = people.most_common(1)[0]
            yield f"{100 * most / self.n:.0f} % are by one of {len(people)} people ({cell(name)})."
        shown = self._counts[_SCORE][_SHOWN]
        if shown:
            yield (
                f"In {shown} of {self.n} the model's score was on screen before the answer: those "
                "are not independent of the model."
            )
        licences = self._counts[_LICENCES]
        closed = [x for x in licences if any(m in x.lower() for m in _NON_COMMERCIAL)]
        if closed:
            yield (
                f"Not for commercial use: {', '.join(map(cell, sorted(closed)))}. "
                "`--not-licence '*NC*'` leaves such labels out."
            )
        if len(licences) > 1:
            yield "Labels have several licences: each row carries its own."
        if self._counts[_CUBES]["unknown"]:
            yield (
                f"For {self._counts[_CUBES]['unknown']} it is not known in which part of "
                "ConnectomeBench2 the place lies: do not mix them with figures on its test part."
            )
        if self._backwards:
            yield (
                f"In {self._backwards} the clock ran backwards (decided before shown): order is by "
                "`event_id`, and their times mean nothing."
            )
        yield "Answers are opinions from images, not ground truth; nobody has checked them."


_PEOPLE, _LICENCES, _ASKED, _SCORE, _CUBES = (
    "Who decided",
    "Licence of the data",
    "How the sites came to be asked",
    "Whether the score was seen",
    "ConnectomeBench2's split",
)
_RANDOM, _BY_RANK = "drawn by the queue, at random", "drawn by the queue, by rank"
_SHOWN, _HIDDEN = "shown while deciding", "hidden until the answer"
_HOW = {
    "cursor": "where a person pointed",
    "queue_list": "on the list beside a drawn site",
    "history": "an edit that somebody made, or beside one",
}


def _asked(row: Row) -> str:
    propensity = row["propensity"]
    how = str(propensity.get("how"))
    if how == "queue":
        return _RANDOM if propensity.get("explore") else _BY_RANK
    return _HOW.get(how, how)


_TABLES: dict[str, Callable[[Row], str]] = {
    _PEOPLE: lambda row: row["user"],
    "Species": lambda row: row["species"],
    "Dataset and segmentation version": lambda row: f"{row['dataset']}, {row['version']}",
    _LICENCES: lambda row: row["licence"],
    "Model whose suggestion it was": lambda row: (
        f"{row['model']['name']} ({row['model']['sha256'][:12]}), calibrator {row['calibrator']}"
    ),
    _ASKED: _asked,
    _SCORE: lambda row: _HIDDEN if row["score_hidden"] else _SHOWN,
    _CUBES: lambda row: row["cb2_split"],
}


def check_replaceable(path: Path) -> None:
    """Refuse to write over a sheet that is not ours.

    Raises:
        UsageError: Another program made it.
    """
    if path.exists() and not path.read_bytes().startswith(_TITLE.encode()):
        raise UsageError(
            f"{path} was not made by this program and will not be replaced. Name another folder "
            "with --out."
        )


def _counted(counts: Counter[str], total: int) -> Iterator[str]:
    common = counts.most_common(_MOST_LINES)
    rows = [(cell(name), str(n), f"{100 * n / total:.1f} %") for name, n in common]
    yield from table(("", "labels", "share"), rows)
    if len(counts) > _MOST_LINES:
        yield f"… and {len(counts) - _MOST_LINES} more."
        yield ""


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
