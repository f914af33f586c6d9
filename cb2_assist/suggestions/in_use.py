"""Which model answers: changed while the program runs, without a question lost.

A question that was begun is finished by the model that it was put to. The pipeline before the
newest is kept until the next change, since what is on screen may still be of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cb2_assist.core.errors import ModelError
from cb2_assist.suggestions.pipeline import Pipeline


@dataclass(slots=True, eq=False)
class Opened:
    """A model that answers on a dataset.

    Attributes:
        folder: Of the model.
        pipeline: Answers with it.
        close: Lets go of it.
        verdict: What `finetune` found, e.g. ``better``; empty for other models.
        users, is_over: Questions that it answers now, and whether it is to go after the last;
            `ModelsInUse` alone changes them.
    """

    folder: Path
    pipeline: Pipeline
    close: Callable[[], None]
    verdict: str = ""
    users: int = 0
    is_over: bool = False


class ModelsInUse:
    """The model that answers, the one before, and all that there were. Any thread may call."""

    def __init__(self, first: Opened, opener: Callable[[Path], Opened]) -> None:
        """Take the first model.

        Args:
            first: Answers until `use`.
            opener: Opens a model folder on the dataset, with the calibration that is saved now.
        """
        self._now, self._opener = first, opener
        self._before: Opened | None = None
        self._lock = threading.Lock()
        self._changing = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        self._tell(first)

    @property
    def pipeline(self) -> Pipeline:
        """Of the model that answers, for what takes no time; see `asking`."""
        return self._now.pipeline

    @property
    def pipelines(self) -> tuple[Pipeline, ...]:
        """Of the model that answers, and of the one before: lists on screen may be of either."""
        with self._lock:
            kept = (self._now, self._before)
        return tuple(o.pipeline for o in kept if o is not None)

    def known(self) -> list[dict[str, Any]]:
        """Every model that has answered, as JSON.

        ``folder``, ``name``, ``sha256``, ``calibrator``, ``verdict``, and whether ``in_use``.
        """
        with self._lock:
            now = str(self._now.folder)
            return [{**about, "in_use": folder == now} for folder, about in self._known.items()]

    @contextmanager
    def asking(self) -> Iterator[Pipeline]:
        """The pipeline for one question: it is not let go of before the question is answered."""
        with self._lock:
            mine = self._now
            mine.users += 1
        try:
            yield mine.pipeline
        finally:
            self._leave(mine, users=1)

    def use(self, folder: Path) -> dict[str, Any]:
        """Let another model answer from now on; the same folder again takes a new calibration up.

        Returns:
            Its entry of `known`.

        Raises:
            ModelError: It cannot be used; the one before goes on answering.
            AssistError: The saved calibration is damaged, likewise.
        """
        with self._changing:
            try:
                made = self._opener(folder)
            except (OSError, ValueError) as e:
                raise ModelError(f"The model in {folder} cannot be opened: {e}.") from e
            with self._lock:
                gone, self._before, self._now = self._before, self._now, made
            self._tell(made)
            if gone is not None:
                self._leave(gone, over=True)
        return next(about for about in self.known() if about["in_use"])

    def close(self) -> None:
        """Let go of all of them."""
        with self._lock:
            kept = [o for o in (self._now, self._before) if o is not None]
        for one in kept:
            one.close()

    def _leave(self, mine: Opened, *, users: int = 0, over: bool = False) -> None:
        with self._lock:
            mine.users -= users
            mine.is_over |= over
            is_last = mine.is_over and mine.users == 0
        if is_last:
            mine.close()

    def _tell(self, opened: Opened) -> None:
        facts = opened.pipeline.facts
        with self._lock:
            self._known[str(opened.folder)] = {
                "folder": str(opened.folder),
                "name": facts.name,
                "sha256": facts.sha256,
                "calibrator": opened.pipeline.calibrator.id,
                "verdict": opened.verdict,
            }
