"""Several processes that train one network, as torchrun starts them.

    torchrun --nproc-per-node 8 -m cb2_assist train ...

Every process holds all decisions and knows each batch; it works on its own share. Only the first
one, the lead, writes files and talks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from cb2_assist.core.errors import UsageError

_PATIENCE = timedelta(hours=12)
"""The others wait as long for the lead, which renders examples and validates."""


@dataclass(frozen=True, slots=True)
class Team:
    """This process among those that train together.

    Attributes:
        rank: Which one it is, 0 is the lead.
        size: How many there are.
        device: What it computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def lead(self) -> bool:
        """Whether this process writes and talks."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            distributed.barrier()

    def lead_says(self, yes: bool) -> bool:
        """The lead's answer, in every process."""
        if self.size == 1:
            return yes
        flag = torch.tensor([float(yes)], device=self.device)
        distributed.broadcast(flag, 0)
        return bool(flag.item())

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Mean over the processes of each value; all must give the same names."""
        if self.size == 1:
            return values
        # float32: some accelerators have nothing wider
        total = torch.tensor(list(values.values()), dtype=torch.float32, device=self.device)
        distributed.all_reduce(total)
        return dict(zip(values, (total / self.size).tolist(), strict=True))


@contextmanager
def team(device: str) -> Iterator[Team]:
    """Join the processes that torchrun started; alone without torchrun.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:n``. Of several processes each takes the GPU of its own
            local rank.

    Raises:
        UsageError: There are fewer GPUs than processes, or one GPU was named for all.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(0, 1, torch.device(device))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.startswith("cuda"):
        if device != "cuda" or local >= torch.cuda.device_count():
            raise UsageError(
                f"{size} processes cannot train on {device!r}: each takes a GPU of its own, and "
                f"{torch.cuda.device_count()} are visible. Give torchrun --nproc-per-node as many "
                "processes as there are GPUs, and --device auto."
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield Team(distributed.get_rank(), size, torch.device(device))
    finally:
        distributed.destroy_process_group()
