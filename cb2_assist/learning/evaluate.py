"""`cb2-assist evaluate`: a model on the touching pairs of a dataset with truth.

Views, features and network are the ones that the page uses. A boosted-trees baseline on ten simple
features, trained in the same run, stands beside every figure: a network that does not beat it is
not worth its watts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import Kind
from cb2_assist.datasets.dataset_file import read_dataset_file
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.learning.examples import (
    PairTable,
    Volume,
    cut_examples,
    join_examples,
    touching_pairs,
)
from cb2_assist.learning.metrics import at_base_rate, contract_figures
from cb2_assist.learning.prepare import grey_statistics, load_volume
from cb2_assist.model.card import ViewSpec
from cb2_assist.views.features import FEATURE_NAMES, site_features
from cb2_assist.views.site import SiteWindow, whole_window
from cb2_assist.views.stack import ViewStack, render

if TYPE_CHECKING:
    from cb2_assist.model.predictor import Predictor
    from cb2_assist.suggestions.calibration import Calibrator

Say = Callable[[str], None]


class Baseline(Protocol):
    """A fitted classifier, as scikit-learn makes it."""

    def predict_proba(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities of both answers, (n, 2)."""


Floats = NDArray[np.float64]

_CHUNK = 64
"""Decisions in memory at once."""

SIMPLE_FEATURES = (
    "log_area",
    "log_small",
    "log_big",
    "log_ratio",
    "area_per_small",
    "em_mean",
    "em_std",
    "grey_small",
    "grey_big",
    "grey_step",
)
"""What anybody would measure first: sizes, contact area, grey levels."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Decisions of one set with truth, model and baseline."""

    answer: NDArray[np.bool_]
    group: NDArray[np.int64]
    score: Floats
    confidence: Floats
    baseline: Floats | None

    def take(self, rows: NDArray[np.bool_]) -> Judged:
        """Some of them."""
        return Judged(
            self.answer[rows],
            self.group[rows],
            self.score[rows],
            self.confidence[rows],
            None if self.baseline is None else self.baseline[rows],
        )


def judge_joins(
    volume: Volume,
    table: PairTable,
    predictor: Predictor,
    calibrator: Calibrator,
    *,
    baseline: Baseline | None = None,
    views: ViewSpec | None = None,
    say: Say,
) -> Judged:
    """The model, and a fitted baseline, on every row of a pair table.

    `views` are what the model gets; None: what its card says of no species.
    """
    views = views or predictor.model.views
    look = _looker(views, grey_statistics(volume), volume)
    score: list[float] = []
    answer: list[bool] = []
    group: list[int] = []
    simple: list[NDArray[np.float32]] = []
    examples = join_examples(volume, table, views.site_nm)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(examples, _CHUNK)):
            stacks = list(pool.map(look, (e.window for e in chunk)))
            outputs = predictor.predict(stacks, [Kind.JOIN] * len(stacks))
            score.extend(calibrator.score(Kind.JOIN, o.logit) for o in outputs)
            simple.extend(s.features[_simple()] for s in stacks)
            answer.extend(e.answer for e in chunk)
            group.extend(e.group for e in chunk)
            if len(answer) % (8 * _CHUNK) == 0:
                say(f"{volume.name}: {len(answer)} of {len(table)} joins judged")
    b = None if baseline is None else baseline.predict_proba(np.stack(simple))[:, 1]
    return _judged(np.array(answer), np.array(group), np.array(score), b)


def _looker(
    views: ViewSpec, statistics: EmStatistics, volume: Volume
) -> Callable[[SiteWindow], ViewStack]:
    def look(window: SiteWindow) -> ViewStack:
        seen = window
        if views.reach_nm > window.half_width_nm:
            seen = whole_window(volume.cutout, window.site, views.reach_nm, volume.box)
        return render(
            seen,
            extent_nm=views.extent_nm,
            profile=views.profile,
            statistics=statistics,
            features=site_features(window, statistics),
            em_oblique=views.em_oblique,
            em_extent_nm=views.em_extent_nm,
        )

    return look


def _simple() -> list[int]:
    return [FEATURE_NAMES.index(n) for n in SIMPLE_FEATURES]


def fit_baseline(volume: Volume, table: PairTable, extent_nm: float) -> Baseline:
    """Boosted trees on `SIMPLE_FEATURES`, each answer with half of the weight."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    statistics = grey_statistics(volume)
    rows: list[NDArray[np.float32]] = []
    answer: list[bool] = []
    examples = join_examples(volume, table, extent_nm)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(examples, _CHUNK)):
            measured = pool.map(lambda e: site_features(e.window, statistics), chunk)
            rows.extend(f[_simple()] for f in measured)
            answer.extend(e.answer for e in chunk)
    trees = HistGradientBoostingClassifier(
        max_iter=300, learning_rate=0.05, max_leaf_nodes=15, class_weight="balanced", random_state=0
    )
    fitted: Baseline = trees.fit(np.stack(rows), np.array(answer))
    return fitted


def judge_cuts(
    volume: Volume,
    table: PairTable,
    predictor: Predictor,
    calibrator: Calibrator,
    *,
    merges: int,
    seed: int = 0,
) -> Judged:
    """The model on synthetic cuts of a volume; see `learning.examples`. No baseline."""
    views = predictor.model.views
    look = _looker(views, grey_statistics(volume), volume)
    score: list[float] = []
    answer: list[bool] = []
    group: list[int] = []
    rng = np.random.default_rng(seed)
    for example in cut_examples(volume, table, views.extent_nm, rng=rng, merges=merges):
        output = predictor.predict([look(example.window)], [Kind.CUT])[0]
        score.append(calibrator.score(Kind.CUT, output.logit))
        answer.append(example.answer)
        group.append(example.group)
    return _judged(np.array(answer), np.array(group), np.array(score), None)


def _judged(
    answer: NDArray[np.bool_], group: NDArray[np.int64], score: Floats, baseline: Floats | None
) -> Judged:
    """With the confidence at the set's own base rate."""
    return Judged(answer, group, score, at_base_rate(score, float(answer.mean())), baseline)


