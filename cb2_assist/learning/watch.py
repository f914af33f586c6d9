"""Validation during training: at equal priors, at the natural one, and by sample type.

Training weighs both answers alike, so a figure on the same balance flatters: what a proofreader
meets is the natural mixture. Every validation decision counts once, none is drawn or left out, and
both readings stand beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.records import Kind
from cb2_assist.learning.contract_figures import Ranked
from cb2_assist.learning.prepare import Part
from cb2_assist.learning.score_parts import modes_of, part_logits
from cb2_assist.model.network import MultiTaskViT

NATURAL = ("balanced_accuracy", "auroc", "average_precision", "ece15", "brier", "nll")
"""Of the confidence at the set's own share of true decisions; the first two need no prior."""
EQUAL = ("ece15", "brier", "nll")
"""Of the score, each answer with half of the weight; named with ``_equal`` after."""


def validation_figures(
    answer: NDArray[np.bool_], logit: NDArray[np.float64], sample_type: NDArray[np.str_]
) -> dict[str, Any]:
    """Figures of one task on one set.

    Args:
        answer: What is true, (n,).
        logit: Log-odds at equal priors, (n,).
        sample_type: (n,).

    Returns:
        ``n``, ``n_positive``, those of `NATURAL`, those of `EQUAL` with ``_equal`` after the name,
        and ``by_type``: for each type ``n``, ``n_positive``, ``sensitivity`` and ``specificity`` at
        score 0.5. None stands where a figure has no value.
    """
    score = 1 / (1 + np.exp(-logit))
    ranked = Ranked(answer, score)
    natural = ranked.figures(np.ones(len(answer)))
    share = max(float(answer.mean()), 1e-12), max(float((~answer).mean()), 1e-12)
    equal = ranked.figures(np.where(answer, 0.5 / share[0], 0.5 / share[1]), 0.5)
    out: dict[str, Any] = {"n": len(answer), "n_positive": int(answer.sum())}
    out |= {k: _number(natural[k]) for k in NATURAL}
    out |= {f"{k}_equal": _number(equal[k]) for k in EQUAL}
    by_type = {}
    for name in np.unique(sample_type):
        m = sample_type == name
        true, false = m & answer, m & ~answer
        by_type[str(name)] = {
            "n": int(m.sum()),
            "n_positive": int(true.sum()),
            "sensitivity": _number(float((score[true] > 0.5).mean()) if true.any() else np.nan),
            "specificity": _number(float((score[false] <= 0.5).mean()) if false.any() else np.nan),
        }
    return out | {"by_type": by_type}


def validate(net: MultiTaskViT, parts: Sequence[Part]) -> dict[str, dict[str, Any]]:
    """Figures by task and tokens, e.g. ``join-all``, over all parts together."""
    modes = modes_of(net)
    logits = [part_logits(net, part, modes=modes)[0] for part in parts]
    out: dict[str, dict[str, Any]] = {}
    for index, kind in enumerate(Kind):
        which = [k for k, p in enumerate(parts) if (p.task == index).any()]
        if not which:
            continue
        rows = [parts[k].task == index for k in which]
        answer = np.concatenate([parts[k].answer[m] for k, m in zip(which, rows, strict=True)])
        types = np.concatenate([parts[k].sample_type[m] for k, m in zip(which, rows, strict=True)])
        for mode in modes:
            logit = np.concatenate([logits[k][mode][m] for k, m in zip(which, rows, strict=True)])
            out[f"{kind.value}-{mode}"] = validation_figures(answer, logit, types)
    return out


def line(name: str, f: dict[str, Any]) -> str:
    """One line of progress."""
    worst = [
        f"{kind} {t['specificity']:.2f}"
        for kind, t in f["by_type"].items()
        if t["specificity"] is not None
    ]
    return (
        f"{name}: n {f['n']} ({f['n_positive']} true), balanced accuracy "
        f"{_text(f['balanced_accuracy'])}, AUROC {_text(f['auroc'])}, ECE {_text(f['ece15_equal'])}"
        f" at 50:50 and {_text(f['ece15'])} at the natural prior; specificity {', '.join(worst)}"
    )


def _number(v: float) -> float | None:
    return float(f"{v:.5g}") if np.isfinite(v) else None


def _text(v: float | None) -> str:
    return "none" if v is None else f"{v:.3f}"
