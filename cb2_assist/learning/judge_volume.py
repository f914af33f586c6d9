"""A model on the touching pairs of a volume with truth.

Views, features and network are the ones that the page uses. A boosted-trees baseline on ten simple
features, trained in the same run, stands beside every figure: a network that does not beat it is
not worth its watts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import Kind, Site
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.learning.examples import Example, PairTable, Volume, cut_examples, join_examples
from cb2_assist.learning.judged import ALL, MODALITIES, SUBSETS, Floats, Judged, calibrated
from cb2_assist.learning.prepare import grey_statistics
from cb2_assist.model.card import ViewSpec, reads_neighbours, reads_passage
from cb2_assist.model.inputs import network_input
from cb2_assist.model.network import N_TOKENS, N_VIEWS
from cb2_assist.model.view_average import subset_log_odds
from cb2_assist.views.features import FEATURE_NAMES, site_features
from cb2_assist.views.site import SiteWindow, whole_window
from cb2_assist.views.stack import ViewStack, render
from cb2_assist.views.surroundings import site_vector

if TYPE_CHECKING:
    from cb2_assist.model.predictor import Predictor
    from cb2_assist.suggestions.calibration import Calibrator

Say = Callable[[str], None]


class Baseline(Protocol):
    """A fitted classifier, as scikit-learn makes it."""

    def predict_proba(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities of both answers, (n, 2)."""


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

JOIN_TYPE, CUT_TYPE = "touching_pair", "synthetic_merge"
"""Sample types of what a volume gives."""