@dataclass(frozen=True, slots=True)
class Request:
    """What to evaluate.

    Attributes:
        data: Dataset file with truth.
        from_z: Only contacts with z at or above this voxel index.
        training: The dataset file that the model learnt from, for the baseline and for the parts
            that share no segment and no truth body with training.
        below_z: Training used contacts below this plane.
        merges: Synthetic merges for the cut task; 0 leaves it out.
    """

    data: Path
    model: Path
    out: Path
    from_z: int = 0
    training: Path | None = None
    below_z: int = 0
    merges: int = 0
    device: str = "auto"


def evaluate(request: Request, say: Say) -> dict[str, Any]:
    """Write ``metrics.json`` into the request's folder and return it.

    Raises:
        DatasetError: A dataset cannot be read, or has no truth.
        ModelError: The model cannot be used.
    """
    from cb2_assist.model.predictor import Predictor
    from cb2_assist.suggestions.calibration import calibrator_from_card

    predictor = Predictor.open(request.model, request.device)
    calibrator = calibrator_from_card(predictor.model.card)
    views = predictor.model.views_for(read_dataset_file(request.data).species)
    if request.merges and views.reach_nm > views.site_nm:
        raise ModelError(
            f"Cuts cannot be measured for {predictor.model.name}: its views reach "
            f"{views.reach_nm:g} nm, and synthetic merges are made within {views.site_nm:g} nm. "
            "Leave out --merges to measure joins."
        )
    volume = _load(request.data)
    table = touching_pairs(volume)
    part = table.take(table.pure() & (table.contact_z >= request.from_z))
    baseline = None
    if request.training is not None:
        learnt = _load(request.training).below_z(request.below_z)
        known = touching_pairs(learnt)
        known = known.take(known.pure() & (known.contact_z < request.below_z))
        baseline = fit_baseline(learnt, known, views.site_nm)
        say(f"baseline: boosted trees on {len(SIMPLE_FEATURES)} features of {len(known)} joins")
    joins = judge_joins(
        volume, part, predictor, calibrator, baseline=baseline, views=views, say=say
    )
    subsets = {"all": np.ones(len(part), bool)}
    if request.training == request.data:
        seen = table.take(table.pure() & (table.contact_z < request.below_z))
        subsets["no segment shared with training"] = _apart(part, seen, ("a", "b"))
        subsets["no truth body shared with training"] = _apart(part, seen, ("truth_a", "truth_b"))
    tasks: dict[str, Any] = {
        Kind.JOIN.value: contract_figures(joins.answer, joins.score, joins.group)
    }
    tasks[Kind.JOIN.value]["subsets"] = {
        name: {
            "model": contract_figures(j.answer, j.score, j.group),
            **(
                {}
                if j.baseline is None
                else {"baseline": contract_figures(j.answer, j.baseline, j.group)}
            ),
        }
        for name, j in ((n, joins.take(rows)) for n, rows in subsets.items())
        if j.answer.any() and not j.answer.all()
    }
    if request.merges:
        above = table.take(table.contact_z >= request.from_z)
        cuts = judge_cuts(volume, above, predictor, calibrator, merges=request.merges)
        tasks[Kind.CUT.value] = contract_figures(cuts.answer, cuts.score, cuts.group)
        tasks[Kind.CUT.value]["sample_type"] = "synthetic merges of touching neighbours"
    predictor.close()
    result = {
        "model": {"name": predictor.model.name, "sha256": predictor.model.sha256},
        "data": str(request.data.parent.name),
        "from_z_vx": request.from_z,
        "n": sum(t["n"] for t in tasks.values()),
        "n_scored": sum(t["n"] for t in tasks.values()),
        "interval": "95 %, resampling truth bodies of the smaller segment, 1000 draws",
        "tasks": tasks,
    }
    request.out.mkdir(parents=True, exist_ok=True)
    (request.out / "metrics.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def _load(path: Path) -> Volume:
    source = open_dataset_file(path)
    try:
        return load_volume(source)
    finally:
        source.close()


def _apart(part: PairTable, known: PairTable, columns: tuple[str, str]) -> NDArray[np.bool_]:
    """Rows neither of whose two sides occurs in the training table."""
    seen = np.unique(np.concatenate([getattr(known, c) for c in columns]))
    out: NDArray[np.bool_] = ~np.isin(getattr(part, columns[0]), seen)
    return out & ~np.isin(getattr(part, columns[1]), seen)
