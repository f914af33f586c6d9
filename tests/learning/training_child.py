"""Trains on prepared parts in a process of its own, alone or started by torchrun.

    python training_child.py PARTS OUT RECIPE_JSON [--each-step]

With --each-step a checkpoint follows every step, and its number is printed when it is on disk.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from fixtures_training import STEADY_NETWORK

from cb2_assist.learning.distributed import team
from cb2_assist.learning.prepare import open_part
from cb2_assist.learning.recipe import Recipe
from cb2_assist.learning.train import Examples
from cb2_assist.learning.trainer import Trainer


def main(parts: str, out: str, recipe: str, *flags: str) -> None:
    torch.set_num_threads(1)
    every = "--each-step" in flags
    data = Examples([open_part(p) for p in sorted(Path(parts).iterdir())])
    with team("cpu") as us:
        trainer = Trainer(Path(out), STEADY_NETWORK, Recipe(**json.loads(recipe)), us, print)
        if not trainer.resume():
            trainer.fit_scale(data)
        save = trainer.save

        def saved() -> None:
            save()
            print(f"saved {trainer.step}", flush=True)

        if every:
            trainer.save = saved  # type: ignore[method-assign]
        trainer.run(data, minutes=10, checkpoint_s=0.0 if every else 600.0)


if __name__ == "__main__":
    main(*sys.argv[1:])
