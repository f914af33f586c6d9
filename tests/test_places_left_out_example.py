"""The program that leaves places out, on decisions whose places are known to differ."""

import sys

import numpy as np
import places_left_out as example

from cb2_assist.core.records import Kind
from cb2_assist.learning.cross_fit import Held


def decisions(spread):
    """Joins and cuts in 2 x 2 x 3 blocks, each of its own source and with a bias of its own."""
    rng = np.random.default_rng(3)
    point = rng.random((5400, 3)) * (400, 400, 600)
    block = example.blocks(point, (2, 2, 3))
    off = rng.normal(0, spread, 12)[block]
    # mostly sure, so that bins fill, and wrong often enough to be seen
    logit = rng.choice([-1, 1], 5400) * rng.normal(3.5, 0.6, 5400)
    answer = rng.random(5400) < 1 / (1 + np.exp(-(logit + off)))
    return Held(
        {"all": logit},
        np.where(np.arange(5400) < 4800, 0, 1),
        answer,
        np.arange(5400) // 4,
        np.full(5400, "touching_pair"),
        np.char.add("part ", block.astype(str)),
        point,
    )


def test_blocks_hold_as_many_decisions_along_each_axis():
    count = np.bincount(example.blocks(np.random.default_rng(0).random((1200, 3)), (2, 2, 3)))

    assert len(count) == 12
    assert count.min() > 80


def test_intervals_of_other_places_hold_where_those_of_the_calibration_do_not(
    tmp_path, capsys, monkeypatch
):
    example.keep(tmp_path / "kept.npz", decisions(0.9))
    monkeypatch.setattr(example, "CUTS", {"twelve blocks": (2, 2, 3)})
    words = ["places_left_out.py", str(tmp_path / "no run"), str(tmp_path / "kept.npz")]
    monkeypatch.setattr(sys, "argv", words)
    example.main()
    lines = capsys.readouterr().out.splitlines()

    assert [line.split(":")[0].strip() for line in lines] == [
        *(f"{Kind.JOIN}s", "twelve blocks"),
        *(f"{Kind.CUT}s", "twelve blocks"),
    ]
    inside, of = (int(w) for w in lines[1].split(":")[1].split()[:3:2])
    alone = int(lines[1].split(":")[2].split()[0])
    assert of >= 20, lines

    assert inside >= 0.7 * of, lines
    assert alone < 0.5 * of
