"""One label as one row of ConnectomeBench2's first release (v1).

What its public loader (``neurips_training/data.py``) reads, and how our answers map to it:

======= ======= ================== ============ =================================================
kind    verdict sample_type        same neuron  routed to
======= ======= ================== ============ =================================================
join    accept  merge_edit         yes          false_split_correction
join    reject  adjacent_control   no           false_split_correction
cut     accept  split_edit         no           false_merge_identification, split_mask_generation
cut     reject  junction_control   yes          false_merge_identification
======= ======= ================== ============ =================================================

Geometry is exactly that release's encoding, made from the kept first hits. EM is what our model
saw; where that differs from the release, the row's metadata say so.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cb2_assist.core.channels import EmChannel, EmView, GeometryChannel
from cb2_assist.core.records import Kind, Verdict
from cb2_assist.learning.cb2_decisions import MEASURED
from cb2_assist.views.encode import Geometry, as_one_segment, encode_cb2
from cb2_assist.views.stack import ViewStack

Row = dict[str, Any]

EM_COLUMNS = ("em_xy", "em_xz", "em_yz", "em_best")
"""``em_best``, the oblique plane, is there for joins whose views have it (`ViewStack.em_oblique`).
It is null for cuts: the release's plane is chosen from the two sides, which are the label."""

CB2_SPECIES = ("mouse", "fly", "human", "zebrafish")
"""Species of the release; its loader takes any other name as well."""

BLOB_COLUMNS = ("geometry", "geometry_single", *EM_COLUMNS)

SPLIT_CORRECTION, MERGE_IDENTIFICATION, MASK_GENERATION = (
    "false_split_correction",
    "false_merge_identification",
    "split_mask_generation",
)


class SampleKind(NamedTuple):
    """What a kind of question and its answer become."""

    sample_type: str
    same_neuron: bool
    strategy: str | None


_KINDS: dict[tuple[Kind, Verdict], SampleKind] = {
    (Kind.JOIN, Verdict.ACCEPT): SampleKind("merge_edit", True, "merge_correction"),
    (Kind.JOIN, Verdict.REJECT): SampleKind("adjacent_control", False, "adjacent_control"),
    (Kind.CUT, Verdict.ACCEPT): SampleKind("split_edit", False, "split_correction"),
    (Kind.CUT, Verdict.REJECT): SampleKind("junction_control", True, None),
}


def sample_kind(row: Row) -> SampleKind:
    """What a label, an accept or reject, becomes."""
    return _KINDS[Kind(row["kind"]), Verdict(row["verdict"])]


def cb2_row(row: Row, stack: ViewStack, taken: Collection[str] = ()) -> Row:
    """The columns of one label; ``split`` is left empty.

    Args:
        row: From `export_rows.label_rows`: an accept or reject.
        stack: What the model saw of it.
        taken: Sample hashes that other rows have.
    """
    kind, what = Kind(row["kind"]), sample_kind(row)
    blobs: Row = {**dict.fromkeys(BLOB_COLUMNS), **em_cells(stack, kind, EM_COLUMNS)}
    routes = [SPLIT_CORRECTION if kind is Kind.JOIN else MERGE_IDENTIFICATION]
    if kind is Kind.JOIN:
        blobs["geometry"] = geometry_npz(encode_cb2(stack.hits))
    else:
        blobs["geometry_single"] = geometry_npz(encode_cb2(as_one_segment(stack.hits)))
        pair = encode_cb2(stack.hits)
        if what.sample_type == "split_edit" and are_both_pieces_known(pair):
            routes.append(MASK_GENERATION)
            blobs["geometry"] = geometry_npz(pair)
    slots = slots_of(blobs)
    return {
        **identity(row, what, taken),
        "has_single_mask": blobs["geometry_single"] is not None,
        "has_dual_mask": blobs["geometry"] is not None,
        "task_routing": routes,
        "false_split_correction_label": what.same_neuron,
        "false_merge_identification_label": not what.same_neuron,
        "split": "",
        "species": row["species"],
        "has_em": True,
        "present_slots": slots,
        "metadata": json_text(metadata_of(row, stack, what, slots)),
        **blobs,
    }


def identity(row: Row, what: SampleKind, taken: Collection[str]) -> Row:
    """The columns that name a row and say what it is; the same in both releases."""
    archive = f"cb2-assist_{row['dataset']}"
    sample = sample_hash(row, taken)
    return {
        "combined_sample_hash": _md5(f"{archive}|{sample}"),
        "source_archive_sample_hash": sample,
        "source_archive": archive,
        "sample_type": what.sample_type,
        "same_neuron": what.same_neuron,
    }


def em_cells(stack: ViewStack, kind: Kind, columns: Sequence[str]) -> Row:
    """Image cells of the three planes and the oblique one, in the order of `EM_COLUMNS`."""
    *planes, best = columns
    cells: Row = {
        column: {"bytes": em_png(stack, view, kind), "path": None}
        for view, column in zip(EmView, planes, strict=True)
    }
    cells[best] = None
    if kind is Kind.JOIN and stack.em_oblique is not None:
        cells[best] = {"bytes": png_of(stack.em_oblique), "path": None}
    return cells


def slots_of(blobs: Row) -> list[str]:
    """Names of the cells that hold something."""
    return sorted(name for name, blob in blobs.items() if blob is not None)


def json_text(document: Row) -> str:
    """As the releases write it: keys sorted."""
    return json.dumps(document, sort_keys=True, ensure_ascii=False, allow_nan=False)


