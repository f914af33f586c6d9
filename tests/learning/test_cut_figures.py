"""Figures that cuts need: how well sides are told apart, and shares of few."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cb2_assist.learning.metrics import exact_interval, mask_iou


def test_a_mask_counts_whichever_side_is_called_which() -> None:
    truth = np.array([1, 1, 1, 2, 2, 2])
    assert mask_iou(truth, truth) == 1
    assert mask_iou(truth, 3 - truth) == 1


def test_a_mask_that_calls_everything_one_side_is_a_quarter_right() -> None:
    truth = np.array([1, 1, 2, 2])
    assert mask_iou(truth, np.ones_like(truth)) == pytest.approx(0.25)


def test_what_was_left_unsaid_is_wrong_and_what_is_unknown_does_not_count() -> None:
    truth = np.array([0, 1, 1, 2, 2])
    assert mask_iou(truth, np.array([2, 1, 0, 2, 2])) == pytest.approx(0.5 * (0.5 + 1))


def test_a_mask_of_one_side_has_no_figure() -> None:
    assert math.isnan(mask_iou(np.array([1, 1, 0]), np.array([1, 2, 2])))


def test_the_exact_interval_of_few() -> None:
    """Clopper and Pearson's for 8 of 10: textbook values."""
    low, high = exact_interval(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4439, 0.9748)
    assert exact_interval(0, 17)[0] == 0
    assert exact_interval(17, 17)[1] == 1
