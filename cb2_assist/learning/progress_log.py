"""What a run looked like: history.json and curves in the run's folder, and how long it still takes.

Loss terms are means over the steps between two entries. The history belongs to the checkpoint: a
run that goes on from step s drops what a killed process wrote after it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cb2_assist.core.durations import duration
from cb2_assist.core.errors import ModelError
from cb2_assist.learning.svg_chart import Chart, Curve, svg

HISTORY = "history.json"
EVERY_STEPS = 25
"""Steps behind one entry of the history and one line of progress."""


def kept_entries(
    folder: Path, step: int | None, what: str, *lists: str
) -> list[list[dict[str, Any]]]:
    """What a folder's history holds up to a step, a list for each name.

    Args:
        folder: Of the run.
        step: Where it goes on; None begins a new one.
        what: The file is a history of, for messages.
        lists: Names in the file.

    Raises:
        ModelError: The file in the folder is not such a history.
    """
    path = folder / HISTORY
    if step is None or not path.is_file():
        return [[] for _ in lists]
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [[e for e in kept[name] if e["step"] <= step] for name in lists]
    except (ValueError, KeyError, TypeError) as e:
        raise ModelError(
            f"{path} is not a {what} history: {e}. Move it away; the run goes on without it."
        ) from e


def replace_text(path: Path, text: str) -> None:
    """Write a file as a whole, or leave the one that is there."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


class History:
    """Loss by step and validation by epoch, kept as JSON.

    Attributes:
        steps: ``{"step", "epoch", "lr", "seconds", and the loss terms}``, by rising step;
            ``seconds`` is the time of a step.
        validation: ``{"step", "epoch", "sets": {name: figures}}``, by rising step.
    """

    def __init__(self, folder: Path, step: int, total: int, resumed: bool) -> None:
        """Go on with the folder's history up to a step, or begin a new one.

        Raises:
            ModelError: The file in the folder is not a history.
        """
        self._folder, self._total = folder, max(total, 1)
        kept = kept_entries(folder, step if resumed else None, "training", "steps", "validation")
        self.steps, self.validation = kept

    def add_steps(self, step: int, epoch: int, terms: Mapping[str, float]) -> None:
        """Add the means of some steps; ``step`` is the last of them."""
        self.steps.append({"step": step, "epoch": epoch, **_rounded(terms)})

    def add_validation(self, step: int, epoch: int, sets: Mapping[str, Any]) -> None:
        """Add the figures after an epoch, in place of earlier ones of the same step."""
        self.validation = [e for e in self.validation if e["step"] != step]
        self.validation.append({"step": step, "epoch": epoch, "sets": dict(sets)})

    def validated(self, step: int) -> bool:
        """Whether the figures after this step are there."""
        return any(e["step"] == step for e in self.validation)

    def write(self) -> None:
        """Write history.json and the curves; each file is replaced as a whole."""
        whole = {
            "total_steps": self._total,
            "steps": self.steps,
            "validation": self.validation,
        }
        replace_text(self._folder / HISTORY, json.dumps(whole, indent=1) + "\n")
        if self.steps:
            replace_text(self._folder / "loss.svg", svg(self._loss_chart()))
        for name in sorted({n for e in self.validation for n in e["sets"]}):
            replace_text(self._folder / f"validation-{name}.svg", svg(self._validation_chart(name)))

    def _loss_chart(self) -> Chart:
        terms = [k for k in ("joint", "images", "features") if any(k in e for e in self.steps)]
        lines = {k: [(e["step"], e[k]) for e in self.steps if e.get(k) is not None] for k in terms}
        top = _round_up(max((v for line in lines.values() for _, v in line), default=1.0))
        return Chart(
            "Training loss",
            "step",
            "loss (nats)",
            [self._curve(k, line, top) for k, line in lines.items() if line],
            note=f"means of up to {EVERY_STEPS} steps; by the tokens that may be used",
            x_ticks=self._step_ticks(),
            y_ticks=[f"{top * k / 5:.3g}" for k in range(6)],
        )

    def _validation_chart(self, name: str) -> Chart:
        shown = (
            ("balanced accuracy", "balanced_accuracy"),
            ("AUROC", "auroc"),
            ("ECE-15, natural prior", "ece15"),
        )
        curves = []
        for label, key in shown:
            line = [
                (e["step"], e["sets"][name][key])
                for e in self.validation
                if e["sets"].get(name, {}).get(key) is not None
            ]
            if line:
                curves.append(self._curve(label, line, 1.0, dots=True))
        return Chart(
            f"Validation: {name}", "step", "figure", curves, x_ticks=self._step_ticks(),
            note="of the averaged weights, after each epoch",
        )  # fmt: skip

    def _curve(
        self, label: str, line: Sequence[tuple[int, float]], top: float, dots: bool = False
    ) -> Curve:
        x, y = np.array(line, np.float64).T
        # a run that goes on with fewer epochs ends before what its history holds
        return Curve(label, np.clip(x / self._total, 0, 1), np.clip(y / top, 0, 1), dots=dots)

    def _step_ticks(self) -> list[str]:
        return [f"{self._total * k / 5:.0f}" for k in range(6)]


class Pace:
    """How long the rest takes, from the steps of this process; waits do not count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds, self._steps = 0.0, 0
        self._since = clock()

    def step(self) -> None:
        """One more step is done."""
        now = self._clock()
        self._seconds += now - self._since
        self._steps += 1
        self._since = now

    def resume(self) -> None:
        """Count from now: what lay between was no step."""
        self._since = self._clock()

    @property
    def step_seconds(self) -> float:
        """Mean time of a step so far."""
        return self._seconds / max(self._steps, 1)

    def left(self, steps: int) -> str:
        """In words, e.g. ``about 12 min left``."""
        return f"about {duration(steps * self.step_seconds)} left"


class Means:
    """Running means of the loss terms between two entries."""

    def __init__(self) -> None:
        self._sum: dict[str, Any] = {}
        self._n: dict[str, int] = {}

    def add(self, terms: Mapping[str, Any]) -> None:
        """One step's terms, numbers or scalar tensors, which stay on their device until `take`."""
        for k, v in terms.items():
            self._sum[k] = self._sum.get(k, 0.0) + v
            self._n[k] = self._n.get(k, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        out = {k: float(v) / self._n[k] for k, v in self._sum.items()}
        self._sum, self._n = {}, {}
        return out


def _rounded(terms: Mapping[str, float]) -> dict[str, float | None]:
    # JSON has no NaN
    return {k: float(f"{v:.6g}") if np.isfinite(v) else None for k, v in terms.items()}


def _round_up(value: float) -> float:
    """The next of 0.5, 1, 2, 5, 10 ... above."""
    if not np.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(power * k for k in (0.5, 1, 2, 5, 10) if power * k >= value))
