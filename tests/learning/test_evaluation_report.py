"""What a person reads of an evaluation: the report and its plots."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from sklearn.metrics import auc

from cb2_assist.core.records import Kind
from cb2_assist.learning.compare import NOTE, compare
from cb2_assist.learning.evaluation_plots import (
    charts,
    precision_recall,
    reliability,
    roc,
    write_plots,
)
from cb2_assist.learning.evaluation_report import report
from cb2_assist.learning.judged import MODALITIES, SUBSETS, Judged
from cb2_assist.learning.published import published
from cb2_assist.learning.svg_chart import Chart, Curve, svg

N = 300


def judged(kind=Kind.JOIN, *, n=N, one_answer=False, seed=0) -> Judged:
    rng = np.random.default_rng(seed)
    score = np.round(rng.beta(2, 2, n), 2)
    answer = np.ones(n, bool) if one_answer else rng.random(n) < score
    return Judged(
        kind,
        np.array([f"d{i}" for i in range(n)]),
        answer,
        np.array([f"body{i // 5}" for i in range(n)]),
        np.where(np.arange(n) % 3 == 0, "fly", "mo|use"),
        np.full(n, "merge_edit"),
        dict.fromkeys(SUBSETS, score),
        {name: np.ones(n, bool) for name in MODALITIES},
    )


def result_of(*sets: Judged, **more):
    model = {"name": "tiny", "sha256": "ab" * 32, "calibrator": "cal-1", "profile": "cb2"}
    made = {
        "model": model,
        "data": "folder",
        "n": sum(map(len, sets)),
        "n_scored": sum(map(len, sets)),
        "format": "ConnectomeBench2 v2",
        "splits": ["test"],
        "interval": {"draws": 20, "clusters": {"body": N}, "body": "the proofread neuron"},
        "tasks": {j.kind.value: j.task(20) for j in sets},
        "published": published(),
    }
    return made | more


def test_the_report_has_every_figure_with_its_interval_and_every_breakdown() -> None:
    result = result_of(judged(), judged(Kind.CUT))
    text = report(result, ["join-roc.svg", "cut-roc.svg"])

    for task in ("join", "cut"):
        part = text.split(f"\n## {task}\n")[1].split("\n## ")[0]
        figure = result["tasks"][task]["balanced_accuracy"]
        low, high = figure["ci95"]
        assert f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]" in part
        for title in ("By species", "By sample type", "By what the model sees"):
            assert f"### {title}" in part
        assert f"({task}-roc.svg)" in part
    assert json.dumps(result), "it is made from what the file holds"


def test_published_figures_stand_beside_ours_with_their_caveat() -> None:
    text = report(result_of(judged(), judged(Kind.CUT)))

    join, cut = text.split("\n## cut\n")
    for part, values in ((join, ("0.970", "0.930")), (cut, ("0.930", "0.841"))):
        assert all(v in part for v in values)
        assert "other data" in part
        assert "arXiv 2606.21116" in part


def test_what_was_left_out_is_listed_with_its_count() -> None:
    text = report(
        result_of(
            judged(),
            skipped={"it has no label": 7},
            unscored={"an EM view is not a readable PNG": 2},
            mismatches={"the views' extent is not known": 5},
        )
    )
    for line in ("- 7: it has no label", "- 2: an EM view is", "- 5: the views' extent"):
        assert line in text


def test_a_figure_that_does_not_exist_is_a_dash() -> None:
    text = report(result_of(judged(one_answer=True)))
    assert "| balanced accuracy, score > 0.5 | – |" in text
    assert " nan" not in text.lower()
    assert "None" not in text


def test_few_clusters_are_warned_of() -> None:
    assert "Only 6 clusters" in report(result_of(judged(n=30)))
    assert "Only 60 clusters" not in report(result_of(judged()))


def test_names_from_files_cannot_break_the_tables() -> None:
    result = result_of(judged())
    result["model"]["name"] = "a | b\n# <script>"
    text = report(result)

    assert "mo\\|use" in text
    assert "<script>" not in text.replace("\\<", "")
    assert text.splitlines()[0] == "# a \\| b # \\<script> on folder"
    for table in text.split("\n\n"):
        lines = [row.replace("\\|", "") for row in table.splitlines() if row.startswith("|")]
        assert len({row.count("|") for row in lines}) <= 1


def test_a_comparison_has_its_test_and_its_caution() -> None:
    first, second = judged(), judged(seed=1)
    second = Judged(*(getattr(first, k) for k in Judged.__slots__[:6]), second.scores, second.there)
    compared = {
        "second": {"name": "other"},
        "note": NOTE,
        "tasks": compare([first], [second], 20),
    }
    text = report(result_of(first, compare=compared))

    assert "### Against other" in text
    assert "McNemar's exact p = " in text
    assert "independent" in text
    assert "| balanced accuracy |" in text.split("### Against other")[1]


def test_the_area_under_the_drawn_curves_is_the_figure() -> None:
    made = judged()
    task = made.task(20)
    fpr, tpr = roc(made)
    recall, precision = precision_recall(made)

    assert auc(fpr, tpr) == pytest.approx(task["auroc"]["value"])
    area = float((np.diff(recall) * precision[1:]).sum())
    assert area == pytest.approx(task["average_precision"]["value"])


def test_reliability_shows_what_happened_at_each_confidence() -> None:
    made = judged(n=5000)
    curve = reliability(made, "tiny")

    assert (np.diff(curve.x) > 0).all()
    assert np.abs(curve.x - curve.y).mean() < 0.1, "these scores are calibrated"
    assert (curve.low < curve.y).all()
    assert (curve.y < curve.high).all()


def test_plots_are_well_formed_whatever_the_name() -> None:
    for chart in charts(judged(), 'a <b> & "c"'):
        root = ET.fromstring(svg(chart))
        assert root.tag.endswith("svg")
        words = [t.text for t in root.iter() if t.text and t.text.strip()]
        assert any('a <b> & "c"' in w for w in words)
        assert chart.title in words


def test_a_curve_of_very_many_points_stays_small() -> None:
    x = np.linspace(0, 1, 100_000)
    text = svg(Chart("t", "x", "y", [Curve("c", x, x, steps=True)]))
    assert len(text) < 30_000


def test_plots_of_an_earlier_run_do_not_stay(tmp_path) -> None:
    first = write_plots([judged(), judged(Kind.CUT)], "tiny", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(first)
    assert len(first) == 6
    second = write_plots([judged(), judged(Kind.CUT, one_answer=True)], "tiny", tmp_path)

    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(second)
    assert all(name.startswith("join-") for name in second)
