"""Between this machine's memory and a GPU's: few transfers, and batches that fit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cb2_assist.core.errors import ModelError

Job = TypeVar("Job")
Answer = TypeVar("Answer")

BATCH = 16
"""Decisions that a GPU works on at once, as long as its memory is enough."""


def to_device(arrays: Sequence[NDArray[np.float32]], device: torch.device) -> list[Tensor]:
    """The arrays as tensors on a device, in one transfer.

    For a GPU it is from pinned memory, so that nothing waits for it but the kernels behind it.
    """
    flat = torch.empty(sum(a.size for a in arrays), pin_memory=device.type == "cuda")
    sizes = [a.size for a in arrays]
    for place, a in zip(torch.split(flat, sizes), arrays, strict=True):
        place.view(a.shape).copy_(torch.from_numpy(a))
    sent = flat.to(device, non_blocking=True)
    return [p.view(a.shape) for p, a in zip(torch.split(sent, sizes), arrays, strict=True)]


class InBatches:
    """Works on jobs batch by batch; batches that do not fit the memory are halved for good."""

    def __init__(self, size: int = BATCH) -> None:
        self.size = size
        self._lock = threading.Lock()

    def __call__(
        self, jobs: Sequence[Job], run: Callable[[Sequence[Job]], list[Answer]]
    ) -> list[Answer]:
        """What ``run`` answers to all jobs, in order.

        Raises:
            ModelError: The memory is not enough for a single one.
        """
        out: list[Answer] = []
        while len(out) < len(jobs):
            part = jobs[len(out) : len(out) + self.size]
            try:
                out += run(part)
                continue
            except torch.OutOfMemoryError as e:
                if len(part) == 1:
                    raise ModelError(
                        "The GPU's memory is not enough for one decision. Use --device cpu, or "
                        "close what else uses the GPU."
                    ) from e
            # only here is the exception gone, and what the failed try held with it
            self._halve(len(part))
        return out

    def _halve(self, tried: int) -> None:
        with self._lock:
            self.size = min(self.size, tried // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
