"""How far the confidence of joins can be trusted on a volume with truth, before and after labels.

    python examples/confidence_on_truth.py DATASET.toml [--model DIR] [--from-z N] [--labels 200]

You will see the calibration error of the confidence at the volume's own base rate beside what a
perfectly calibrated model with the same scores would show by chance, how often a bin's observed
share lies inside its mean interval, of the page and of the calibration set alone (which knows
nothing of how much places differ), and the error on the rest after a random draw of labels, mean of
20 draws. Nothing is fitted on what is judged.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning.calibration_metrics import calibration_figures, ece
from cb2_assist.learning.calibrators import fit_best, sample
from cb2_assist.learning.examples import touching_pairs
from cb2_assist.learning.judge_volume import VolumeJudge
from cb2_assist.learning.prepare import load_volume
from cb2_assist.model.predictor import Predictor
from cb2_assist.resources import resource_dir
from cb2_assist.settings import DEFAULT_MODEL
from cb2_assist.suggestions.calibration import Calibrator, calibrator_from_card

DRAWS = 20
LEAST = 100
"""Decisions in a bin whose interval is looked at."""
Floats = NDArray[np.float64]


def odds(p: Floats) -> Floats:
    """Log-odds, of probabilities kept off 0 and 1."""
    q = np.clip(p, 1e-9, 1 - 1e-9)
    return np.log(q) - np.log1p(-q)


@dataclass(frozen=True, slots=True)
class Bin:
    """Decisions of about the same confidence: means, and the interval of either kind."""

    n: int
    said: float
    seen: float
    interval: tuple[float, float]
    alone: tuple[float, float]

    def __str__(self) -> str:
        """One line."""
        page, alone = (f"{low:.3f} to {high:.3f}" for low, high in (self.interval, self.alone))
        return f"said {self.said:.3f}, seen {self.seen:.3f}, {page} ({alone}), n {self.n}"


def bins(calibrator: Calibrator, z: Floats, answer: NDArray[np.bool_], rate: float) -> list[Bin]:
    """Bins of at least `LEAST` decisions."""
    scale = calibrator.scales[Kind.JOIN]
    alone = replace(calibrator, scales={Kind.JOIN: replace(scale, elsewhere=())})
    base = BaseRate(rate, "labels", len(z))
    logit = (z - scale.bias) * scale.temperature
    both = [
        np.array([c.interval(Kind.JOIN, float(v), base, reliable=True) for v in logit])
        for c in (calibrator, alone)
    ]
    p = 1 / (1 + np.exp(-(z + odds(np.array(rate)))))
    at = np.clip((p * 15).astype(int), 0, 14)
    found = []
    for b in np.unique(at):
        m = at == b
        if m.sum() >= LEAST:
            page, own = ((float(x[m, 0].mean()), float(x[m, 1].mean())) for x in both)
            found.append(Bin(int(m.sum()), float(p[m].mean()), float(answer[m].mean()), page, own))
    return found


def coverage(found: list[Bin], intervals: list[tuple[float, float]]) -> str:
    """How many of the bins lie inside, and how wide the intervals are."""
    inside = sum(low <= b.seen <= high for b, (low, high) in zip(found, intervals, strict=True))
    width = float(np.mean([high - low for low, high in intervals])) if intervals else 0.0
    return f"{inside} of {len(found)} bins of >= {LEAST}, mean width {width:.3f}"


def after_labels(z: Floats, answer: NDArray[np.bool_], labels: int) -> tuple[float, float, int]:
    """Mean and standard deviation over `DRAWS` of the error on the rest; draws that bore a map."""
    found = []
    for k in range(DRAWS):
        order = np.random.default_rng(k).permutation(len(z))
        some, rest = order[:labels], order[labels:]
        fitted = fit_best(sample(z[some], answer[some]), draws=0)
        if fitted is None:
            continue
        rate = float(answer[rest].mean())
        said = 1 / (1 + np.exp(-np.array([fitted.map.logit(v, rate) for v in z[rest]], float)))
        found.append(ece(answer[rest], said))
    return float(np.mean(found)), float(np.std(found)), len(found)


def main() -> None:
    """Judge the volume and print."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("data", type=Path)
    ask.add_argument("--model", type=Path, default=resource_dir("models") / DEFAULT_MODEL)
    ask.add_argument("--from-z", type=int, default=0)
    ask.add_argument("--labels", type=int, default=200)
    given = ask.parse_args()
    source = open_dataset_file(given.data)
    volume, species = load_volume(source), source.info.species
    predictor = Predictor.open(given.model)
    calibrator = calibrator_from_card(predictor.model.card)
    judge = VolumeJudge(
        volume, species, predictor, calibrator, lambda text: print(text, file=sys.stderr)
    )
    table = touching_pairs(volume)
    judged, _ = judge.joins(table.take(table.pure() & (table.contact_z >= given.from_z)))
    z, answer = odds(judged.score), judged.answer
    rate = float(answer.mean())
    confidence = 1 / (1 + np.exp(-(z + odds(np.array(rate)))))
    f = calibration_figures(answer, confidence)
    found = bins(calibrator, z, answer, rate)
    mean, sd, drawn = after_labels(z, answer, given.labels)
    print(f"{volume.name}: n {len(answer)}, {rate:.1%} true, no label from it")
    print(f"  ECE-15 of the confidence {f['ece15']:.3f}, less chance {f['ece15_debiased']:.3f}")
    print(f"  95th percentile if perfectly calibrated {f['ece15_if_perfect_q95']:.3f}")
    page, alone = ([getattr(b, k) for b in found] for k in ("interval", "alone"))
    print(f"  observed share inside the bin's mean interval: {coverage(found, page)}")
    print(f"  inside that of the calibration set alone: {coverage(found, alone)}")
    for b in found:
        print(f"    {b}")
    print(f"after {given.labels} labels, on the rest: {mean:.3f} (sd {sd:.3f}, {drawn} draws)")
    predictor.close()
    source.close()


if __name__ == "__main__":
    main()
