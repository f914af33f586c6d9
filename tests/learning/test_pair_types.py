"""The kind of a contact, by geometry alone, and what quotas make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cb2_assist.core.errors import DatasetError, UsageError
from cb2_assist.core.geometry import PointVoxel, Resolution
from cb2_assist.learning.pair_types import (
    BROAD,
    CROSSING,
    MOST_WEIGHT,
    PAIR_TYPES,
    PARALLEL,
    SYNAPSE,
    TOUCHING,
    Synapses,
    pair_types,
    quota_weights,
    read_synapses,
)

SHAPE = (90, 90, 90)
MIDDLE = 45


def rod(axis: int, at: tuple[int, int], span: tuple[int, int] = (0, 90), radius: float = 5.5):
    """Voxels of a tube along an axis, ``at`` in the other two."""
    index = np.indices(SHAPE)
    others = [k for k in range(3) if k != axis]
    near = sum((index[k] - v) ** 2 for k, v in zip(others, at, strict=True)) < radius**2
    return near & (index[axis] >= span[0]) & (index[axis] < span[1])


def blob(at: tuple[int, int, int], radius: float):
    index = np.indices(SHAPE)
    return sum((index[k] - at[k]) ** 2 for k in range(3)) < radius**2


def slab(axis: int, span: tuple[int, int]):
    """A cube-like piece with one large face."""
    index = np.indices(SHAPE)
    out = (index[axis] >= span[0]) & (index[axis] < span[1])
    for k in range(3):
        out &= (index[k] >= 25) & (index[k] < 65)
    return out


def kind_of(
    a: np.ndarray,
    b: np.ndarray,
    point_vx: tuple[float, float, float],
    resolution: Resolution = Resolution(10, 10, 10),  # noqa: B008 - frozen
    corner: PointVoxel = PointVoxel(0, 0, 0),  # noqa: B008 - frozen
    synapses: Synapses | None = None,
) -> str:
    seg = np.asfortranarray(np.where(a, 3, np.where(b, 2**60 + 5, 0)).astype(np.uint64))
    pair = (np.array([3], np.uint64), np.array([2**60 + 5], np.uint64))
    point = (np.array([point_vx]) + np.array(tuple(corner))) * np.array(tuple(resolution))
    return str(pair_types(seg, corner, resolution, pair, point, synapses)[0])


ROD_X, BESIDE_IT = rod(0, (45, 45)), rod(0, (56, 45))


def test_processes_side_by_side_are_parallel() -> None:
    assert kind_of(ROD_X, BESIDE_IT, (45, 50.5, 45)) == PARALLEL


def test_processes_at_a_right_angle_cross() -> None:
    assert kind_of(ROD_X, rod(2, (45, 56)), (45, 50.5, 45)) == CROSSING


def test_one_that_goes_on_where_the_other_ends_is_no_parallel() -> None:
    ends, goes_on = rod(0, (45, 45), (0, 45)), rod(0, (45, 45), (45, 90))
    assert kind_of(ends, goes_on, (45, 45, 45)) == TOUCHING


def test_a_large_face_is_broad_and_a_small_one_is_plain() -> None:
    assert kind_of(slab(1, (25, 45)), slab(1, (45, 65)), (45, 45, 45)) == BROAD
    assert kind_of(blob((35, 45, 45), 11), blob((55, 45, 45), 11), (45, 45, 45)) == TOUCHING


def test_lengths_count_in_nm_and_not_in_voxels() -> None:
    """The same bodies in sections four times as thick as pixels, and cut out elsewhere."""
    thick = Resolution(10, 10, 40)
    a, b = (np.asfortranarray(v[:, :, ::4]) for v in (ROD_X, BESIDE_IT))
    at = (45.0, 50.5, 11.4)

    assert kind_of(a, b, at, thick) == PARALLEL
    assert kind_of(a, b, at, thick, PointVoxel(1000, -300, 77)) == PARALLEL


def test_the_order_of_the_two_does_not_matter() -> None:
    for a, b, at in (
        (ROD_X, BESIDE_IT, (45, 50.5, 45)),
        (ROD_X, rod(2, (45, 56)), (45, 50.5, 45)),
        (slab(1, (25, 45)), slab(1, (45, 65)), (45, 45, 45)),
    ):
        assert kind_of(a, b, at) == kind_of(b, a, at)


def test_a_contact_at_an_annotated_synapse_of_the_two_is_synaptic() -> None:
    at = np.array([[450.0, 505.0, 450.0]])
    ids = (np.array([2**60 + 5], np.uint64), np.array([3], np.uint64))
    far, strangers = at + 200, (np.array([3], np.uint64), np.array([4], np.uint64))
    place = (45.0, 50.5, 45.0)

    assert kind_of(ROD_X, BESIDE_IT, place, synapses=Synapses(*ids, at + 80)) == SYNAPSE
    assert kind_of(ROD_X, BESIDE_IT, place, synapses=Synapses(*ids, far)) == PARALLEL
    assert kind_of(ROD_X, BESIDE_IT, place, synapses=Synapses(*strangers, at)) == PARALLEL


def test_synapses_are_read_with_all_64_bits_of_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(
        f"size,pre,post,x_nm,y_nm,z_nm\n9,{2**60 + 1},{2**64 - 1},1.5,2,3\n8,1,2,4,5,6\n\n"
    )
    found = read_synapses(path)

    assert found.pre.tolist() == [2**60 + 1, 1]
    assert found.post.tolist() == [2**64 - 1, 2]
    assert found.point_nm.tolist() == [[1.5, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "text", ["", "pre,post\n1,2", "pre,post,x_nm,y_nm,z_nm\n1,two,3,4,5", "a\x00b"]
)
def test_other_files_are_no_synapses(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(DatasetError, match=r"cannot be read as synapses.*pre,post,x_nm"):
        read_synapses(tmp_path / "s.csv")


def shares(types: np.ndarray, quotas: dict[str, float]) -> dict[str, float]:
    weight = quota_weights(types, quotas)
    assert weight.mean() == pytest.approx(1, abs=1e-5)
    assert (weight > 0).all()
    return {str(n): float(weight[types == n].sum() / weight.sum()) for n in np.unique(types)}


MIXTURE = np.repeat(np.array([TOUCHING, PARALLEL, CROSSING, BROAD]), [80, 5, 10, 5])


def test_without_quotas_every_example_counts_alike() -> None:
    assert set(quota_weights(MIXTURE, {}).tolist()) == {1.0}


def test_a_quota_lifts_its_type_and_the_others_share_the_rest_by_number() -> None:
    got = shares(MIXTURE, {PARALLEL: 0.24})

    assert got[PARALLEL] == pytest.approx(0.24)
    assert got[TOUCHING] / got[CROSSING] == pytest.approx(8)


def test_a_type_that_has_its_share_already_is_left_alone() -> None:
    assert shares(MIXTURE, {CROSSING: 0.05}) == shares(MIXTURE, {})


def test_a_quota_holds_when_another_takes_from_it() -> None:
    got = shares(MIXTURE, {PARALLEL: 0.4, CROSSING: 0.09})

    assert got[PARALLEL] == pytest.approx(0.4)
    assert got[CROSSING] == pytest.approx(0.09)


def test_a_rare_type_is_not_blown_up_beyond_measure() -> None:
    types = np.repeat(np.array([TOUCHING, SYNAPSE]), [999, 1])
    assert shares(types, {SYNAPSE: 0.5})[SYNAPSE] == pytest.approx(MOST_WEIGHT / 1000)


def test_quotas_of_what_cannot_occur_are_refused_and_of_what_does_not_occur_do_nothing() -> None:
    with pytest.raises(UsageError, match=r"no sample type paralel.*touching_pair"):
        quota_weights(MIXTURE, {"paralel": 0.1})
    assert shares(MIXTURE, {SYNAPSE: 0.3}) == shares(MIXTURE, {})


def test_one_type_alone_keeps_weight_one() -> None:
    only = np.repeat(np.array([PARALLEL]), 7)
    assert set(quota_weights(only, dict.fromkeys(PAIR_TYPES, 0.19)).tolist()) == {1.0}
