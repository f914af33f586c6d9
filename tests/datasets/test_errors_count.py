from pathlib import Path

import numpy as np
import pytest

from cb2_assist.datasets.errors_count import count_errors


def blocks(*sizes_and_ids):
    return np.concatenate([np.full(n, i, np.uint64) for n, i in sizes_and_ids])


def test_a_perfect_segmentation_has_no_errors():
    truth = blocks((3000, 2**60 + 1), (2000, 2**60 + 2))

    got = count_errors(truth + np.uint64(5), truth)

    assert (got.false_splits, got.bodies_split, got.false_merges) == (0, 0, 0)
    assert got.voi_split == got.voi_merge == 0.0


def test_only_pieces_of_a_thousand_voxels_are_splits():
    truth = blocks((4999, 7))
    seg = blocks((2000, 1), (1000, 2), (1000, 3), (999, 4))

    got = count_errors(seg, truth)

    assert (got.false_splits, got.bodies_split) == (2, 1)


def test_a_merge_holds_three_tenths_of_two_bodies_and_a_thousand_voxels_of_each():
    truth = blocks((4000, 1), (10000, 2), (999, 3))
    seg = blocks((1200, 8), (2800, 9), (3000, 8), (7000, 10), (999, 10))

    assert count_errors(seg, truth).false_merges == 1


@pytest.mark.parametrize(
    ("held", "body", "merges"), [(1199, 4000, 0), (1200, 4000, 1), (999, 1000, 0)]
)
def test_the_share_and_the_size_of_a_merge_are_exact(held, body, merges):
    truth = blocks((body, 1), (5000, 2))
    seg = blocks((held, 8), (body - held, 9), (5000, 8))

    assert count_errors(seg, truth).false_merges == merges


def test_background_of_either_volume_is_left_out():
    truth = blocks((2000, 0), (2000, 1))
    seg = blocks((1000, 5), (1000, 6), (500, 0), (1500, 6))

    got = count_errors(seg, truth)

    assert (got.false_splits, got.false_merges, got.voi_split) == (0, 0, 0.0)


def test_volumes_without_a_common_voxel_count_nothing():
    got = count_errors(np.zeros(10, np.int32), np.ones(10, np.int32))

    assert (got.false_splits, got.false_merges, got.voi_split, got.voi_merge) == (0, 0, 0.0, 0.0)


def test_information_is_in_bits():
    truth = blocks((4000, 1))
    seg = blocks((2000, 1), (2000, 2))

    assert count_errors(seg, truth).voi_split == pytest.approx(1.0)
    assert count_errors(truth, seg).voi_merge == pytest.approx(1.0)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("segmentation", "merges", "split_bits", "merge_bits"),
    [("ffn", 13, 0.613, 0.263), ("watershed", 4, 2.376, 0.330)],
)
def test_fib25_has_the_counts_in_its_note(
    shared_data: Path, segmentation, merges, split_bits, merge_bits
):
    with np.load(shared_data / "fib25_medulla_ts2" / "labels_zyx.npz", allow_pickle=False) as f:
        truth = f["gt_body"]
        if segmentation == "ffn":
            seg = f["ffn_seg"]
        else:
            table = np.zeros(int(f["ws_supervoxel"].max()) + 1, np.int64)
            table[f["ws_sv_to_segment"][:, 0]] = f["ws_sv_to_segment"][:, 1]
            seg = table[f["ws_supervoxel"]]

    got = count_errors(seg, truth)

    assert got.false_merges == merges
    assert (got.voi_split, got.voi_merge) == pytest.approx((split_bits, merge_bits), abs=0.001)
