"""What runs a network's image encoder: over nine tenths of the time that a decision takes.

Everything after the encoder (tokens of features, the decision) stays in torch. A backend is a name
on the command line; `auto` takes one whose numbers are torch's own to 1e-5 on a CPU. What each one
costs and changes is measured by `examples/encoder_speed.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from cb2_assist.core.channels import EmChannel, GeometryChannel
from cb2_assist.core.errors import ModelError
from cb2_assist.model.cb2_network import Cb2ViT
from cb2_assist.model.checkpoint import Model
from cb2_assist.model.network import N_GEOMETRY, N_VIEWS, MultiTaskViT
from cb2_assist.settings import BACKENDS

log = logging.getLogger(__name__)

AUTO_ON_CPU = ("onnx", "openvino", "torch")
"""The fastest first; all three give torch's float32 numbers to 1e-5."""
AUTO_ON_CUDA = ("torch-bf16",)
"""Not compiled: a compiler takes up to minutes before the first answer, and rounds otherwise."""
ON_CUDA = ("auto", "torch", "torch-bf16", "torch-compiled")
COMPILER = "inductor"
"""Of torch; on a GPU it needs Triton, on a CPU a C++ compiler."""


class Encoder(Protocol):
    """Runs the image encoder of one network; may be called from several threads."""

    @property
    def backend(self) -> str:
        """One of `settings.BACKENDS`."""

    def __call__(self, geometry_NCHW: Tensor, em_NCHW: Tensor) -> Tensor:
        """Class tokens of whole decisions' images.

        Args:
            geometry_NCHW: float32, ``(N1, 7, px, px)``, the views of each decision in order.
            em_NCHW: float32, ``(N2, 3, px, px)``, likewise.

        Returns:
            float32, ``(N1 + N2, D)``, geometry first, on the device of the input.
        """


class ImageEncoder(nn.Module):
    """The part of a network that `Encoder` stands for, as torch runs it and exports hold it."""

    def __init__(self, network: MultiTaskViT | Cb2ViT) -> None:
        super().__init__()
        self.network = network

    def forward(self, geometry_NCHW: Tensor, em_NCHW: Tensor) -> Tensor:
        """Class tokens; which view an image is follows from its place."""
        if isinstance(self.network, Cb2ViT):
            return self.network.encode(geometry_NCHW, em_NCHW)[0]
        device = geometry_NCHW.device
        # not len(): an export would keep it as a constant
        geometry_view = torch.arange(geometry_NCHW.shape[0], device=device) % N_GEOMETRY
        em_view = torch.arange(em_NCHW.shape[0], device=device) % (N_VIEWS - N_GEOMETRY)
        return self.network.encode_views(
            geometry_NCHW, geometry_view, em_NCHW, N_GEOMETRY + em_view
        )[0]


class CompiledEncoder:
    """Torch in bfloat16, compiled for any number of decisions, on any device."""

    backend = "torch-compiled"

    def __init__(self, model: Model, device: torch.device) -> None:
        """Compile, and answer once.

        Raises:
            ModelError: The compiler is not there, or cannot do it.
        """
        px = model.views.image_px
        run = TorchEncoder(model.network, bf16=True)
        self._run = torch.compile(run, dynamic=True, backend=COMPILER)
        try:
            # two sizes, since one decision is compiled as a case of its own
            for decisions in (1, 2):
                self(
                    torch.zeros(3 * decisions, len(GeometryChannel), px, px, device=device),
                    torch.zeros(3 * decisions, len(EmChannel), px, px, device=device),
                )
        except Exception as e:
            # compilers fail in ways of their own; none may end the program
            why = " ".join((str(e).strip() or type(e).__name__).splitlines()[:2])
            raise ModelError(
                f"torch cannot compile the network here: {why}. Use --backend torch-bf16."
            ) from e

    def __call__(self, geometry_NCHW: Tensor, em_NCHW: Tensor) -> Tensor:
        """See `Encoder`."""
        with torch.inference_mode():
            cls: Tensor = self._run(geometry_NCHW, em_NCHW)
        return cls


class TorchEncoder:
    """Torch, on any device."""

    def __init__(self, network: MultiTaskViT | Cb2ViT, *, bf16: bool) -> None:
        self._run, self._bf16 = ImageEncoder(network), bf16

    @property
    def backend(self) -> str:
        """``torch`` or ``torch-bf16``."""
        return "torch-bf16" if self._bf16 else "torch"

    def __call__(self, geometry_NCHW: Tensor, em_NCHW: Tensor) -> Tensor:
        """See `Encoder`."""
        kind = geometry_NCHW.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self._bf16):
            cls: Tensor = self._run(geometry_NCHW, em_NCHW)
        return cls.float()


def check_backend(wanted: str) -> str:
    """Refuse a name that is no backend.

    Raises:
        ModelError: It is neither ``auto`` nor one of `settings.BACKENDS`.
    """
    if wanted != "auto" and wanted not in BACKENDS:
        raise ModelError(f"--backend takes {', '.join(['auto', *BACKENDS])}, got {wanted!r}.")
    return wanted


def make_encoder(model: Model, device: torch.device, threads: int, wanted: str) -> Encoder:
    """The encoder that was asked for, or the fastest that is there.

    Args:
        model: Loaded, its network on the device.
        device: Where it runs.
        threads: How many decisions are encoded at once, at most.
        wanted: ``auto`` or one of `settings.BACKENDS`.

    Raises:
        ModelError: There is no such backend, its package is not installed, or it fails.
    """
    check_backend(wanted)
    on_cpu = device.type == "cpu"
    if not on_cpu and wanted not in ON_CUDA:
        raise ModelError(f"--backend {wanted} runs on the CPU: add --device cpu.")
    if wanted != "auto":
        return _make(model, device, threads, wanted)
    *first, last = AUTO_ON_CPU if on_cpu else AUTO_ON_CUDA
    for name in first:
        try:
            return _make(model, device, threads, name)
        except ModelError as e:
            log.info("%s", e)
    return _make(model, device, threads, last)


def _make(model: Model, device: torch.device, threads: int, name: str) -> Encoder:
    if name == CompiledEncoder.backend:
        return CompiledEncoder(model, device)
    if name.startswith("torch"):
        return TorchEncoder(model.network, bf16=name == "torch-bf16")
    from cb2_assist.model import exported

    makers: dict[str, Callable[[], Encoder]] = {
        "onnx": lambda: exported.OnnxEncoder(model),
        "openvino": lambda: exported.OpenvinoEncoder(model, threads, bf16=False),
        "openvino-bf16": lambda: exported.OpenvinoEncoder(model, threads, bf16=True),
    }
    return makers[name]()
