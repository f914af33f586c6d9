"""What a pretraining run looked like: history.json and its curve as SVG in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cb2_assist.core.errors import ModelError
from cb2_assist.learning.progress_log import EVERY_STEPS, HISTORY
from cb2_assist.learning.svg_lines import Line, line_chart


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
        self.steps: list[dict[str, Any]] = []
        self.held_out: list[dict[str, Any]] = []
        path = folder / HISTORY
        if not resumed or not path.is_file():
            return
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            self.steps = [e for e in kept["steps"] if e["step"] <= step]
            self.held_out = [e for e in kept["held_out"] if e["step"] <= step]
        except (ValueError, KeyError, TypeError) as e:
            raise ModelError(
                f"{path} is not a pretraining history: {e}. Move it away; the run goes on "
                "without it."
            ) from e

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
        self._replace(HISTORY, json.dumps(whole, indent=1) + "\n")
        if self.steps:
            self._replace("loss.svg", self._chart())

    def _chart(self) -> str:
        at = np.array([e["step"] for e in self.steps], np.float64)
        lines = [Line("training", np.array([e["loss"] for e in self.steps]))]
        if self.held_out:
            # the value of the last epoch that is over, at each entry of the training curve
            ends = np.array([e["step"] for e in self.held_out], np.float64)
            which = np.maximum(np.searchsorted(ends, at, side="right") - 1, 0)
            for label, key in (("held out", "network"), ("mean of shown", "mean_of_shown")):
                values = np.array([e[key]["loss"] for e in self.held_out])
                lines.append(Line(label, values[which]))
        return line_chart(
            "Loss of masked modelling", f"entries of up to {EVERY_STEPS} steps", "loss", lines
        )

    def _replace(self, name: str, text: str) -> None:
        temporary = self._folder / f"{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._folder / name)
