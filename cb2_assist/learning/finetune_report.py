"""What fine-tuning changed, in figures and in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.records import Kind
from cb2_assist.learning.contract_figures import Ranked, cluster_weights, contract_figures, interval

Document = dict[str, Any]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_SHOWN = ("balanced_accuracy", "auroc", "log_loss", "ece15", "brier")
_CHANGE = ("balanced_accuracy", "auroc", "log_loss")
"""Of the change an interval is given; ``log_loss``: of the score, in nats, each answer half."""
_DRAWS = 500
WORSE, BETTER, SAME = "worse", "better", "no better"


def before_and_after(
    task: NDArray[np.int64],
    answer: Bools,
    group: NDArray[np.int64],
    before: Floats,
    after: Floats,
) -> Document:
    """Figures of two models on the same decisions, by question.

    Args:
        task: Index into `Kind`, (n,).
        answer: (n,).
        group: What intervals resample as a whole, (n,).
        before: Score of the model as it was, (n,).
        after: Score of the fine-tuned one, (n,).
    """
    out: Document = {}
    for index, kind in enumerate(Kind):
        rows = task == index
        if rows.any():
            out[kind.value] = _question(answer[rows], group[rows], before[rows], after[rows])
    return out


def _question(answer: Bools, group: NDArray[np.int64], before: Floats, after: Floats) -> Document:
    cluster = group.astype(str)
    out: Document = {
        "n": len(answer),
        "n_accepted": int(answer.sum()),
        "n_groups": len(np.unique(group)),
        "before": contract_figures(answer, before, cluster, draws=_DRAWS),
        "after": contract_figures(answer, after, cluster, draws=_DRAWS),
        "change": {},
    }
    if answer.all() or not answer.any():
        return out
    values = [_values(answer, p, np.ones(len(answer))) for p in (before, after)]
    drawn = [
        [b - a for a, b in zip(_values(answer, before, w), _values(answer, after, w), strict=True)]
        for w in cluster_weights(cluster, _DRAWS, 0)
    ]
    for when, found in zip(("before", "after"), values, strict=True):
        out[when]["log_loss"] = {"value": found[-1], "ci95": None}
    for k, name in enumerate(_CHANGE):
        ends = interval(np.array([d[k] for d in drawn]))
        out["change"][name] = {"value": values[1][k] - values[0][k], "ci95": ends}
    return out


def _values(answer: Bools, score: Floats, weight: Floats) -> list[float]:
    """Of `_CHANGE`; NaN where the weights leave one answer only."""
    found = Ranked(answer, score).figures(weight)
    loss = -np.log(np.clip(np.where(answer, score, 1 - score), 1e-12, 1))
    halves = []
    for a in (True, False):
        w = weight[answer == a]
        halves.append(float((loss[answer == a] * w).sum() / w.sum()) if w.sum() else np.nan)
    return [found["balanced_accuracy"], found["auroc"], float(np.mean(halves))]


def verdict(held: Document, base: Document) -> tuple[str, str]:
    """Whether the fine-tuned model is one to use, and why in words.

    Better: on the held-out labels, in log loss of the score, by more than the interval. Worse: the
    other way round, or on held-out base data by more than the interval. Anything else is no better.
    """
    for kind, found in base.items():
        ends = found["change"].get("log_loss", {}).get("ci95")
        accuracy = found["change"].get("balanced_accuracy", {}).get("ci95")
        if ends and ends[0] > 0 and accuracy and accuracy[1] < 0:
            return WORSE, f"it has forgotten {kind}s of the base data"
    changes = {k: f["change"]["log_loss"] for k, f in held.items() if f["change"]}
    if not changes:
        return SAME, "the held-out labels of each question have one answer only"
    worse = [k for k, c in changes.items() if c["ci95"] and c["ci95"][0] > 0]
    if worse:
        return WORSE, f"the log loss of held-out {' and '.join(worse)}s has grown"
    better = [k for k, c in changes.items() if c["ci95"] and c["ci95"][1] < 0]
    if better:
        return BETTER, f"the log loss of held-out {' and '.join(better)}s has fallen"
    return SAME, "no change of the held-out log loss is larger than its interval"


def markdown(document: Document) -> str:
    """The report as a page."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Document) -> Iterator[str]:
    labels, fit = document["labels"], document["fit"]
    yield f"# {document['model']['name']}, fine-tuned from {document['parent']['name']}"
    yield ""
    yield f"**{document['verdict']['is'].capitalize()}**: {document['verdict']['why']}."
    yield ""
    yield (
        f"{labels['n']} labels of {labels['dataset']} ({_counts(labels['kinds'])}); "
        f"{labels['n_learnt']} learnt from, {labels['n_held_out']} held out by {labels['by']}, "
        f"{labels['n_apart']} left out since they share a segment with those."
    )
    yield ""
    yield f"Fitted: {fit['words']}"
    yield f"Base data: {fit['replay']}"
    yield ""
    for title, key in (("Held-out labels", "held_out"), ("Held-out base data", "base")):
        if document[key]:
            yield f"## {title}"
            yield ""
            yield from _table(document[key])
            yield ""
    yield "## Calibration"
    yield ""
    for kind, told in document["calibration"].items():
        yield f"- {kind}: {told}"
    yield ""
    yield "## Licences"
    yield ""
    for licence, n in labels["licences"].items():
        yield f"- {n} labels: {licence or 'not stated'}"
    yield f"- the model it was made from: {', '.join(document['parent']['licences'])}"
    if labels["left_out"]:
        yield ""
        yield "## Left out"
        yield ""
        for why, n in labels["left_out"].items():
            yield f"- {n}: {why}"


def _counts(kinds: Document) -> str:
    return ", ".join(f"{k['n']} {name}s, {k['accepted']} accepted" for name, k in kinds.items())


def _table(sets: Document) -> Iterator[str]:
    yield "| question | n (accepted) | figure | before | after | change |"
    yield "|---|---|---|---|---|---|"
    for kind, f in sets.items():
        for name in (n for n in _SHOWN if n in f["before"]):
            change = f["change"].get(name)
            told = "" if change is None else _cell(change, signed=True)
            yield (
                f"| {kind} | {f['n']} ({f['n_accepted']}) | {name} | {_cell(f['before'][name])} | "
                f"{_cell(f['after'][name])} | {told} |"
            )


def _cell(figure: Document, *, signed: bool = False) -> str:
    value, ends = figure["value"], figure["ci95"]
    if value is None:
        return "-"
    form = "+.3f" if signed else ".3f"
    return f"{value:{form}}" + ("" if ends is None else f" [{ends[0]:{form}}, {ends[1]:{form}}]")
