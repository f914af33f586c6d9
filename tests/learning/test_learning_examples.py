"""Decisions with a known answer: pairs, cuts, and the plane that is never crossed."""

import dataclasses

import numpy as np
import pytest
from beads import PLANE, bead_volume
from fixtures_model import TINY_VIEWS

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.records import Kind
from cb2_assist.learning.examples import cut_examples, join_examples, touching_pairs
from cb2_assist.learning.prepare import volume_examples
from cb2_assist.learning.run import _parts
from cb2_assist.learning.training_plan import Plan


@pytest.fixture(scope="module")
def volume():
    return bead_volume()


@pytest.fixture(scope="module")
def table(volume):
    return touching_pairs(volume)


def test_neighbours_on_the_lattice_touch(table):
    along_x, along_y, along_z = 2 * 2 * 6, 3 * 1 * 6, 3 * 2 * 5

    assert len(table) == along_x + along_y + along_z
    assert table.same.sum() == 2 * 6
    assert table.pure().all()
    assert (table.a < table.b).all()


def test_contact_points_lie_on_the_bridges(table):
    middle = (table.point_nm / 10 % 20 - 10) / 10
    on_border = np.isclose(np.abs(middle), 1.0, atol=0.06) | np.isclose(middle, -1.0, atol=0.06)

    assert (on_border.sum(1) == 1).all()


def test_joins_are_answered_by_the_truth(volume, table):
    for example, row in zip(join_examples(volume, table, 200.0), range(len(table)), strict=True):
        assert example.answer == table.same[row]
        assert example.window.site.kind is Kind.JOIN
        assert {example.window.site.segment, example.window.site.partner} == {
            int(table.a[row]),
            int(table.b[row]),
        }


def test_synthetic_cuts_have_both_answers(volume):
    whole = dataclasses.replace(volume, seg=volume.truth)
    made = list(
        cut_examples(whole, touching_pairs(whole), 320.0, rng=np.random.default_rng(0), merges=10)
    )

    assert {e.answer for e in made} == {True, False}
    assert all(e.window.site.kind is Kind.CUT for e in made)
    assert all((e.window.label == side).any() for e in made for side in (1, 2))


def test_the_same_seed_gives_the_same_examples(volume):
    def points():
        part = volume.below_z(PLANE)
        wanted = volume_examples(
            part, TINY_VIEWS, kinds=(Kind.CUT,), z_range=(0, PLANE), seed=3, merges=4
        )
        return [(e.window.site.point, e.answer) for e, _ in wanted]

    assert points() == points()


def test_points_stay_in_the_range_asked_for(volume):
    wanted = volume_examples(
        volume, TINY_VIEWS, kinds=tuple(Kind), z_range=(40, 80), seed=0, merges=4
    )
    zs = [z for _, z in wanted]

    assert zs
    assert all(40 <= z < 80 for z in zs)


def prepared(volume, folder):
    plan = Plan((), folder, "t", PLANE, None, merges=4, views=TINY_VIEWS)
    _parts(plan, [volume], "train", (0, PLANE), PLANE, lambda _: None)
    files = sorted(p for p in (folder / "parts").rglob("*") if p.is_file())
    content = {}
    for path in files:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as rows:
                content |= {f"{path.parent.name}/{k}": rows[k].tobytes() for k in rows.files}
        else:
            content[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    return content


def test_parts_prepared_for_another_plane_are_refused_in_words(volume, tmp_path):
    prepared(volume, tmp_path)
    plan = Plan((), tmp_path, "t", 40, None, merges=4, views=TINY_VIEWS)
    with pytest.raises(DatasetError, match=r"'plane': 60.*'plane': 40.*another --out"):
        _parts(plan, [volume], "train", (0, 40), 40, lambda _: None)


def test_nothing_beyond_the_plane_is_read(volume, tmp_path):
    poisoned = dataclasses.replace(
        volume, em=volume.em.copy("F"), seg=volume.seg.copy("F"), truth=volume.truth.copy("F")
    )
    poisoned.em[:, :, PLANE:] = 255
    poisoned.seg[:, :, PLANE:] = 99
    poisoned.truth[:, :, PLANE:] = 77

    clean, other = prepared(volume, tmp_path / "a"), prepared(poisoned, tmp_path / "b")

    assert len(clean) > 10
    assert clean.keys() == other.keys()
    assert [k for k in clean if clean[k] != other[k]] == []


def test_volumes_are_learnt_from_as_thick_sections_in_their_own_planes(volume, tmp_path):
    plan = Plan((), tmp_path, "t", PLANE, None, merges=4, views=TINY_VIEWS)
    thin = _parts(plan, [volume], "train", (0, PLANE), PLANE, lambda _: None)[0]
    thick = dataclasses.replace(plan, out=tmp_path / "thick", voxel_nm=(8.0, 8.0, 40.0))

    part = _parts(thick, [volume], "train", (0, PLANE), PLANE, lambda _: None)[0]

    assert len(part) > 5
    assert np.abs(part.z * 10 - part.point_nm[:, 2]).max() < 100  # planes of 10 nm, not of 40
    assert part.z.max() < PLANE
    assert set(zip(part.segment, part.partner, strict=True)) <= set(
        zip(thin.segment, thin.partner, strict=True)
    )
    assert not np.allclose(part.features.mean(0), thin.features.mean(0))