class VolumeJudge:
    """A model on the sites of one volume."""

    def __init__(
        self, volume: Volume, species: str, predictor: Predictor, calibrator: Calibrator, say: Say
    ) -> None:
        self._volume, self._species = volume, species
        self._predictor, self._calibrator, self._say = predictor, calibrator, say
        self._views = predictor.model.views_for(species)
        self._neighbours = reads_neighbours(predictor.model.card)
        self._way_between = reads_passage(predictor.model.card)

    def joins(
        self, table: PairTable, baseline: Baseline | None = None
    ) -> tuple[Judged, Floats | None]:
        """The model, and a fitted baseline, on every row of a pair table, in its order."""
        examples = join_examples(self._volume, table, self._views.site_nm)
        judged, simple = self._judge(Kind.JOIN, JOIN_TYPE, examples, len(table))
        if baseline is None or not len(judged):
            return judged, None
        return judged, baseline.predict_proba(simple)[:, 1]

    def check_cuts(self) -> None:
        """Whether synthetic cuts can be measured.

        Raises:
            ModelError: The model looks further than they are made.
        """
        if self._views.reach_nm > self._views.site_nm:
            name = self._predictor.model.name
            raise ModelError(
                f"Cuts cannot be measured for {name}: its views reach {self._views.reach_nm:g} nm, "
                f"and synthetic merges are made within {self._views.site_nm:g} nm. Leave out "
                "--merges to measure joins."
            )

    def cuts(self, table: PairTable, *, merges: int, seed: int = 0) -> Judged:
        """The model on synthetic cuts; see `learning.examples`. No baseline."""
        self.check_cuts()
        rng = np.random.default_rng(seed)
        examples = cut_examples(self._volume, table, self._views.site_nm, rng=rng, merges=merges)
        return self._judge(Kind.CUT, CUT_TYPE, examples, None)[0]

    def _judge(
        self, kind: Kind, sample_type: str, examples: Iterator[Example], total: int | None
    ) -> tuple[Judged, NDArray[np.float32]]:
        statistics = grey_statistics(self._volume)
        look = looker(
            self._views,
            statistics,
            self._volume,
            neighbours=self._neighbours,
            way_between=self._way_between,
        )
        key: list[str] = []
        answer: list[bool] = []
        group: list[str] = []
        scores: list[Floats] = [np.zeros((0, len(SUBSETS)))]
        simple = [np.zeros((0, len(SIMPLE_FEATURES)), np.float32)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while chunk := list(islice(examples, _CHUNK)):
                stacks = list(pool.map(look, (e.window for e in chunk)))
                scores.append(self._scores(stacks, kind))
                simple.append(np.stack([simple_of(s.features) for s in stacks]))
                key += [self._key(e.window.site) for e in chunk]
                answer += [e.answer for e in chunk]
                group += [str(e.group) for e in chunk]
                if len(answer) % (8 * _CHUNK) == 0:
                    of = "" if total is None else f" of {total}"
                    self._say(f"{self._volume.name}: {len(answer)}{of} {kind}s judged")
        n = len(answer)
        every = np.concatenate(scores)
        judged = Judged(
            kind,
            np.array(key, np.str_),
            np.array(answer, bool),
            np.array(group, np.str_),
            np.full(n, self._species),
            np.full(n, sample_type),
            {name: every[:, k] for k, name in enumerate(SUBSETS)},
            {name: np.full(n, name != "neighbours" or self._neighbours) for name in MODALITIES},
        )
        return judged, np.concatenate(simple)

    def _key(self, site: Site) -> str:
        """The question itself: another model's windows may be of another size."""
        at = ",".join(f"{v:g}" for v in site.point)
        return f"{self._volume.name}/{site.kind}/{site.segment}-{site.partner}@{at}"

    def _scores(self, stacks: Sequence[ViewStack], kind: Kind) -> Floats:
        if self._predictor.averages_views:
            # with the tilted plane, which is no token, as the page has it
            outputs = self._predictor.predict(stacks, [kind] * len(stacks))
            own = np.array([[v.score for v in o.views[:N_VIEWS]] for o in outputs])
            odds = subset_log_odds(own, list(SUBSETS.values()))
            odds[:, list(SUBSETS).index(ALL)] = [o.logit for o in outputs]
            return calibrated(odds, [kind] * len(stacks), self._calibrator.score)
        inputs = [network_input(s, self._views.image_px) for s in stacks]
        kinds = [kind] * len(inputs)
        present = np.ones((len(inputs), N_TOKENS), bool)
        logits = self._predictor.subset_logits(inputs, present, kinds, list(SUBSETS.values()))
        return calibrated(logits, kinds, self._calibrator.score)


def fit_baseline(volume: Volume, table: PairTable, extent_nm: float) -> Baseline:
    """Boosted trees on `SIMPLE_FEATURES`, each answer with half of the weight."""
    return fit_trees(simple_rows(volume, table, extent_nm), table.same)


def simple_rows(volume: Volume, table: PairTable, extent_nm: float) -> NDArray[np.float32]:
    """`SIMPLE_FEATURES` of every pair of a table, (n, features)."""
    statistics = grey_statistics(volume)
    rows: list[NDArray[np.float32]] = []
    examples = join_examples(volume, table, extent_nm)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(examples, _CHUNK)):
            measured = pool.map(lambda e: site_features(e.window, statistics), chunk)
            rows.extend(simple_of(f) for f in measured)
    return np.stack(rows)


def simple_of(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """`SIMPLE_FEATURES` among the features of sites, (..., `FEATURE_NAMES`)."""
    return features[..., _simple()]


def fit_trees(rows: NDArray[np.float32], answer: NDArray[np.bool_]) -> Baseline:
    """The baseline, from its features."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = HistGradientBoostingClassifier(
        max_iter=300, learning_rate=0.05, max_leaf_nodes=15, class_weight="balanced", random_state=0
    )
    fitted: Baseline = trees.fit(rows, answer)
    return fitted


def looker(
    views: ViewSpec,
    statistics: EmStatistics,
    volume: Volume,
    *,
    neighbours: bool,
    way_between: bool,
) -> Callable[[SiteWindow], ViewStack]:
    """Makes the views of a window of the volume, as the page does."""

    def look(window: SiteWindow) -> ViewStack:
        seen = window
        if views.reach_nm > window.half_width_nm:
            seen = whole_window(volume.cutout, window.site, views.reach_nm, volume.box)
        return render(
            seen,
            extent_nm=views.extent_nm,
            profile=views.profile,
            statistics=statistics,
            features=site_vector(
                window, statistics, neighbours=neighbours, way_between=way_between
            ),
            em_oblique=views.em_oblique,
            em_extent_nm=views.em_extent_nm,
        )

    return look


def _simple() -> list[int]:
    return [FEATURE_NAMES.index(n) for n in SIMPLE_FEATURES]
