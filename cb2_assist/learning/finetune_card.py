"""What `cb2-assist finetune` writes down: the card of the new model, and parts of the report."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from cb2_assist import __version__
from cb2_assist.core.records import Kind
from cb2_assist.learning.finetune_fit import LEAST, FitPlan, rarer_counts
from cb2_assist.learning.finetune_labels import Collected, Harvest
from cb2_assist.learning.finetune_split import Split
from cb2_assist.learning.finetune_tokens import Tokens
from cb2_assist.model.checkpoint import Model

Document = dict[str, Any]

_WORDS = {
    "head": "the last linear layer of each labelled question: left as it was, its bias, or all of "
    "it held to what it was, whichever is best on held-out folds",
    "decision": "what combines the tokens and answers, every weight pulled towards what it was",
    "measured": "what combines the tokens and answers and the layers behind the measured tokens, "
    "every weight pulled towards what it was",
}


def new_card(
    name: str,
    model: Model,
    rows: Sequence[Collected],
    fit_plan: FitPlan,
    scales: Document,
    told: Document,
) -> Document:
    """The card, without what is measured on held-out labels.

    Args:
        name: Of the new model; empty makes one of the parent's and the dataset's.
        model: The parent.
        rows: The labels; their dataset, version, species and licence go on the card.
        fit_plan: What was fitted.
        scales: ``calibration``, by question.
        told: Where each is from, in words.
    """
    parent = model.card
    carried: Document = {
        k: parent[k]
        for k in ("trained_on", "pretraining", "views_by_species", "limits")
        if k in parent
    }
    return {
        **carried,
        "name": name or f"{parent['name']}+{rows[0].dataset}",
        "made_by": f"cb2-assist {__version__}, torch {torch.__version__}, {platform.machine()}",
        "parent": {"name": model.name, "sha256": model.sha256},
        "data": [*parent.get("data", ()), *_sources(rows)],
        "recipe": asdict(fit_plan),
        "seed": fit_plan.seed,
        "calibration": scales,
        "calibrated_on": told,
        "base_rates": parent["base_rates"],
    }


def _sources(rows: Sequence[Collected]) -> list[Document]:
    """Where the labels are from, by version and licence, with the number of rows."""
    count = Counter((r.dataset, r.version, r.species, r.licence) for r in rows)
    keys = ("name", "version", "species", "licence")
    return [{**dict(zip(keys, of, strict=True)), "labels": n} for of, n in sorted(count.items())]


def validation(held: Document) -> Document:
    """Figures of the held-out labels, as `train` puts them on a card.

    Args:
        held: By question, as `finetune_report.before_and_after` makes them.
    """
    out = {}
    for kind, f in held.items():
        out[f"{kind} all"] = {"n": f["n"]}
        for name in ("balanced_accuracy", "auroc", "ece15", "brier"):
            value, ends = f["after"][name]["value"], f["after"][name]["ci95"]
            if value is not None:
                told = "" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
                out[f"{kind} all"][name] = f"{value:.3f}{told}"
    return out


def parent_of(model: Model) -> Document:
    """The report's ``parent``."""
    return {
        "name": model.name,
        "sha256": model.sha256,
        "licences": sorted({str(d.get("licence", "")) for d in model.card.get("data", ())}),
    }


def labels_of(
    rows: Sequence[Collected], labels: Tokens, split: Split, harvest: Harvest
) -> Document:
    """The report's ``labels``: how many of what, and what became of them."""
    kinds = {}
    for index, kind in enumerate(Kind):
        mine = labels.task == index
        if mine.any():
            kinds[kind.value] = {"n": int(mine.sum()), "accepted": int(labels.answer[mine].sum())}
    return {
        "n": len(rows),
        "dataset": rows[0].dataset,
        "versions": dict(Counter(r.version for r in rows)),
        "kinds": kinds,
        "licences": dict(Counter(r.licence for r in rows)),
        "drawn_at_random": sum(r.explore for r in rows),
        "n_learnt": int(split.learnt.sum()),
        "n_held_out": int(split.held.sum()),
        "n_apart": int((~split.learnt & ~split.held).sum()),
        "by": split.by,
        "left_out": dict(sorted(harvest.left_out.items())),
    }


def fit_words(level: str, learnt: Tokens) -> str:
    """What was fitted, and which question had too few labels for it."""
    few = [k.value for k, n in rarer_counts(learnt).items() if n < LEAST]
    note = ""
    if few:
        note = (
            f" Too few labels of both answers to fit {' and '.join(few)}s by them (at least "
            f"{LEAST} of each)."
        )
    return f"{_WORDS[level]}.{note}"


def replay_words(base: Tokens | None, replay: Tokens | None, share: float) -> str:
    """What base data did.

    Args:
        base: What was given, without its held-out part.
        replay: What of it was learnt from again; None: nothing.
        share: Of every batch.
    """
    if base is None:
        return (
            "none was given, so nothing but the heads was fitted; what they knew is held by "
            "the penalty alone. With --replay more is fitted."
        )
    if replay is None:
        return "not replayed: so few labels bear the heads alone. It measures what is forgotten"
    none = [k.value for i, k in enumerate(Kind) if not (replay.task == i).any()]
    note = f"; none of {' and '.join(none)}s: what those became is not measured" if none else ""
    return f"{len(replay)} decisions, {share:.0%} of every batch{note}"
