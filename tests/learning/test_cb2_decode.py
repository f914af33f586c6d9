"""Stored views to a network's input: exact where they are sound, a reason where they are not."""

from __future__ import annotations

import io
import zipfile
from collections import Counter

import numpy as np
import pytest
from release_makers import geometry_blob, png_blob, release_row, write_shards

from cb2_assist.core.records import Kind
from cb2_assist.learning.cb2_decisions import StoredDecision, read_decisions
from cb2_assist.learning.cb2_decode import (
    DamagedViewError,
    decode,
    fitting,
    read_em,
    read_geometry,
)
from cb2_assist.learning.cb2_schema import V1
from cb2_assist.model.card import ViewSpec

VIEWS = ViewSpec(profile="cb2", extent_nm=7500.0, image_px=32)


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def stored(tmp_path, sample_type="merge_edit", **changes) -> StoredDecision:
    row = release_row("v1", 1, sample_type, **changes)
    folder = write_shards(tmp_path, "v1", [row])
    return next(read_decisions([folder / "test" / "test-00000.parquet"], V1, Counter()))


def test_geometry_and_em_come_back_as_they_were_written() -> None:
    with np.load(io.BytesIO(geometry_blob(3))) as file:
        array = file["arr_0"]
    np.testing.assert_array_equal(read_geometry(geometry_blob(3)), array)
    em = read_em([png_blob(1), None, png_blob(2)], Kind.JOIN)
    assert em.shape == (3, 3, 224, 224)
    assert (em[0, 1, :112] == 255).all()
    assert (em[0, 2, 112:] == 255).all()
    assert not em[1].any()


def test_both_masks_of_a_cut_become_one_so_that_em_does_not_tell_the_seam() -> None:
    em = read_em([png_blob(1)] * 3, Kind.CUT)
    assert (em[:, 1] == 255).all()
    assert not em[:, 2].any()


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"", "not a readable npz"),
        (b"PK\x03\x04 cut off", "not a readable npz"),
        (geometry_blob()[:-300], "not a readable npz"),
        (npz(other=np.zeros(3)), "not a readable npz"),
        (npz(arr_0=np.array([{"a": 1}], object)), "not a readable npz"),
        (geometry_blob(shape=(3, 8, 224, 224)), "another shape"),
        (geometry_blob(shape=(1, 7, 224, 224)), "another shape"),
        (npz(arr_0=np.zeros((9, 7, 448, 448))), "another shape"),
        (npz(arr_0=np.zeros((3, 7, 224, 224), np.uint8)), "floating"),
        (npz(arr_0=np.full((3, 7, 224, 224), np.nan, np.float16)), "NaN"),
        (npz(arr_0=np.full((3, 7, 224, 224), 255, np.float16)), "beyond -1..1"),
    ],
)
def test_geometry_that_is_none_has_a_reason(blob, reason) -> None:
    with pytest.raises(DamagedViewError, match=reason):
        read_geometry(blob)


def test_flipped_bytes_in_a_geometry_are_found_by_its_checksum() -> None:
    blob = bytearray(geometry_blob(5))
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        middle = archive.getinfo("arr_0.npy").compress_size // 2
    blob[middle] ^= 0x55
    with pytest.raises(DamagedViewError):
        read_geometry(bytes(blob))


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"", "not a readable PNG"),
        (b"\x89PNG\r\n\x1a\n", "not a readable PNG"),
        (png_blob()[:-40], "not a readable PNG"),
        (png_blob(size=112), "not 224 x 224 RGB"),
        (png_blob(mode="L"), "not 224 x 224 RGB"),
        (png_blob(mode="RGBA"), "not 224 x 224 RGB"),
    ],
)
def test_an_em_view_that_is_none_has_a_reason(blob, reason) -> None:
    with pytest.raises(DamagedViewError, match=reason):
        read_em([blob, None, None], Kind.JOIN)


def test_what_is_absent_is_absent_to_the_network(tmp_path) -> None:
    row = stored(tmp_path, em_xz=None)
    seen = decode(row, VIEWS, use_geometry=True, use_em=True)
    assert seen is not None
    assert seen.present.tolist() == [True] * 3 + [True, False, True, False, False]
    assert seen.input.geometry.shape == (3, 7, 32, 32)
    assert seen.input.em.shape == (3, 3, 32, 32)
    only_em = decode(row, VIEWS, use_geometry=False, use_em=True)
    assert only_em is not None
    assert only_em.present.tolist() == [False] * 3 + [True, False, True, False, False]
    assert decode(row, VIEWS, use_geometry=False, use_em=False) is None


def test_a_decision_without_views_has_nothing_to_show(tmp_path) -> None:
    empty = dict.fromkeys(("geometry", "em_xy", "em_xz", "em_yz"))
    row = stored(tmp_path, has_dual_mask=False, **empty)
    assert decode(row, VIEWS, use_geometry=True, use_em=True) is None


@pytest.mark.parametrize(
    ("sample_type", "profile", "wants", "fits"),
    [
        ("merge_edit", None, "cb2", (True, True)),
        ("split_edit", None, "cb2", (True, True)),
        ("merge_edit", None, "clean", (False, False)),
        ("merge_edit", "clean", "clean", (False, True)),
        ("merge_edit", "clean", "cb2", (True, False)),
        ("split_edit", "clean", "clean", (False, False)),
    ],
)
def test_which_views_are_encoded_as_a_model_wants_them(
    tmp_path, sample_type, profile, wants, fits
) -> None:
    about = {} if profile is None else {"cb2assist_profile": profile}
    assert fitting(stored(tmp_path, sample_type, about=about), wants) == fits
