"""References: one for each question, checked on the way in."""

import numpy as np
import pytest

from cb2_assist.core.records import Kind
from cb2_assist.model.ood.reference import (
    OodReference,
    TaskReference,
    from_tensors,
    of_one_gaussian,
)

UNIT = np.eye(3, dtype=np.float32)
STEPS = np.arange(101, dtype=np.float32)


def task(at=0.0, percentiles=STEPS):
    return TaskReference(
        {"means": np.full((2, 3), at, np.float32), "whiten": UNIT}, {"mahalanobis": percentiles}
    )


def test_each_question_is_measured_by_its_own_training():
    reference = OodReference("mahalanobis", {Kind.JOIN: task(0.0), Kind.CUT: task(5.0)})
    here = np.zeros((3, 3), np.float32)

    found = reference.distance(here, [Kind.CUT, Kind.JOIN, Kind.CUT])

    assert found == pytest.approx([np.sqrt(75), 0.0, np.sqrt(75)])


def test_a_question_that_was_never_trained_is_as_far_as_can_be():
    reference = OodReference("mahalanobis", {Kind.JOIN: task()})

    found = reference.distance(np.zeros((2, 3), np.float32), [Kind.JOIN, Kind.CUT])

    assert found[0] == 0.0
    assert np.isnan(found[1])
    assert reference.percentile(Kind.CUT, 0.0) == 100.0


@pytest.mark.parametrize("distance", [float("nan"), float("inf")])
def test_what_is_no_distance_is_as_far_as_can_be(distance):
    assert OodReference("mahalanobis", {Kind.JOIN: task()}).percentile(Kind.JOIN, distance) == 100.0


def test_a_reference_comes_back_from_its_tensors():
    reference = OodReference("mahalanobis", {Kind.CUT: task(2.0, STEPS * 2)})

    again = from_tensors("mahalanobis", reference.to_tensors() | {"network.x": UNIT})

    assert list(again.tasks) == [Kind.CUT]
    assert again.percentile(Kind.CUT, 50.0) == reference.percentile(Kind.CUT, 50.0) == 25.0
    for name, tensor in reference.to_tensors().items():
        np.testing.assert_array_equal(again.to_tensors()[name], tensor)


def test_one_gaussian_serves_both_questions():
    reference = of_one_gaussian(np.full(3, 2.0, np.float32), UNIT / 2, STEPS)
    row = np.array([[6.0, 2.0, 2.0]], np.float32)

    for kind in Kind:
        assert reference.distance(row, [kind]) == pytest.approx([2.0])
        assert reference.percentile(kind, 30.0) == pytest.approx(30.0)


GOOD = task().tensors
DAMAGE = {
    "a distance without what it needs": ({"means": GOOD["means"]}, {"mahalanobis": STEPS}),
    "an unknown distance": (GOOD, {"euclid": STEPS}),
    "percentiles cut short": (GOOD, {"mahalanobis": STEPS[:50]}),
    "a tensor of another width": (GOOD | {"whiten": np.eye(4)}, {"mahalanobis": STEPS}),
    "a tensor without rows": (GOOD | {"means": np.zeros((0, 3))}, {"mahalanobis": STEPS}),
    "a tensor that is a number": (GOOD | {"whiten": np.float32(1)}, {"mahalanobis": STEPS}),
    "a tensor of another name": (GOOD | {"spare": UNIT}, {"mahalanobis": STEPS}),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_reference_that_cannot_be_used_is_refused(what):
    with pytest.raises(ValueError, match=r"shape|lacks"):
        TaskReference(*DAMAGE[what])


@pytest.mark.parametrize("tasks", [{}, {Kind.JOIN: task()}])
def test_a_default_that_no_question_has_is_refused(tasks):
    with pytest.raises(ValueError, match="no reference for the distance 'neighbour'"):
        OodReference("neighbour", tasks)
