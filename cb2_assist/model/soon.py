"""Stands for a predictor while it is being loaded, or where none is needed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import Kind, ModelOutput

if TYPE_CHECKING:
    from cb2_assist.model.predictor import Predictor
    from cb2_assist.views.stack import ViewStack


class PredictorSoon:
    """A predictor that is loaded in the background: torch and timm take seconds to import."""

    def __init__(self, folder: Path, device: str, threads: int | None, backend: str) -> None:
        self._arguments = (folder, device, threads, backend)
        self._loaded: Future[Predictor] = Future()
        threading.Thread(target=self._load, name="load-model", daemon=True).start()

    def _load(self) -> None:
        try:
            from cb2_assist.model.predictor import Predictor

            self._loaded.set_result(Predictor.open(*self._arguments))
        except BaseException as e:  # noqa: BLE001 - raised where the answer is waited for
            self._loaded.set_exception(e)

    def wait(self) -> Predictor:
        """The predictor.

        Raises:
            ModelError: Model or device cannot be used.
        """
        return self._loaded.result()

    def predict(self, stacks: Sequence[ViewStack], kinds: Sequence[Kind]) -> list[ModelOutput]:
        """Answer one question per stack, in order."""
        return self.wait().predict(stacks, kinds)

    def close(self) -> None:
        """Stop the worker threads, if there are any yet."""
        if self._loaded.done() and self._loaded.exception() is None:
            self._loaded.result().close()


class NoNetwork:
    """In the place of a predictor where only views are made."""

    def predict(self, stacks: Sequence[ViewStack], kinds: Sequence[Kind]) -> list[ModelOutput]:  # noqa: ARG002
        """Refuse.

        Raises:
            ModelError: Always.
        """
        raise ModelError("This assistant was built without its network and cannot judge.")

    def wait(self) -> None:
        """Nothing to wait for."""

    def close(self) -> None:
        """Nothing to let go of."""
