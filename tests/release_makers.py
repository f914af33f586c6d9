"""Small shards in the exact schemas of ConnectomeBench2's two public releases, made here."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_V1_EM = ("em_xy", "em_xz", "em_yz", "em_best")
_V2_EM = tuple(f"{name}_before" for name in _V1_EM)
_TEXTS = pa.list_(pa.string())

V1_SCHEMA = pa.schema(
    [
        ("combined_sample_hash", pa.string()),
        ("source_archive_sample_hash", pa.string()),
        ("source_archive", pa.string()),
        ("sample_type", pa.string()),
        ("same_neuron", pa.bool_()),
        ("has_single_mask", pa.bool_()),
        ("has_dual_mask", pa.bool_()),
        ("task_routing", _TEXTS),
        ("false_split_correction_label", pa.bool_()),
        ("false_merge_identification_label", pa.bool_()),
        ("split", pa.string()),
        ("species", pa.string()),
        ("has_em", pa.bool_()),
        ("present_slots", _TEXTS),
        ("metadata", pa.string()),
        ("geometry", pa.binary()),
        ("geometry_single", pa.binary()),
        *((name, _IMAGE) for name in _V1_EM),
    ]
)
V2_SCHEMA = pa.schema(
    [
        ("combined_sample_hash", pa.string()),
        ("source_archive_sample_hash", pa.string()),
        ("source_archive", pa.string()),
        ("sample_type", pa.string()),
        ("same_neuron", pa.bool_()),
        ("task_routing", _TEXTS),
        ("false_split_correction_label", pa.float64()),
        ("false_merge_identification_label", pa.float64()),
        ("split", pa.string()),
        ("species", pa.string()),
        ("has_em", pa.bool_()),
        ("has_after_mask", pa.bool_()),
        ("present_slots", _TEXTS),
        ("metadata", pa.string()),
        ("geometry", pa.binary()),
        *((name, _IMAGE) for name in _V2_EM),
        *((f"split_mask_{view}", _IMAGE) for view in ("front", "side", "top")),
    ]
)

IS_CUT = {"split_edit", "junction_control"}
SAME = {"merge_edit", "junction_control"}


def geometry_blob(seed: int = 0, shape: tuple[int, ...] = (3, 7, 224, 224)) -> bytes:
    """A ball-like silhouette with depth, normals and masks, as an npz."""
    array = np.zeros(shape, np.float16)
    at = 60 + seed % 40
    array[:, :1, at : at + 80, at : at + 80] = 1
    array[:, 1:5, at : at + 80, at : at + 80] = np.float16((seed % 7) / 7)
    array[:, 5:, at : at + 40, at : at + 80] = 1
    buffer = io.BytesIO()
    np.savez_compressed(buffer, array)
    return buffer.getvalue()


def png_blob(seed: int = 0, size: int = 224, mode: str = "RGB") -> bytes:
    rgb = np.zeros((size, size, 3), np.uint8)
    rgb[..., 0] = (np.arange(size)[:, None] * (1 + seed % 5)) % 251
    rgb[: size // 2, :, 1] = 255
    rgb[size // 2 :, :, 2] = 255
    buffer = io.BytesIO()
    Image.fromarray(rgb).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def release_row(version: str, number: int, sample_type: str, /, **changes) -> dict:
    """One row as the release has it; `changes` are columns, or ``about`` for its metadata."""
    about = {
        "operation_id": str(number),
        "root_id": str(720575940600000000 + number // 3),
        "interface_point_nm": [1e5 * number, 2e5, 3e5],
        "view_extent_nm": 7500.0,
    } | changes.pop("about", {})
    archive = changes.get("source_archive", f"{'unified' if version == 'v2' else 'edits'}_mouse")
    is_cut, same = sample_type in IS_CUT, sample_type in SAME
    sample = hashlib.md5(f"{number}:{sample_type}:".encode()).hexdigest()[:12]
    cells = {name: {"bytes": png_blob(number), "path": None} for name in _V1_EM[:3]}
    row = {
        "combined_sample_hash": hashlib.md5(f"{archive}|{sample}".encode()).hexdigest(),
        "source_archive_sample_hash": sample,
        "source_archive": archive,
        "sample_type": sample_type,
        "same_neuron": same,
        "task_routing": ["false_merge_identification" if is_cut else "false_split_correction"],
        "split": "test",
        "species": "mouse",
        "has_em": True,
        "present_slots": ["em_xy", "em_xz", "em_yz", "geometry"],
        "metadata": json.dumps(about, sort_keys=True),
        "geometry": geometry_blob(number),
    }
    if version == "v1":
        row |= cells | {
            "has_single_mask": is_cut,
            "has_dual_mask": not is_cut,
            "false_split_correction_label": same,
            "false_merge_identification_label": not same,
            "geometry_single": row["geometry"] if is_cut else None,
            "geometry": None if is_cut else row["geometry"],
            "em_best": None,
        }
    else:
        row |= {f"{name}_before": cell for name, cell in cells.items()}
        row |= {
            "has_after_mask": False,
            "false_split_correction_label": None if is_cut else float(same),
            "false_merge_identification_label": float(not same) if is_cut else None,
            "em_best_before": None,
            **dict.fromkeys(("split_mask_front", "split_mask_side", "split_mask_top")),
        }
    return row | changes


def release_rows(version: str, n: int = 6) -> list[dict]:
    """`n` of each sample type that a test needs: joins and cuts of both answers."""
    types = ("merge_edit", "adjacent_control", "split_edit", "junction_control")
    return [
        release_row(version, 10 * k + i, name) for k, name in enumerate(types) for i in range(n)
    ]


def write_shards(folder: Path, version: str, rows: list[dict], split: str = "test") -> Path:
    """A release in `folder` with `rows` in one split, in shards of 10; returns the folder."""
    schema = V1_SCHEMA if version == "v1" else V2_SCHEMA
    (folder / split).mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(rows), 10)):
        pq.write_table(
            pa.Table.from_pylist(rows[start : start + 10], schema=schema),
            folder / split / f"{split}-{number:05d}.parquet",
            row_group_size=10,
        )
    return folder
