"""References fitted from arrays, and the distance that becomes the default."""

import dataclasses

import numpy as np
import pytest

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.records import Kind
from cb2_assist.learning.ood_chimera import chimeras
from cb2_assist.learning.ood_fit import SAMPLE, Embedded, choose, fit_reference, separation
from cb2_assist.learning.prepare import Part
from cb2_assist.model.ood.distances import DISTANCES
from cb2_assist.model.ood.reference import OodReference

WIDTH, SEEN = 8, 5


def decisions(n, seed=0, task=0, shift=0.0, spread=1.0):
    """Two answers two units apart on the first axis, 4 decisions a group."""
    rng = np.random.default_rng(seed)
    answer = rng.random(n) < 0.5
    x = rng.normal(3.0 + 4 * task, spread, size=(n, WIDTH))
    x[:, 0] += np.where(answer, 1.0, -1.0)
    x[:, 1] += shift
    # columns of very different units, as features and pictures have
    seen = rng.normal(0, spread, size=(n, SEEN)) * [100, 1, 1, 1, 0.01] + [0, shift, 0, 0, 0]
    return Embedded(
        x.astype(np.float32),
        np.full(n, task),
        answer,
        np.arange(n) // 4,
        seen.astype(np.float32),
    )


def both(*parts):
    return Embedded(
        *(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Embedded))
    )


@pytest.mark.parametrize("method", DISTANCES)
def test_percentiles_are_those_of_held_out_decisions(method):
    reference = fit_reference(decisions(600), decisions(400, seed=1))
    new = decisions(500, seed=2)

    at = [
        reference.percentile(Kind.JOIN, d, method)
        for d in reference.distance(new.vectors, new.kinds, method)
    ]

    assert np.mean(at) == pytest.approx(50, abs=6)
    assert np.mean(np.array(at) > 90) == pytest.approx(0.1, abs=0.05)


def test_each_question_has_a_reference_of_its_own():
    training = both(decisions(300), decisions(300, task=1))
    reference = fit_reference(training, both(decisions(200, 1), decisions(200, 1, task=1)))
    join = decisions(50, 2).vectors

    right = reference.distance(join, [Kind.JOIN] * 50)
    wrong = reference.distance(join, [Kind.CUT] * 50)

    assert wrong.min() > right.max()


def test_a_question_without_decisions_has_no_reference():
    reference = fit_reference(both(decisions(100), decisions(5, task=1)), decisions(80, 1))

    assert list(reference.tasks) == [Kind.JOIN]


def test_fewer_decisions_than_dimensions_still_give_finite_distances():
    few = decisions(24)
    wide = dataclasses.replace(few, embedding=np.tile(few.embedding, (1, 20)))
    reference = fit_reference(wide, wide)

    for method in reference.methods:
        assert np.isfinite(reference.distance(wide.vectors, wide.kinds, method)).all()


def test_neighbours_are_looked_for_in_a_bounded_sample():
    tensors = fit_reference(decisions(SAMPLE + 300), decisions(50, 1)).tasks[Kind.JOIN].tensors

    assert tensors["sample"].shape == (SAMPLE, WIDTH)
    assert tensors["sample"].nbytes == 2 * SAMPLE * WIDTH
    assert np.linalg.norm(tensors["sample"].astype(float), axis=1) == pytest.approx(1, abs=1e-2)


def test_without_held_out_decisions_other_groups_judge():
    reference = fit_reference(decisions(800))
    new = decisions(400, seed=3)

    for method in DISTANCES:
        at = [
            reference.percentile(Kind.JOIN, d, method)
            for d in reference.distance(new.vectors, new.kinds, method)
        ]
        # a decision among its own sample would have made every new one look strange
        assert np.mean(at) == pytest.approx(50, abs=8)


@pytest.mark.parametrize("column", range(SEEN))
def test_a_strange_look_is_seen_in_any_unit_though_the_network_sees_nothing(column):
    reference = fit_reference(decisions(600), decisions(300, 1))
    usual = decisions(200, 2)
    seen = usual.seen.copy()
    seen[:, column] += 6 * seen[:, column].std()
    strange = dataclasses.replace(usual, seen=seen)

    near, far = (
        {m: reference.distance(d.vectors, d.kinds, m) for m in DISTANCES} for d in (usual, strange)
    )

    assert (far["mahalanobis"] == near["mahalanobis"]).all()
    for method in ("appearance", "either"):
        assert separation(near[method], far[method]) > 0.95


