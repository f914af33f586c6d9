"""Nothing that the network sees knows the answer: not by field of view, padding, or who is A."""

from __future__ import annotations

import dataclasses
from itertools import islice

import numpy as np
import pytest
from beads import bead_volume
from fixtures_model import TINY_VIEWS

from cb2_assist.core.channels import EmChannel
from cb2_assist.core.records import Kind
from cb2_assist.learning.examples import join_examples, touching_pairs
from cb2_assist.learning.prepare import grey_statistics, volume_examples
from cb2_assist.views.em import render_em
from cb2_assist.views.features import site_features


def exchanged(label):
    """A is B and B is A."""
    return np.asfortranarray(np.where(label > 0, 3 - label, 0).astype(np.uint8))


def seen(volume, table):
    """All that is rendered and measured follows from these."""
    return [
        (e.window.site, e.window.box, e.window.em.tobytes(), e.window.label.tobytes(),
         e.sample_type)
        for e in join_examples(volume, table, TINY_VIEWS.extent_nm)
    ]  # fmt: skip


def test_the_truth_changes_answers_and_nothing_that_is_seen():
    volume = bead_volume()
    other = dataclasses.replace(volume, truth=np.where(volume.truth > 0, np.uint64(1), 0))
    one, two = touching_pairs(volume), touching_pairs(other)

    assert (one.same != two.same).any()
    assert seen(volume, one) == seen(other, two)


def test_every_example_has_the_same_field_of_view_whatever_its_answer_and_kind():
    made = list(
        volume_examples(
            bead_volume(), TINY_VIEWS, kinds=tuple(Kind), z_range=(0, 120), seed=0, merges=8
        )
    )
    assert {(e.window.site.kind, e.answer) for e, _ in made} == {
        (kind, answer) for kind in Kind for answer in (False, True)
    }
    assert {e.window.half_width_nm for e, _ in made} == {TINY_VIEWS.extent_nm}


@pytest.mark.parametrize("profile", ["clean", "cb2"])
def test_segments_are_not_drawn_into_the_grey_of_em(profile):
    volume = bead_volume()
    example = next(join_examples(volume, touching_pairs(volume), TINY_VIEWS.extent_nm))
    statistics = grey_statistics(volume)
    swapped = np.where(example.window.label > 0, 3 - example.window.label, 0).astype(np.uint8)
    windows = (
        example.window,
        dataclasses.replace(example.window, label=np.asfortranarray(swapped)),
    )
    one, two = (render_em(w, TINY_VIEWS.extent_nm, profile, statistics) for w in windows)

    assert (one[:, EmChannel.EM] == two[:, EmChannel.EM]).all()
    assert (one[:, EmChannel.MASK_A] == two[:, EmChannel.MASK_B]).all()
    assert one[:, EmChannel.MASK_A].any()


def test_features_do_not_know_which_side_is_called_a():
    volume = bead_volume()
    statistics = grey_statistics(volume)
    for example in islice(join_examples(volume, touching_pairs(volume), TINY_VIEWS.extent_nm), 5):
        label = example.window.label.copy(order="F")
        # the beads are of one size; small and big must be told apart by something else than order
        label[tuple(i[:40] for i in np.nonzero(label == 2))] = 0
        windows = [dataclasses.replace(example.window, label=x) for x in (label, exchanged(label))]
        one, two = (site_features(w, statistics) for w in windows)
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)
