"""The file that ships the demo: one zip of finished chunks and of sections without noise.

It holds ``manifest.json`` (recipe, sizes, content ids, error counts), ``em/000.webp`` and on (the
stored levels of each section, lossless), and as precomputed volumes ``seg`` (all scales) and
``truth`` (the finest).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.demo_format import (
    BLOCK,
    SCALES,
    VOXEL,
    chunk_boxes,
    info_of,
    scale_key,
    seg_ids,
    truth_ids,
)
from cb2_assist.datasets.demo_grain import micrographs
from cb2_assist.datasets.demo_make import DemoVolume, Recipe
from cb2_assist.datasets.errors_count import count_errors
from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.writer import content_version


def _label_entries(
    kind: str, ids: NDArray[np.uint64], scales: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, bytes]]:
    """Files of a segmentation ``[z, y, x]``."""
    from cloudvolume import chunks

    shape = (ids.shape[2], ids.shape[1], ids.shape[0])
    yield f"{kind}/info", json.dumps(info_of(kind, shape, scales)).encode()
    for across, along in scales:
        level = ids[::along, ::across, ::across]
        size = (level.shape[2], level.shape[1], level.shape[0])
        for name, box in chunk_boxes(size):
            part = np.asfortranarray(level[box].T[..., None])
            body = chunks.encode(part, "compressed_segmentation", [BLOCK] * 3)
            yield (
                f"{kind}/{scale_key((across, along))}/{name}.gz",
                gzip.compress(bytes(body), 9, mtime=0),
            )


def _em_entries(levels: NDArray[np.uint8]) -> Iterator[tuple[str, bytes]]:
    """Sections as lossless WebP, a tenth smaller than PNG; its three channels are equal."""
    from PIL import Image

    for k, section in enumerate(levels):
        out = io.BytesIO()
        picture = Image.fromarray(np.repeat(section[..., None], 3, axis=2))
        picture.save(out, "WEBP", lossless=True, quality=100, method=5)
        yield f"em/{k:03d}.webp", out.getvalue()


def write_pack(path: Path, volume: DemoVolume, recipe: Recipe) -> dict[str, Any]:
    """Write the shipped file.

    Returns:
        Its manifest.
    """
    em = micrographs(volume.levels, recipe.seed)
    segments = seg_ids(volume.seg)
    entries = [
        *_em_entries(volume.levels),
        *_label_entries("seg", segments, SCALES),
        *_label_entries("truth", truth_ids(volume.truth), SCALES[:1]),
    ]
    digest = hashlib.sha256()
    for name, body in entries:
        digest.update(f"{name} {len(body)} ".encode())
        digest.update(body)
    manifest = {
        "shape": list(recipe.shape),
        "seed": recipe.seed,
        "dendrites": recipe.dendrites,
        "version": content_version(segments.T, grid_of(VOXEL)),
        "sha256": digest.hexdigest(),
        "em_mean": float(em.mean()),
        "em_std": float(em.std()),
        "segments": int(volume.seg.max()),
        "bodies": int(volume.truth.max()),
        "errors": asdict(count_errors(volume.seg, volume.truth)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as pack:
        for name, body in [("manifest.json", json.dumps(manifest, indent=1).encode()), *entries]:
            # a fixed time: the same content gives the same file
            pack.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), body)
    return manifest
