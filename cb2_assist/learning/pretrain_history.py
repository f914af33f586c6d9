"""What a pretraining run looked like: history.json and its curve as SVG in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cb2_assist.learning.progress_log import HISTORY, kept_entries, replace_text
from cb2_assist.learning.svg_chart import Chart, Curve, svg


class PretrainHistory:
    """Loss by step, and of held-out sites by epoch, kept as JSON.

    It belongs to the checkpoint: a run that goes on from a step drops what was written after it.

    Attributes:
        steps: ``{"step", "loss", "seconds"}``: mean loss since the entry before, time of a step.
        held_out: ``{"step", **Pretrainer.judged()}``.
    """

    def __init__(self, folder: Path, step: int, *, resumed: bool) -> None:
        """Go on with the folder's history up to a step, or begin a new one.

        Raises:
            ModelError: The file in the folder is not a history.
        """
        self._folder = folder
        kept = kept_entries(folder, step if resumed else None, "pretraining", "steps", "held_out")
        self.steps, self.held_out = kept

    def add_steps(self, step: int, loss: float, seconds: float) -> None:
        """Add the mean loss of some steps, of which ``step`` is the last."""
        self.steps.append({"step": step, "loss": round(loss, 5), "seconds": round(seconds, 4)})

    def add_held_out(self, step: int, figures: Mapping[str, Any]) -> None:
        """Add what was measured after an epoch; nothing where no site is held out."""
        if figures:
            self.held_out.append({"step": step, **figures})

    def write(self) -> None:
        """Write history.json and loss.svg; each file is replaced as a whole."""
        whole = {"steps": self.steps, "held_out": self.held_out}
        replace_text(self._folder / HISTORY, json.dumps(whole, indent=1) + "\n")
        if self.steps:
            replace_text(self._folder / "loss.svg", self._chart())

    def _chart(self) -> str:
        found = {"training (solid)": [(e["step"], e["loss"]) for e in self.steps]}
        for label, key in (
            ("held out (dashed)", "network"),
            ("mean guess (dotted)", "mean_of_shown"),
        ):
            found[label] = [(e["step"], e[key]["loss"]) for e in self.held_out]
        last = self.steps[-1]["step"]
        # a round number of halves, so that the ticks are round, too
        top = 0.5 * np.ceil(2 * max(0.1, *(v for line in found.values() for _, v in line)))
        curves = [
            Curve(
                label,
                np.array([step for step, _ in line]) / last,
                np.array([value for _, value in line]) / top,
                dots=not label.startswith("training"),
            )
            for label, line in found.items()
            if line
        ]
        return svg(
            Chart(
                "Loss of masked modelling",
                "step",
                "squared error of hidden patches",
                curves,
                note="held-out sites lie at an edge: views hold less",
                x_ticks=[f"{last * k / 5:.0f}" for k in range(6)],
                y_ticks=[f"{top * k / 5:.2g}" for k in range(6)],
            )
        )