def sample_hash(row: Row, taken: Collection[str] = ()) -> str:
    """12 hex digits for one label, over species and dataset too.

    The release hashes the operation's number alone, so that two species share some; ours must not,
    because the loader averages whatever shares it.
    """
    parts = (row["species"], row["dataset"], row["version"], row["kind"], row["label_id"])
    text = ":".join(parts)
    # 48 bits: among 100,000 labels two share a hash once in 50,000 exports
    hashes = (_md5(f"{text}:{n}" if n else text)[:12] for n in itertools.count())
    return next(found for found in hashes if found not in taken)


def are_both_pieces_known(pair: Geometry) -> bool:
    """Whether the two sides of a cut can be told apart: each has pixels of its own in some view."""
    a = pair[:, GeometryChannel.MASK_A] > 0
    b = pair[:, GeometryChannel.MASK_B] > 0
    both = (a & ~b).any(axis=(1, 2)) & (b & ~a).any(axis=(1, 2))
    return bool(both.any())


def geometry_npz(geometry: Geometry) -> bytes:
    """float16, (3, 7, 224, 224), as ``arr_0`` of a compressed npz; equal input, equal bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, geometry)
    return buffer.getvalue()


def em_png(stack: ViewStack, view: EmView, kind: Kind) -> bytes:
    """224 x 224 RGB: grey, segment A, segment B; rows and columns as in `channels.EmView`.

    A cut shows one segment: both sides in green and nothing in blue, so that the image does not
    tell where the cut is.
    """
    channels = stack.em[view].copy()
    if kind is Kind.CUT:
        sides = channels[EmChannel.MASK_A], channels[EmChannel.MASK_B]
        channels[EmChannel.MASK_A] = np.maximum(*sides)
        channels[EmChannel.MASK_B] = 0
    return png_of(channels)


def png_of(channels: NDArray[np.uint8]) -> bytes:
    """An image of (`EmChannel`, row, column) as RGB."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.moveaxis(channels, 0, -1))).save(buffer, "PNG")
    return buffer.getvalue()


def differences(stack: ViewStack, kind: Kind) -> list[str]:
    """Where our views are not what the release's own renderer would have made."""
    wide, em_wide = 2 * stack.extent_nm, 2 * stack.em_half_nm
    what = f"every view spans {wide:g} nm"
    if em_wide != wide:
        what = f"geometry spans {wide:g} nm and EM {em_wide:g} nm"
    found = [
        f"{what}, which is not drawn at random; the release: geometry 4 to "
        "24 µm by species, EM 1.05 to 1.5 times 2500 nm (fly and zebrafish 1500 nm)",
        "the centre has no jitter",
    ]
    if stack.geometry_from == "labels":
        found.append(
            "geometry is the first hit of voxels within the view's box, of a mesh within 1.2 times "
            "the box in the release"
        )
    elif stack.profile == "clean":
        found.append(
            "geometry is the first hit of a mesh that ends, closed, at the view's box and has "
            "normals weighted by area; the release's is open and ends at 1.2 times the box"
        )
    if stack.profile == "clean":
        found += [
            "lines of sight go through the pixels' centres; the release's are a quarter pixel off",
            "EM grey is the dataset's z-score, -3..3 to 0..255, grey 128 beyond the volume; the "
            "release stretches each image from its 1st to its 99th percentile",
            "EM masks are the nearest voxel's, 0 or 255; the release resizes them by Lanczos",
        ]
    if kind is Kind.CUT and stack.profile == "clean":
        found.append(
            "geometry_single: normals within two voxels of the proposed seam are those of each side"
        )
    return found


def metadata_of(row: Row, stack: ViewStack, what: SampleKind, slots: list[str]) -> Row:
    """What the first release's metadata hold, and our provenance."""
    kind = Kind(row["kind"])
    is_join = kind is Kind.JOIN
    roots = [row["segment"], row["partner"]] if is_join else [row["segment"]]
    extra: Row = {"adjacent_root": None, "base_root": None}
    if what.sample_type == "adjacent_control":
        extra = {"adjacent_root": row["partner"], "base_root": row["segment"]}
    ours = {name: value for name, value in row.items() if name not in ("segment", "partner")}
    return {
        "operation_id": str(row["event_id"]),
        "strategy": what.strategy,
        "root_id": row.get("root_id", row["segment"]),
        "before_root_ids": roots,
        "after_root_ids": _after(row, what),
        "segment1_id": row["segment"],
        "segment2_id": row["partner"],
        "same_neuron": what.same_neuron,
        "interface_point_nm": row["point_nm"],
        "render_center_nm": row["point_nm"],
        "view_extent_nm": stack.extent_nm,
        "timestamp": datetime.fromisoformat(row["decided_at"]).timestamp(),
        "species": row["species"],
        "image_types": slots,
        "licence": row["licence"],
        "cb2_split": row["cb2_split"],
        "cb2assist": ours,
        "cb2assist_profile": stack.profile,
        "cb2assist_differences": differences(stack, kind),
        MEASURED: base64.b64encode(stack.features.astype("<f4").tobytes()).decode(),
        **extra,
    }


def _after(row: Row, what: SampleKind) -> list[str]:
    """Objects that came of an edit which was made; none of a control, or where none was made."""
    if what.sample_type not in ("merge_edit", "split_edit"):
        return []
    if row.get("after"):  # of the graph's history; its log names but one of the pieces of a cut
        return list(row["after"] if what.sample_type == "merge_edit" else row["sides"])
    made = {o["operation_id"]: o["new_roots"] for o in row.get("operations", ())}
    return list(made.get(row.get("operation_id"), ()))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