def test_the_stranger_of_both_spaces_counts():
    reference = fit_reference(decisions(600), decisions(300, 1))
    usual = decisions(200, 2)
    inside = dataclasses.replace(usual, embedding=usual.embedding + 6)

    assert (
        separation(*(reference.distance(d.vectors, d.kinds, "either") for d in (usual, inside)))
        > 0.95
    )


def test_without_appearance_there_are_the_distances_of_the_embedding():
    blind = dataclasses.replace(decisions(300), seen=None)
    reference = fit_reference(blind, dataclasses.replace(decisions(200, 1), seen=None))

    assert reference.methods == ("mahalanobis", "relative", "neighbour")
    assert not reference.reads_appearance


def test_too_little_to_fit_is_refused_in_words():
    with pytest.raises(DatasetError, match=r"20 training decisions.*larger part"):
        fit_reference(decisions(10), decisions(100, 1))


def test_the_distance_that_sees_the_strange_best_is_chosen():
    reference = fit_reference(decisions(600), decisions(300, 1))
    usual = decisions(200, 2)
    # much longer, in the same direction: nothing that vectors of length 1 could show
    longer = dataclasses.replace(usual, embedding=usual.embedding * 3)

    chosen, found = choose(reference, usual, longer)

    assert chosen.default == "mahalanobis"
    assert found["mahalanobis"] > 0.95 > found["neighbour"]
    assert list(found) == list(DISTANCES)


def test_a_choice_without_held_out_decisions_is_refused_in_words():
    reference = fit_reference(decisions(100), decisions(100, 1))
    nothing = decisions(0)

    with pytest.raises(DatasetError, match="no held-out decision"):
        choose(reference, nothing, nothing)


def test_separation_is_the_share_of_pairs_in_order():
    assert separation(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == pytest.approx(3.5 / 4)
    assert np.isnan(separation(np.zeros(0), np.ones(3)))


def test_what_is_strange_lies_farther():
    reference: OodReference = fit_reference(decisions(600), decisions(300, 1))
    usual, strange = decisions(200, 2), decisions(200, 3, shift=6.0)

    for method in ("mahalanobis", "neighbour"):
        near, far = (reference.distance(d.embedding, d.kinds, method) for d in (usual, strange))
        assert separation(near, far) > 0.95


def test_a_chimera_is_made_of_usual_numbers_that_do_not_belong_together():
    n = 40
    mark = np.arange(n)
    part = Part(
        name="p",
        geometry=np.broadcast_to(mark[:, None, None], (n, 2, 2)).astype(np.float16),
        em=np.broadcast_to(mark[:, None, None], (n, 2, 2)).astype(np.uint8),
        features=np.stack([mark, mark + 100.0], 1).astype(np.float32),
        neighbours=np.broadcast_to(mark[:, None, None, None], (n, 1, 2, 3)).astype(np.float32),
        contacts=np.full((n, 1, 2), -1, np.int8),
        task=np.zeros(n, np.int64),
        answer=mark % 2 == 0,
        sample_type=np.full(n, "touching_pair"),
        group=mark,
        point_nm=np.zeros((n, 3)),
        z=mark,
        segment=mark.astype(np.uint64),
        partner=mark.astype(np.uint64),
    )

    mixed = chimeras(part, seed=0)

    for name in ("geometry", "em", "features", "neighbours"):
        np.testing.assert_array_equal(np.sort(getattr(mixed, name), 0), getattr(part, name))
    apart = [mixed.geometry[:, 0, 0], mixed.em[:, 0, 0], mixed.features[:, 0]]
    apart += [mixed.features[:, 1] - 100, mixed.neighbours[:, 0, 0, 0]]
    for i, a in enumerate(apart):
        for b in apart[:i]:
            assert (a == b).mean() < 0.2
    assert mixed.answer is part.answer
