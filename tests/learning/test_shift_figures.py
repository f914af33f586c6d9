"""Figures over shifts: what a distance that knows, and one that does not, looks like."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from cb2_assist.core.records import Kind
from cb2_assist.learning.shift_cells import Seen
from cb2_assist.learning.shift_figures import SETS, UNSURE, Analysis, spearman
from cb2_assist.learning.shift_report import plots, report
from cb2_assist.learning.shifts import read_shifts
from cb2_assist.model.ood.distances import DISTANCES, Space
from cb2_assist.model.ood.reference import OodReference, TaskReference

WIDTH, N = 4, 60
INSIDE = [m for m, d in DISTANCES.items() if d.space is Space.DECISION]
CELLS = read_shifts().cells[:8]


def reference():
    unit, zero = np.eye(WIDTH, dtype=np.float32), np.zeros((1, WIDTH), np.float32)
    tensors = {
        "means": zero,
        "whiten": unit,
        "background_mean": zero,
        "background_whiten": unit / 2,
        "sample": unit.astype(np.float16),
    }
    steps = np.linspace(0, 5, 101).astype(np.float32)
    return OodReference(
        "mahalanobis", {Kind.JOIN: TaskReference(tensors, dict.fromkeys(INSIDE, steps))}
    )


def seen(far, wrong, seed, n=N):
    """Decisions this far out, of which this share is answered wrongly, and surely."""
    rng = np.random.default_rng(seed)
    answer = np.arange(n) % 2 == 0
    said = np.where(rng.random(n) < wrong, ~answer, answer)
    x = rng.normal(size=(n, WIDTH)).astype(np.float32)
    x *= far / np.linalg.norm(x, axis=1, keepdims=True)
    logit = np.where(said, 3.0, -3.0) + rng.normal(0, 0.1, n)
    return Seen(answer, np.arange(n) // 3, np.ones(n, bool), logit, x, np.ones(n, bool))


def score(logit):
    return float(1 / (1 + np.exp(-logit)))


def analysis(cells, draws=30):
    return Analysis(seen(1.0, 0.0, 99), cells, reference(), score, draws=draws).result()


@pytest.fixture(scope="module")
def known():
    """Eight cells, each farther out and more often wrong than the one before."""
    return analysis([(c, seen(1.5 + k, 0.06 * k, k)) for k, c in enumerate(CELLS)])


def test_a_distance_that_ranks_the_damage_is_seen_to(known):
    for bad in ("drop", "ece15_score"):
        found = known["summary"][f"spearman_{bad}"]["mahalanobis"]
        assert found["value"] > 0.9
        low, high = found["ci95"]
        assert 0.5 < low <= high <= 1.0
        assert found["ci95_families"][0] <= found["ci95_families"][1]


def test_what_the_network_is_sure_of_says_nothing_here(known):
    assert abs(known["summary"]["spearman_drop"][UNSURE]["value"]) < 0.8
    far = known["summary"]["far_auroc"]
    assert far["mahalanobis"]["value"] == 1.0
    assert far[UNSURE]["value"] == pytest.approx(0.5, abs=0.15)


def test_cells_carry_their_own_figures(known):
    first, last = known["cells"][0], known["cells"][-1]

    assert known["unshifted"]["balanced_accuracy"]["value"] == 1.0
    assert known["unshifted"]["drop"]["value"] == 0.0
    assert first["distance"]["mahalanobis"]["value"] == pytest.approx(1.5, abs=1e-5)
    assert last["distance"]["mahalanobis"]["value"] == pytest.approx(8.5, abs=1e-5)
    assert (first["flagged"]["value"], last["flagged"]["value"]) == (0.0, 1.0)
    assert (last["n"], last["n_asked"], last["n_clusters"], last["n_positive"]) == (60, 60, 20, 30)
    assert last["drop"]["value"] == pytest.approx(1 - last["balanced_accuracy"]["value"])
    assert set(last["distance"]) == {*INSIDE, UNSURE, SETS}


def test_distances_that_mean_nothing_are_seen_to_mean_nothing():
    order = [3, 0, 6, 1, 7, 2, 5, 4]
    cells = [(c, seen(1.5 + order[k], 0.06 * k, k)) for k, c in enumerate(CELLS)]
    found = analysis(cells)["summary"]["spearman_drop"]["mahalanobis"]

    assert abs(found["value"]) < 0.5
    assert found["ci95"][0] < 0.4


def test_joins_that_could_not_be_judged_are_counted_and_left_out():
    some = seen(2.0, 0.0, 1)
    lost = np.arange(N) % 4 == 0
    some.judged[lost] = False
    some.logit[lost] = np.nan
    some.embedding[lost] = np.nan

    cell = analysis([(CELLS[0], some)])["cells"][0]

    assert (cell["n"], cell["n_asked"]) == (45, 60)
    assert cell["balanced_accuracy"]["value"] == 1.0


def test_a_cell_of_which_nothing_is_left_has_no_figures_and_stops_nothing():
    gone = Seen(
        np.arange(N) % 2 == 0,
        np.arange(N),
        np.zeros(N, bool),
        np.full(N, np.nan),
        np.zeros((N, 0), np.float32),
        np.zeros(N, bool),
    )
    cells = [(c, seen(1.5 + k, 0.06 * k, k)) for k, c in enumerate(CELLS[:5])]

    found = analysis([*cells, (CELLS[5], gone)])

    assert found["cells"][-1]["n"] == 0
    assert found["cells"][-1]["balanced_accuracy"] == {"value": None, "ci95": None}
    assert found["summary"]["spearman_drop"]["mahalanobis"]["value"] > 0.9


def test_joins_whose_sides_do_not_meet_are_never_reliable():
    apart = seen(0.1, 0.0, 1)
    apart.interface[:15] = False

    assert analysis([(CELLS[0], apart)])["cells"][0]["flagged"]["value"] == 0.25


def test_a_model_of_format_1_is_measured_by_what_it_has():
    whole = reference().tasks[Kind.JOIN]
    tensors = {k: whole.tensors[k] for k in ("means", "whiten")}
    at = {"mahalanobis": whole.percentiles["mahalanobis"]}
    old = OodReference("mahalanobis", {Kind.JOIN: TaskReference(tensors, at)})

    cell = Analysis(
        seen(1.0, 0.0, 9), [(CELLS[0], seen(3.0, 0.1, 1))], old, score, draws=20
    ).result()["cells"][0]

    assert cell["distance"][SETS]["value"] is None
    assert set(cell["auroc"]) == {"mahalanobis", UNSURE}


def test_spearman_is_scipys_and_leaves_out_what_is_no_number():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 30).astype(float), rng.integers(0, 5, 30).astype(float)
    y[3] = np.nan
    kept = np.isfinite(y)

    assert spearman(x, y) == pytest.approx(spearmanr(x[kept], y[kept]).statistic)
    assert np.isnan(spearman(np.ones(5), np.arange(5.0)))
    assert np.isnan(spearman(np.arange(2.0), np.arange(2.0)))


def test_the_report_says_whether_targets_are_met(known):
    result = {
        "model": {"name": "tiny", "sha256": "0" * 64},
        "data": "x",
        "z_vx": [1, 2],
        "shifts_version": 1,
        "interval": {"draws": 30, "method": "m"},
        "not_run": [{"cell": "other_volume-1", "why": "needs --other"}],
        **known,
    }

    text = report(result)

    assert (
        "| AUROC of 4 far cells against unshifted, mean | >= 0.9 | 1.000 [1.000, 1.000] | yes |"
        in text
    )
    assert "other\\_volume-1: needs --other" in text
    for picture in plots(result):
        assert all(f">{c.code}</text>" in picture for c in CELLS)
        assert "<polyline" not in picture
