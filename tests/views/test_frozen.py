"""What must never change by a bit: the shipped model's input, and views kept by older versions.

The digests and the file were written by version 0.1.0, before views could come from meshes.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scenes import FIXED_EXTENT_NM, FIXED_FEATURES, STATISTICS, fixed_window

from cb2_assist.model.inputs import network_input
from cb2_assist.views.stack import content_sha256, from_bytes, render, to_bytes

KEPT_V1 = Path(__file__).parent / "data" / "kept_views_v1.bin"
ADDRESS = "2f6aaeedf5c5ea26c63bd55cb73b953c27aa1b34eb4b9a249ecca26db57e84ed"


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:32]


@pytest.fixture(scope="module")
def stack():
    return render(
        fixed_window(),
        extent_nm=FIXED_EXTENT_NM,
        profile="clean",
        statistics=STATISTICS,
        features=FIXED_FEATURES,
    )


def test_the_clean_views_of_a_fixed_scene_are_the_ones_that_the_shipped_model_was_trained_on(stack):
    assert {
        "depth": digest(stack.hits.depth_nm),
        "normal": digest(stack.hits.normal_i8),
        "em": digest(stack.em),
        "geometry": digest(stack.geometry()),
    } == {
        "depth": "84b5ae3b314962aec62f6d9ca0ab6375",
        "normal": "10d708f709ba547a74ea15629c9525d1",
        "em": "3d4dc531ae1744c92f7a4016f5e6e5c8",
        "geometry": "5f5e890afabeaa334fcb5910a00792fc",
    }


def test_the_network_reads_the_same_bytes_of_a_fixed_scene(stack):
    read = network_input(stack, 112)
    assert digest(read.geometry) == "1c9c02eb20e0af74e8ea892a1fb687fe"
    assert digest(read.em) == "516a96f07b88ffa0fa7859340b871a4b"
    np.testing.assert_array_equal(read.features, FIXED_FEATURES)


def test_views_kept_by_the_first_version_still_read_and_keep_their_address(stack):
    kept = from_bytes(KEPT_V1.read_bytes())
    assert content_sha256(kept) == ADDRESS
    np.testing.assert_array_equal(kept.hits.depth_nm, stack.hits.depth_nm)
    np.testing.assert_array_equal(kept.hits.normal_i8, stack.hits.normal_i8)
    np.testing.assert_array_equal(kept.em, stack.em)
    np.testing.assert_array_equal(kept.features, FIXED_FEATURES)
    assert (kept.extent_nm, kept.profile) == (FIXED_EXTENT_NM, "clean")


def test_views_without_an_oblique_plane_are_still_written_byte_for_byte_like_the_first_version(
    stack,
):
    assert content_sha256(stack) == ADDRESS
    assert from_bytes(to_bytes(stack)).extent_nm == FIXED_EXTENT_NM
    header_of = lambda data: data[: 12 + int.from_bytes(data[8:12], "little")]  # noqa: E731
    # zlib may pack differently elsewhere, so lengths are compared through the decoded arrays
    assert b'"version":1' in header_of(KEPT_V1.read_bytes())
    assert b'"version":1' in header_of(to_bytes(stack))
