"""One label as one row of ConnectomeBench2's second release (v2, 716,485 rows).

It differs from the first (`cb2_rows`) in this:

- One ``geometry``: two segments for a join, the one fused segment for a cut.
- Of the two labels, only that of the row's own question is there, as 1.0 or 0.0.
- EM is named ``em_*_before``: the state before the edit.
- The mask of a cut is three images of its own, ``split_mask_{front,side,top}``: 0 where piece A is
  seen, 128 where B is, 255 elsewhere. The first release has the mask in channels 5 and 6 of a
  second geometry, where both pieces may cover a pixel; here the nearer one has it, nearer by the
  depth that the encoding scales for each piece apart (`encode.front_side`).
"""

from __future__ import annotations

import io
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cb2_assist.core.channels import GeometryView
from cb2_assist.core.records import Kind
from cb2_assist.learning.cb2_rows import (
    MASK_GENERATION,
    MERGE_IDENTIFICATION,
    SPLIT_CORRECTION,
    are_both_pieces_known,
    em_cells,
    geometry_npz,
    identity,
    json_text,
    metadata_of,
    sample_kind,
    slots_of,
)
from cb2_assist.views.encode import as_one_segment, encode_cb2, front_side
from cb2_assist.views.hitmap import HitMap
from cb2_assist.views.stack import ViewStack

Row = dict[str, Any]

EM_COLUMNS_V2 = ("em_xy_before", "em_xz_before", "em_yz_before", "em_best_before")
MASK_COLUMNS = tuple(f"split_mask_{view.name.lower()}" for view in GeometryView)
BLOB_COLUMNS_V2 = ("geometry", *EM_COLUMNS_V2, *MASK_COLUMNS)

MASK_VALUES = {"A": 0, "B": 128, "background": 255}
"""As the release's own code writes them."""


def cb2_v2_row(row: Row, stack: ViewStack, taken: Collection[str] = ()) -> Row:
    """The columns of one label; ``split`` is left empty.

    Args:
        row: From `export_rows.label_rows`: an accept or reject.
        stack: What the model saw of it.
        taken: Sample hashes that other rows have.
    """
    kind, what = Kind(row["kind"]), sample_kind(row)
    blobs: Row = {**dict.fromkeys(BLOB_COLUMNS_V2), **em_cells(stack, kind, EM_COLUMNS_V2)}
    is_join = kind is Kind.JOIN
    routes = [SPLIT_CORRECTION if is_join else MERGE_IDENTIFICATION]
    shown = stack.hits if is_join else as_one_segment(stack.hits)
    blobs["geometry"] = geometry_npz(encode_cb2(shown))
    has_masks = what.sample_type == "split_edit" and are_both_pieces_known(encode_cb2(stack.hits))
    if has_masks:
        routes.append(MASK_GENERATION)
        pictures = mask_pngs(stack.hits)
        blobs |= {name: {"bytes": png, "path": None} for name, png in pictures.items()}
    slots = slots_of(blobs)
    label = float(what.same_neuron if is_join else not what.same_neuron)
    return {
        **identity(row, what, taken),
        "task_routing": routes,
        "false_split_correction_label": label if is_join else None,
        "false_merge_identification_label": None if is_join else label,
        "split": "",
        "species": row["species"],
        "has_em": True,
        "has_after_mask": has_masks,
        "present_slots": slots,
        "metadata": json_text(_metadata(row, stack, slots)),
        **blobs,
    }


def mask_pngs(hits: HitMap) -> dict[str, bytes]:
    """The pieces of a cut, seen from each side, as 224 x 224 grey images of `MASK_VALUES`."""
    side = front_side(hits)
    grey = np.full(side.shape, MASK_VALUES["background"], np.uint8)
    grey[side == 0] = MASK_VALUES["A"]
    grey[side == 1] = MASK_VALUES["B"]
    return {name: _png(grey[view]) for view, name in zip(GeometryView, MASK_COLUMNS, strict=True)}


def _png(grey: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def _metadata(row: Row, stack: ViewStack, slots: list[str]) -> Row:
    """The second release's keys: `before_root_ids` of edits, `root_ids` of controls."""
    what = sample_kind(row)
    document = metadata_of(row, stack, what, slots)
    is_control = what.sample_type in ("adjacent_control", "junction_control")
    roots = document["before_root_ids"]
    return {
        **document,
        "edit_point_nm": row["point_nm"],
        "is_merge": row["kind"] == Kind.JOIN.value,
        "before_root_ids": None if is_control else roots,
        "after_root_ids": None if is_control else document["after_root_ids"],
        "root_ids": roots if is_control else None,
        "cb2assist_mask_values": MASK_VALUES if "split_mask_front" in slots else None,
    }
