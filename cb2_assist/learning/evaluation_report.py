"""``report.md``: an evaluation in words and tables, made from ``metrics.json`` alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Entry = dict[str, Any]

_NAMES = {
    "balanced_accuracy": "balanced accuracy, score > 0.5",
    "accuracy": "accuracy, score > 0.5",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "ece15": "ECE-15 of the confidence",
    "brier": "Brier score of the confidence",
    "nll": "NLL of the confidence, nats",
    "ece15_score": "ECE-15 of the score",
    "brier_score": "Brier score of the score",
    "nll_score": "NLL of the score, nats",
    "sensitivity": "sensitivity, confidence > 0.5",
    "specificity": "specificity, confidence > 0.5",
    "precision": "precision, confidence > 0.5",
}
_SHORT = ("balanced_accuracy", "accuracy", "auroc", "average_precision", "ece15", "brier")
_AXES = {
    "species": "By species",
    "sample_type": "By sample type",
    "modality": "By what the model sees",
}
_FEW_CLUSTERS = 10
_LEFT_OUT = {
    "skipped": "Rows left out, in no figure",
    "unscored": "Decisions without a score, counted as wrong",
    "mismatches": "Shown otherwise than the model's card asks (rows)",
}


def report(result: Entry, plots: Sequence[str] = ()) -> str:
    """Markdown of a ``metrics.json``.

    Args:
        result: What `evaluate.evaluate` wrote.
        plots: Files beside the report.
    """
    return "\n".join([*_head(result), *_tasks(result, plots), *_tail(result)]) + "\n"


def _head(result: Entry) -> Iterator[str]:
    model = result["model"]
    yield f"# {cell(model['name'])} on {cell(result['data'])}"
    yield ""
    yield (
        f"{result['n']} decisions with a known answer, {result['n_scored']} with a score. "
        "A decision is one operation, all its views combined."
    )
    yield ""
    yield f"- model: weights SHA-256 `{model['sha256'][:16]}…`, views `{model['profile']}`, "
    yield f"  calibrator `{model['calibrator']}`"
    splits = ", ".join(result.get("splits") or []) or "none named"
    of = f"; split: {splits}" if "splits" in result else ""
    yield f"- data: {cell(result['format'])}{of}"
    interval = result["interval"]
    what = "; ".join(
        f"{n} decisions by {cell(kind)}, {interval.get(kind, kind)}"
        for kind, n in interval["clusters"].items()
    )
    yield (
        f"- intervals: 95 %, {interval['draws']} draws; whole clusters are resampled, never single "
        f"decisions. Clusters: {what}."
    )
    yield ""


def _tasks(result: Entry, plots: Sequence[str]) -> Iterator[str]:
    for task, entry in result["tasks"].items():
        yield from (f"## {task}", "")
        yield (
            f"{entry['n']} decisions, {entry['n_scored']} scored, {entry['n_clusters']} clusters, "
            f"{_percent(entry['positive_rate'])} true."
        )
        if entry["n_clusters"] < _FEW_CLUSTERS:
            yield (f"**Only {entry['n_clusters']} clusters: intervals are missing or too narrow.**")
        yield ""
        rows = [(label, figure(entry[name])) for name, label in _NAMES.items()]
        yield from table(("figure", "value [95 %]"), rows)
        yield from _published(result, task, entry)
        for file in plots:
            if file.startswith(f"{task}-"):
                yield f"![{task}: {file.removesuffix('.svg').partition('-')[2]}]({file})"
        yield ""
        for name, who in entry.get("subsets", {}).items():
            yield from (f"### {cell(name)}", "")
            yield from _short(who)
        for axis, title in _AXES.items():
            if entry["by"][axis]:
                yield from (f"### {title}", "")
                yield from _short(entry["by"][axis])
        yield from _compared(result, task)


def _published(result: Entry, task: str, entry: Entry) -> Iterator[str]:
    lines = result["published"]["tasks"].get(task)
    if not lines:
        return
    ours = [(f"**{cell(result['model']['name'])}, here**", figure(entry["balanced_accuracy"]))]
    others = [(f"{cell(name)}, published", f"{value:.3f}") for name, value in lines.items()]
    yield from table(("who", "balanced accuracy"), [*ours, *others])
    yield f"*{result['published']['caveat']}* Source: {result['published']['source']}."
    yield ""


def _short(entries: dict[str, Entry]) -> Iterator[str]:
    rows = [
        (cell(name), str(e["n"]), _percent(e["positive_rate"]), *(figure(e[k]) for k in _SHORT))
        for name, e in entries.items()
        if e["n"]
    ]
    names = ("set", "n", "true", *(_NAMES[k].partition(",")[0] for k in _SHORT))
    yield from table(names, rows)


def _compared(result: Entry, task: str) -> Iterator[str]:
    entry = result.get("compare", {}).get("tasks", {}).get(task)
    if entry is None:
        return
    yield from (f"### Against {cell(result['compare']['second']['name'])}", "")
    if not entry["n"]:
        yield from ("The two models share no decision.", "")
        return
    test = entry["mcnemar"]
    yield (
        f"{entry['n']} decisions that both were asked. Only the first is right in "
        f"{test['only_first_right']}, only the second in {test['only_second_right']}: McNemar's "
        f"exact p = {test['p']:.3g}."
    )
    yield ""
    rows = [
        (_NAMES[name].partition(",")[0], _number(d["first"]), _number(d["second"]), figure(d, "+"))
        for name, d in entry["difference"].items()
    ]
    yield from table(("figure", "first", "second", "difference [95 %]"), rows)
    yield from (f"*Difference: {result['compare']['note']}*", "")


def _tail(result: Entry) -> Iterator[str]:
    for key, title in _LEFT_OUT.items():
        found = result.get(key)
        if found:
            yield from (f"## {title}", "")
            yield from (f"- {n}: {cell(why)}" for why, n in found.items())
            yield ""
    yield from ("## How to read this", "")
    yield (
        "`score` is the model at equal priors; `confidence` is at the share of true sites of the "
        "whole task, also within the tables by species, sample type and view. A decision without "
        "a score counts as wrong in the accuracies, sensitivity and specificity and as 0.5 in "
        "AUROC and average precision; calibration and precision are of what was answered. A "
        "figure that needs both answers is a dash where there is one. `both` is EM and geometry "
        "without contact features; the calibration of a part of the views is that of all of them."
    )


def figure(entry: Entry, sign: str = "") -> str:
    """Value with interval; a dash for none."""
    if entry["value"] is None:
        return "–"
    value = f"{entry['value']:{sign}.3f}"
    ends = entry["ci95"]
    return value if ends is None else f"{value} [{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table, line by line, and an empty line."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def cell(text: str) -> str:
    """Text for a table or a line: nothing in it may end a cell, start markup or break a line."""
    plain = " ".join(str(text).split())
    for mark in ("\\", "|", "<", "`", "[", "*", "_"):
        plain = plain.replace(mark, f"\\{mark}")
    return plain


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
