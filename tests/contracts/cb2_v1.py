"""Reads a cb2-v1 export the way ConnectomeBench2's public loader does, and asserts what it needs.

Written from the description of its data layer; no code of it is here.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NEEDED = {
    "combined_sample_hash": pa.string(),
    "source_archive_sample_hash": pa.string(),
    "source_archive": pa.string(),
    "sample_type": pa.string(),
    "same_neuron": pa.bool_(),
    "species": pa.string(),
    "has_single_mask": pa.bool_(),
    "has_dual_mask": pa.bool_(),
    "has_em": pa.bool_(),
    "task_routing": pa.list_(pa.string()),
    "false_split_correction_label": pa.bool_(),
    "false_merge_identification_label": pa.bool_(),
}
TYPES = {"merge_edit", "split_edit", "adjacent_control", "junction_control", "synapse_control"}
ROUTES = {"false_split_correction", "false_merge_identification", "split_mask_generation"}
EM = ("em_xy", "em_xz", "em_yz", "em_best")
MASK_A, MASK_B = 5, 6


def shards(root: Path, split: str) -> list[Path]:
    found = sorted((root / split).glob(f"{split}-*.parquet"))
    assert found, f"no {split} shard"
    return found


def rows(root: Path, split: str) -> list[dict]:
    """Every row of a split, after the checks that hold for files."""
    files = shards(root, split)
    schemas = [pq.read_schema(f) for f in files]
    assert all(s.equals(schemas[0], check_metadata=True) for s in schemas)
    for name, kind in NEEDED.items():
        got = schemas[0].field(name).type
        assert got.equals(kind) or (pa.types.is_list(kind) and got.value_type == kind.value_type)
    # projection by name over all shards at once, as the loader's first scan does
    assert pq.read_table([str(f) for f in files], columns=list(NEEDED)).num_columns == len(NEEDED)
    found = []
    for file in files:
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            assert parquet.metadata.row_group(group).num_rows <= 10
            found += parquet.read_row_group(group).to_pylist()
    hashes = [r["combined_sample_hash"] for r in found]
    assert len(set(hashes)) == len(hashes)
    return found


def items(row: dict) -> list[dict]:
    """The network's inputs of one row, one a view, with label and mask."""
    assert row["sample_type"] in TYPES
    assert row["task_routing"] is not None
    assert set(row["task_routing"]) <= ROUTES
    is_cut = "false_merge_identification" in row["task_routing"]
    label = row["false_merge_identification_label" if is_cut else "false_split_correction_label"]
    made = []
    if row["has_single_mask" if is_cut else "has_dual_mask"]:
        geometry = npz(row["geometry_single" if is_cut else "geometry"])
        has_mask = is_cut and "split_mask_generation" in row["task_routing"]
        pair = npz(row["geometry"]) if has_mask and row["has_dual_mask"] else None
        for view in range(3):
            x = geometry[view].astype(np.float32)
            if is_cut:
                x[MASK_A] = x[MASK_B] = 0
            target = np.zeros((224, 224), np.int64)
            if pair is not None:
                a, b = pair[view, MASK_A] > 0.5, pair[view, MASK_B] > 0.5
                target[a & ~b], target[b & ~a] = 1, 2
            made.append({"x": x, "label": int(label), "target": target, "has_mask": has_mask})
    if row["has_em"]:
        for name in EM:
            cell = row[name]
            if cell is None or (cell["bytes"] is None and cell["path"] is None):
                continue
            rgb = png(cell)
            if is_cut:
                rgb = np.stack([rgb[0], np.maximum(rgb[1], rgb[2]), np.zeros_like(rgb[0])])
            made.append({"x": rgb, "label": int(label), "target": None, "has_mask": False})
    return made


def npz(blob: bytes) -> np.ndarray:
    with np.load(io.BytesIO(blob), allow_pickle=False) as file:
        assert file.files == ["arr_0"]
        array = file["arr_0"]
    assert (array.dtype, array.shape) == (np.float16, (3, 7, 224, 224))
    return array


def png(cell: dict) -> np.ndarray:
    """float32, (channel, row, column), 0..1."""
    assert cell["path"] is None
    image = Image.open(io.BytesIO(cell["bytes"]))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (224, 224))
    return np.moveaxis(np.asarray(image, np.float32) / 255, -1, 0)
