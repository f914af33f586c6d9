"""The mix of candidates for one cursor."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cb2_assist.candidates import faces
from cb2_assist.candidates.cuts import cuts
from cb2_assist.candidates.finder import cutout_half_width_nm, find, warm_up
from cb2_assist.candidates.joins import contacts
from cb2_assist.core.geometry import PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId
from cb2_assist.datasets.source import Cutout
from cb2_assist.views import basins, cells
from tests.candidates.shapes import Grid, cutout_of

ISO = Resolution(10.0, 10.0, 10.0)
ID = SegmentId(2**60)
AT = PointNm(1000, 200, 200)


def beads(balls: int, pads: int) -> Cutout:
    """A string of balls along x, with pads of other segments below."""
    grid = Grid((220, 40, 40), ISO)
    seg = np.zeros((220, 40, 40), np.uint64, order="F")
    for i in range(pads):
        x = 2200 // (pads + 1) * (i + 1) // 10
        seg[x - 2 : x + 3, 17:23, : 10 + i % 3] = ID + i + 1
    mask = grid.tube((0, 200, 200), (2200, 200, 200), 40)
    for i in range(balls):
        mask |= grid.ball((2200 * (i + 0.5) / balls, 200, 200), 110)
    if balls:
        seg[mask] = ID
    return cutout_of(seg, ISO)


def kinds(cutout: Cutout, **options: object) -> tuple[int, int]:
    got = find(cutout, ID, AT, radius_nm=1200.0, **options)  # type: ignore[arg-type]
    n = sum(c.site.kind is Kind.JOIN for c in got)
    assert [c.site.kind for c in got] == [Kind.JOIN] * n + [Kind.CUT] * (len(got) - n)
    return n, len(got) - n


@pytest.mark.parametrize(
    ("balls", "pads", "limit", "expected"),
    [
        (9, 20, 16, (11, 5)),
        (9, 4, 16, (4, 8)),
        (3, 20, 16, (14, 2)),
        (9, 20, 4, (3, 1)),
        (3, 2, 16, (2, 2)),
        (9, 20, 0, (0, 0)),
    ],
)
def test_either_kind_uses_the_places_that_the_other_leaves(
    balls: int, pads: int, limit: int, expected: tuple[int, int]
) -> None:
    assert kinds(beads(balls, pads), limit=limit) == expected


def test_one_kind_alone() -> None:
    assert kinds(beads(9, 20), kinds=(Kind.JOIN,)) == (16, 0)
    assert kinds(beads(9, 20), kinds=(Kind.CUT,)) == (0, 8)


def test_nothing_to_find_is_an_empty_list() -> None:
    assert find(beads(1, 0), ID, AT) == []
    assert find(beads(0, 3), ID, AT) == []


def test_candidates_say_why_in_words_with_numbers() -> None:
    got = find(beads(3, 1), ID, AT, radius_nm=1200.0)
    assert got[0].reason.startswith("contact of 0.0")
    assert got[0].reason.endswith("µm from the cursor")
    assert "µm²" in got[0].reason
    assert got[-1].reason.startswith("neck of ")
    assert got[-1].reason.endswith("µm³")


def test_each_kind_comes_by_falling_prior() -> None:
    got = find(beads(9, 20), ID, AT, radius_nm=1200.0)
    for kind in Kind:
        priors = [c.prior for c in got if c.site.kind is kind]
        assert priors == sorted(priors, reverse=True)


def test_a_direct_contact_comes_before_a_larger_one_across_a_gap() -> None:
    seg = np.zeros((60, 40, 40), np.uint64, order="F")
    seg[20:40] = ID
    seg[:16] = ID + 1
    seg[40:, :20, :20] = ID + 2
    got = find(cutout_of(seg, ISO), ID, PointNm(300, 200, 200), kinds=(Kind.JOIN,))
    assert [c.site.partner for c in got] == [ID + 2, ID + 1]


def test_the_same_question_gives_the_same_answer() -> None:
    cutout = beads(9, 20)
    assert find(cutout, ID, AT) == find(cutout, ID, AT)


@pytest.mark.shared
@pytest.mark.benchmark
@pytest.mark.parametrize("name", ["ffn_seg", "ws_supervoxel"])
def test_real_neuropil_is_searched_fast(
    name: str, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(shared_data / "fib25_medulla_ts2" / "labels_zyx.npz") as file:
        raw = file[name].transpose(2, 1, 0)
    seg = np.asfortranarray(np.where(raw > 0, raw + np.uint64(2**53), np.uint64(0)))
    cutout = cutout_of(seg, ISO)
    warm_up()
    assert cutout_half_width_nm(800.0) > 800
    for voxel in ((60, 60, 60), (162, 108, 60)):
        segment, at = SegmentId(int(seg[voxel])), PointVoxel(*voxel).to_nm(ISO)
        took = {"joins": 9e9, "cuts": 9e9, "both": 9e9}
        for _ in range(3):
            for what, run in (("joins", contacts), ("cuts", cuts)):
                start = time.perf_counter()
                run(cutout, segment, at, 800.0)
                took[what] = min(took[what], time.perf_counter() - start)
            start = time.perf_counter()
            got = find(cutout, segment, at)
            took["both"] = min(took["both"], time.perf_counter() - start)
        assert 0 < len(got) <= 16
        with capsys.disabled():
            size = int((seg == segment).sum())
            print(f"\n{name}, {size} voxels:", {k: f"{1e3 * v:.0f} ms" for k, v in took.items()})
        assert took["both"] < 3.0


def crossing() -> Cutout:
    """Two tubes that cross, in a box of their own segment's neighbour."""
    grid = Grid((120, 120, 30), ISO)
    mask = grid.tube((0, 600, 150), (1200, 600, 150), 60)
    mask |= grid.tube((600, 0, 150), (600, 1200, 150), 60)
    return cutout_of(np.asfortranarray(np.where(mask, ID, np.uint64(ID + 1))), ISO)


def compiled() -> dict[str, int]:
    """How many variants of each loop have been compiled."""
    modules = (faces, basins, cells)
    return {
        f"{m.__name__}.{name}": len(loop.signatures)
        for m in modules
        for name, loop in vars(m).items()
        if hasattr(loop, "signatures")
    }


def test_after_warming_up_nothing_is_left_to_compile() -> None:
    # in a process of its own: other tests may have compiled what the warm-up forgets
    code = (
        "from cb2_assist.views.partition import partition\n"
        "from tests.candidates.test_finder import *\n"
        "warm_up()\n"
        "before = compiled()\n"
        "find(beads(9, 20), ID, AT, radius_nm=500.0)\n"
        "find(beads(1, 3), ID, AT)\n"
        "find(beads(9, 3), ID, PointNm(10, 20, 30), radius_nm=5000)\n"
        "assert [c for c in find(crossing(), ID, AT, radius_nm=2e3) if 'junc' in c.reason]\n"
        "partition(beads(9, 2).seg == ID, (110.0, 20.0, 20.0), ISO)\n"
        "partition(beads(1, 2).seg == ID, (5.0, 20.0, 20.0), ISO)\n"
        "assert before and compiled() == before, (before, compiled())\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
