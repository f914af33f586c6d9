"""Who trains and who validates."""

from __future__ import annotations

import random

from cb2_assist.learning.cb2_split import Sample, split_samples


def sample(n: int, *segments: int) -> Sample:
    return Sample(f"{n:04d}", tuple(f"d/{s}" for s in segments))


def segments(samples: list[Sample], places: list[int]) -> set[str]:
    return {name for i in places for name in samples[i].segments}


def test_one_neuron_is_not_in_both() -> None:
    rng = random.Random(3)
    samples = [
        sample(n, base := 10 * rng.randrange(60), base + rng.randrange(9)) for n in range(300)
    ]
    split = split_samples(samples)
    assert sorted([*split.train, *split.val]) == list(range(300))
    assert not segments(samples, split.train) & segments(samples, split.val)
    assert 0.02 < len(split.val) / 300 < 0.25


def test_chains_of_shared_segments_stay_together() -> None:
    samples = [sample(0, 1, 2), sample(1, 3, 4), sample(2, 2, 3), sample(3, 9)]
    split = split_samples(samples)
    assert (split.train, split.val) == ([0, 1, 2], [3])


def test_the_same_labels_are_dealt_alike_in_any_order() -> None:
    samples = [sample(n, n, n + 500) for n in range(200)]
    shuffled = random.Random(1).sample(samples, len(samples))
    keys = [{samples[i].key for i in split_samples(samples).val}]
    keys.append({shuffled[i].key for i in split_samples(shuffled).val})
    assert keys[0] == keys[1]
    assert keys[0]


def test_labels_that_all_hang_together_are_dealt_by_the_segment_asked_about() -> None:
    samples = [sample(n, n, n + 1) for n in range(30)]
    split = split_samples(samples)
    assert "asked about" in split.rule
    asked = [{samples[i].segments[0] for i in places} for places in (split.train, split.val)]
    assert all(asked)
    assert not asked[0] & asked[1]


def test_labels_about_one_segment_are_dealt_one_by_one() -> None:
    split = split_samples([sample(n, 7) for n in range(20)])
    assert "by label" in split.rule
    assert split.val
    assert len(split.train) > len(split.val)


def test_each_split_has_a_label_however_few_there_are() -> None:
    for n in range(2, 6):
        split = split_samples([sample(i, i) for i in range(n)])
        assert split.train
        assert split.val
    assert split_samples([sample(0, 1)])[:2] == ([0], [0])
    assert split_samples([])[:2] == ([], [])
