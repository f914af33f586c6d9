"""A network's image encoder as an ONNX file, and the two runtimes that read it.

The file is made from the weights once and kept in the user's cache folder. Both runtimes fuse
operations and bring matrix kernels of their own, which on many processors are faster than torch's.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import os
import tempfile
import threading
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from cb2_assist import __version__
from cb2_assist.core.channels import EmChannel, GeometryChannel
from cb2_assist.core.errors import ModelError
from cb2_assist.model.checkpoint import Model
from cb2_assist.model.encoders import ImageEncoder
from cb2_assist.model.network import N_GEOMETRY, N_VIEWS
from cb2_assist.resources import cache_folder

OPSET = 18
_INPUTS = ("geometry", "em")


def exported(model: Model) -> bytes:
    """The image encoder of a model as ONNX, from the cache or made now.

    Raises:
        ModelError: It cannot be exported.
    """
    made_by = f"{model.sha256} {model.card['network']} {__version__} {torch.__version__} {OPSET}"
    name = f"{hashlib.sha256(made_by.encode()).hexdigest()[:24]}.onnx"
    path = cache_folder() / "encoders" / name
    with contextlib.suppress(OSError):
        return path.read_bytes()
    content = _export(model)
    # without a place to keep it, it is made again the next time
    with contextlib.suppress(OSError):
        _keep(path, content)
    return content


def _export(model: Model) -> bytes:
    px = model.views.image_px
    # two decisions: with one, its number of images would be taken for a constant
    geometry = torch.zeros(2 * N_GEOMETRY, len(GeometryChannel), px, px)
    em = torch.zeros(2 * (N_VIEWS - N_GEOMETRY), len(EmChannel), px, px)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # torch says that tracing may miss branches; tests compare the numbers
        warnings.simplefilter("ignore")
        out = Path(folder) / "encoder.onnx"
        try:
            torch.onnx.export(
                ImageEncoder(model.network).eval(),
                (geometry, em),
                out,
                dynamo=False,
                opset_version=OPSET,
                input_names=list(_INPUTS),
                output_names=["cls"],
                dynamic_axes={"geometry": {0: "n1"}, "em": {0: "n2"}, "cls": {0: "n"}},
            )
            return out.read_bytes()
        # the exporter has errors of its own, and lets those of what it calls through
        except Exception as e:
            raise ModelError(
                f"The network of {model.name} cannot be written as ONNX: {_first_line(e)}. Use "
                "--backend torch."
            ) from e


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content)
        Path(part).replace(path)
    except OSError:
        Path(part).unlink(missing_ok=True)
        raise


class OnnxEncoder:
    """onnxruntime on the CPU, in the calling thread."""

    backend = "onnx"

    def __init__(self, model: Model) -> None:
        runtime = _imported("onnxruntime", self.backend, "onnx onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        content = exported(model)
        try:
            self._session = runtime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:
            raise _unusable("onnx", e) from e

    def __call__(self, geometry_NCHW: Tensor, em_NCHW: Tensor) -> Tensor:
        """See `encoders.Encoder`."""
        feed = dict(zip(_INPUTS, (geometry_NCHW.numpy(), em_NCHW.numpy()), strict=True))
        (cls,) = self._session.run(None, feed)
        return torch.from_numpy(cls)


class OpenvinoEncoder:
    """OpenVINO on the CPU, one of its streams for each calling thread."""

    def __init__(self, model: Model, threads: int, *, bf16: bool) -> None:
        self.backend = "openvino-bf16" if bf16 else "openvino"
        runtime = _imported("openvino", self.backend, "'cb2-assist[openvino]'")
        content = exported(model)
        try:
            core = runtime.Core()
            # pinned, all of its streams wait for the same core
            self._compiled = core.compile_model(
                core.read_model(io.BytesIO(content)),
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
                    "INFERENCE_NUM_THREADS": threads,
                    "NUM_STREAMS": threads,
                    "ENABLE_CPU_PINNING": False,
                },
            )
        except Exception as e:
            raise _unusable(self.backend, e) from e
        self._own = threading.local()

    def __call__(self, geometry_NCHW: Tensor, em_NCHW: Tensor) -> Tensor:
        """See `encoders.Encoder`."""
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        found = self._own.request.infer([geometry_NCHW.numpy(), em_NCHW.numpy()])
        # the request's own memory holds the next answer, too
        return torch.from_numpy(np.array(found[0]))


def _imported(package: str, backend: str, install: str) -> ModuleType:
    try:
        importlib.import_module("onnx")  # torch writes the file with it
        return importlib.import_module(package)
    except ImportError as e:
        raise ModelError(
            f"--backend {backend} needs packages that are not there ({e}): pip install {install}."
        ) from e


def _unusable(backend: str, e: Exception) -> ModelError:
    return ModelError(f"--backend {backend} cannot be used: {_first_line(e)}. Use --backend torch.")


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [type(e).__name__])[0]
