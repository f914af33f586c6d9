"""Columns and types of both public releases, as our exports write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cb2_assist.learning.cb2_rows import BLOB_COLUMNS, EM_COLUMNS, cb2_row
from cb2_assist.learning.cb2_rows_v2 import (
    BLOB_COLUMNS_V2,
    EM_COLUMNS_V2,
    MASK_COLUMNS,
    cb2_v2_row,
)
from cb2_assist.views.stack import ViewStack

Row = dict[str, Any]

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TEXTS = pa.list_(pa.string())


@dataclass(frozen=True, slots=True)
class Layout:
    """One release's rows.

    Attributes:
        name: Of the export format.
        schema: Of every shard, columns in order.
        blobs: Columns that the files without images leave out.
        row: Makes a row of a label, what the model saw of it, and the hashes that are taken.
    """

    name: str
    schema: pa.Schema
    blobs: tuple[str, ...]
    row: Callable[[Row, ViewStack, Collection[str]], Row]

    @property
    def light(self) -> pa.Schema:
        """Of the files without images."""
        kept = [f for f in self.schema if f.name not in self.blobs]
        return pa.schema(kept).append(pa.field("shard", pa.string()))


def _schema(columns: list[tuple[str, pa.DataType]], images: tuple[str, ...]) -> pa.Schema:
    features = {name: {"_type": "Image"} for name in images}
    return pa.schema(
        [*columns, *((name, _IMAGE) for name in images)],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


CB2_V1 = Layout(
    "cb2-v1",
    _schema(
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
        ],
        EM_COLUMNS,
    ),
    BLOB_COLUMNS,
    cb2_row,
)
"""The release of 401,170 rows, which the public loader reads."""

CB2_V2 = Layout(
    "cb2-v2",
    _schema(
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
        ],
        (*EM_COLUMNS_V2, *MASK_COLUMNS),
    ),
    BLOB_COLUMNS_V2,
    cb2_v2_row,
)
"""The release of 716,485 rows, which the paper reports on."""
