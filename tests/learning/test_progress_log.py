"""The history of a run: what it keeps, what it forgets after a kill, and its curves."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from cb2_assist.core.errors import ModelError
from cb2_assist.learning.progress_log import History, Means, Pace


def filled(folder: Path) -> History:
    history = History(folder, 0, 100, resumed=False)
    for step in (25, 50, 75):
        history.add_steps(step, 1, {"joint": 90 / step, "features": 0.5, "lr": 1e-3})
    for step in (50, 75):
        figures = {"balanced_accuracy": 0.8, "auroc": 0.9, "ece15": None}
        history.add_validation(step, step // 25, {"join-all": figures})
    history.write()
    return history


def test_what_came_after_the_checkpoint_is_forgotten(tmp_path: Path) -> None:
    filled(tmp_path)
    again = History(tmp_path, 60, 100, resumed=True)

    assert [e["step"] for e in again.steps] == [25, 50]
    assert [e["step"] for e in again.validation] == [50]
    assert again.validated(50)
    assert not again.validated(75)


def test_a_new_run_begins_a_new_history(tmp_path: Path) -> None:
    filled(tmp_path)
    assert History(tmp_path, 0, 100, resumed=False).steps == []


def test_curves_stay_inside_the_chart_and_are_well_formed(tmp_path: Path) -> None:
    filled(tmp_path)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["history.json", "loss.svg", "validation-join-all.svg"]
    for name in names[1:]:
        root = ET.fromstring((tmp_path / name).read_text())
        lines = [e for e in root.iter() if e.tag.endswith("polyline")]
        # a figure that has no value has no curve
        assert len(lines) == 2
        points = [p.split(",") for e in lines for p in e.attrib["points"].split()]
        assert all(62 <= float(x) <= 362 and 40 <= float(y) <= 340 for x, y in points)
    assert ">100</text>" in (tmp_path / "loss.svg").read_text()


def test_a_loss_that_is_no_number_is_null(tmp_path: Path) -> None:
    history = History(tmp_path, 0, 100, resumed=False)
    history.add_steps(25, 1, {"joint": float("nan")})
    history.write()

    assert json.loads((tmp_path / "history.json").read_text())["steps"][0]["joint"] is None


def test_another_file_of_that_name_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text("[1]")
    with pytest.raises(ModelError, match=r"not a training history.*Move it away"):
        History(tmp_path, 5, 100, resumed=True)


def test_the_rest_of_the_run_is_told_in_a_fitting_unit() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(4):
        now[0] += 2.0
        pace.step()
    now[0] += 1000.0  # a validation
    pace.resume()
    now[0] += 2.0
    pace.step()

    assert pace.step_seconds == pytest.approx(2.0)
    assert pace.left(10) == "about 20 s left"
    assert pace.left(300) == "about 10 min left"
    assert pace.left(9000) == "about 5.0 h left"


def test_terms_that_a_step_lacks_do_not_count_in_their_mean() -> None:
    means = Means()
    means.add({"joint": 1.0, "mask": 4.0})
    means.add({"joint": np.float64(3.0)})

    assert means.take() == {"joint": 2.0, "mask": 4.0}
    assert means.take() == {}
