"""Numbers that a person might want to know or change, once, with unit and reason."""

from __future__ import annotations

import contextlib
import getpass
import os

SEARCH_RADIUS_NM = 800.0
"""How far from the cursor candidates are looked for."""
MAX_CANDIDATES = 16
"""Most candidates that the model judges for one `p`."""
OOD_FLAG_PERCENTILE = 99.0
"""A site farther from the training set than this share of held-out decisions is flagged."""
RECENT_STACKS = 64
"""View stacks kept in memory for the page and the label file, about 2 MB each."""
MAX_WINDOW_VX = 150_000_000
"""Most voxels round one site, 1.5 GB with what is made of them."""
SNAP_NM = 300.0
"""A picked mesh surface may lie this far from the segment's nearest voxel."""
MOST_DRAWN_PARTS = 2000
"""Of an object of a graph the viewer is given the surfaces of so many parts, those nearest to where
was asked last: 10 to 100 kB each, and one request each."""
BACKENDS: dict[str, str] = {
    "torch": "float32",
    "torch-bf16": "torch, matrices multiplied in bfloat16",
    "torch-compiled": "the same, compiled when it starts",
    "onnx": "onnxruntime, float32",
    "openvino": "OpenVINO, float32",
    "openvino-bf16": "OpenVINO, bfloat16 where the processor has it",
}
"""What may run a network's image encoder, by the name that `--backend` takes beside ``auto``."""
DEFAULT_MODEL, SECTIONS_MODEL = "cb2-vit-tiny", "cb2-vit-tiny-sections"
"""Folders below models/ that serve when --model is not given; see `model.shipped`."""


def login_name() -> str:
    """Who sits here, for labels where no name is given."""
    with contextlib.suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return f"uid-{os.getuid()}" if hasattr(os, "getuid") else "someone"
