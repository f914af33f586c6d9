"""Checkpoints of training runs: tensors of networks and optimiser in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from cb2_assist.core.errors import ModelError

CHECKPOINT = "checkpoint.safetensors"
_OPTIMISER = "opt"


def write_checkpoint(
    path: Path,
    states: Mapping[str, Mapping[str, Tensor]],
    optimizer: Optimizer,
    meta: dict[str, str],
) -> None:
    """Write one, atomically: a run killed here loses at most what came since the last.

    Args:
        path: In the folder of the run.
        states: Of networks, by what `state_of` asks for.
        optimizer: Its state is kept as well.
        meta: Words beside the tensors.
    """
    out = {f"{name}.{k}": v for name, state in states.items() for k, v in state.items()}
    for i, state in optimizer.state_dict()["state"].items():
        out |= {f"{_OPTIMISER}.{i}.{k}": v for k, v in state.items()}
    out = {k: v.detach().cpu().clone().contiguous() for k, v in out.items()}
    temporary = path.with_suffix(".tmp")
    save_file(out, temporary, meta)
    temporary.replace(path)


def read_checkpoint(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Its words, and its tensors on the CPU.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        with safe_open(path, "pt") as f:
            meta = f.metadata()
        return meta, load_file(path)
    except (SafetensorError, OSError) as e:
        raise ModelError(
            f"{path} cannot be read: {e}. Delete it to start again, or restore it."
        ) from e


def state_of(saved: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The state of one network."""
    start = f"{name}."
    return {k.removeprefix(start): v for k, v in saved.items() if k.startswith(start)}


def optimiser_state(optimizer: Optimizer, saved: Mapping[str, Tensor]) -> dict[str, Any]:
    """The optimiser's state with what was saved of it, for ``load_state_dict``."""
    state: dict[str, Any] = optimizer.state_dict()
    for key, value in state_of(saved, _OPTIMISER).items():
        i, name = key.split(".", 1)
        state["state"].setdefault(int(i), {})[name] = value
    return state
