"""How many of the true joins and cuts near the cursor are among the candidates.

What you will see: for joins that touch, joins across a gap and cuts, the share that is among the 16
candidates with a 95 % interval (whole truth bodies are drawn again), beside the share among the 16
largest contacts, the 16 nearest and all of them, and how many neighbours there were to choose from.

    python examples/candidate_recall.py
    python examples/candidate_recall.py fib25-ffn/dataset.toml --limit 300
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.demo import unpacked_demo
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning.prepare import load_volume
from cb2_assist.learning.recall import JOIN_SORTS, Trial, trials
from cb2_assist.resources import cache_folder

DRAWS = 1000


def interval(found: NDArray[np.bool_], body: NDArray[np.int64]) -> tuple[float, float]:
    """95 % interval of a share, drawing whole bodies."""
    rng = np.random.default_rng(0)
    _, at = np.unique(body, return_inverse=True)
    total, right = np.bincount(at), np.bincount(at, found)
    drawn = rng.integers(len(total), size=(DRAWS, len(total)))
    share = right[drawn].sum(axis=1) / total[drawn].sum(axis=1)
    low, high = np.quantile(share, [0.025, 0.975])
    return float(low), float(high)


def report(what: str, mine: Sequence[Trial]) -> None:
    """One line for each way of choosing."""
    body = np.array([t.body for t in mine])
    neighbours = np.array([t.neighbours for t in mine])
    print(
        f"{what}: n = {len(mine)} at cursors, {len(np.unique(body))} bodies; neighbours that touch "
        f"within the radius: mean {neighbours.mean():.1f}, "
        f"90 % have at most {np.quantile(neighbours, 0.9):.0f}"
    )
    for way in mine[0].found:
        found = np.array([t.found[way] for t in mine])
        low, high = interval(found, body)
        print(f"  {way:<14}{found.mean():6.1%}  ({low:.1%} to {high:.1%})")


def main() -> None:
    """Ask at cursors all over a dataset with truth and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", nargs="?", type=Path, help="a dataset.toml; without: the demo")
    parser.add_argument("--limit", type=int, help="true joins and cuts to ask about; without: all")
    chosen = parser.parse_args()
    source = open_dataset_file(chosen.dataset or unpacked_demo(cache_folder()))
    asked = list(trials(load_volume(source), limit=chosen.limit))
    for what in (*JOIN_SORTS, "cut"):
        mine = [t for t in asked if t.what == what]
        if mine:
            report(what, mine)
        else:
            print(f"{what}: none in this volume")


if __name__ == "__main__":
    main()
