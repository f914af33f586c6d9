"""Answers do not depend on batch, threads or path; devices are chosen in words."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fixtures_model import EXTENT_NM, TINY_NETWORK, tiny_model
from neurites import DUMBBELL, PARTNER, neurites
from scenes_of_sites import stacks_of

from cb2_assist.core.channels import VIEW_NAMES
from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import Kind
from cb2_assist.model.checkpoint import load_model
from cb2_assist.model.inputs import network_input
from cb2_assist.model.network import GRAPH_TOKEN, N_TOKENS, TOKEN_NAMES
from cb2_assist.model.predictor import Predictor, choose_device
from cb2_assist.model.transfer import to_device
from cb2_assist.views.features import FEATURE_NAMES
from cb2_assist.views.surroundings import MEASURED_NAMES

N = 20


@pytest.fixture(scope="module")
def questions():
    """Twenty sites round the join and the neck of a small volume."""
    kinds = [Kind.JOIN if i % 3 else Kind.CUT for i in range(N)]
    return stacks_of(neurites(), DUMBBELL, PARTNER, kinds, EXTENT_NM), kinds


@pytest.fixture(scope="module")
def predictor(tiny_model_folder):
    made = Predictor.open(tiny_model_folder, "cpu", threads=2)
    yield made
    made.close()


def numbers(outputs):
    return np.array([[o.logit, o.ood_distance, *(v.score for v in o.views)] for o in outputs])


@pytest.fixture(scope="module")
def one_by_one(predictor, questions):
    return numbers([predictor.predict([s], [k])[0] for s, k in zip(*questions, strict=True)])


def test_each_view_and_what_is_measured_give_their_opinion(predictor, questions):
    stacks, kinds = questions
    output = predictor.predict(stacks[:1], kinds[:1])[0]

    assert [v.name for v in output.views] == [*TOKEN_NAMES]
    assert all(0 < v.score < 1 for v in output.views)


def test_answers_differ_between_sites(one_by_one):
    assert len(np.unique(one_by_one[:, 0])) > N // 2


@pytest.mark.parametrize("batch", [7, 16, 64])
def test_batches_give_the_same_numbers(predictor, questions, one_by_one, batch):
    stacks, kinds = questions
    got = []
    for i in range(0, N, batch):
        got += predictor.predict(stacks[i : i + batch], kinds[i : i + batch])

    np.testing.assert_allclose(numbers(got), one_by_one, rtol=0, atol=1e-6)


def test_embeddings_are_what_distances_are_measured_from(predictor, questions, one_by_one):
    stacks, kinds = questions
    inputs = [network_input(s, predictor.model.views.image_px) for s in stacks]

    logits, embeddings = predictor.embed(inputs, np.ones((N, N_TOKENS), bool), kinds)

    distances = predictor.model.ood.distance(embeddings, kinds)
    np.testing.assert_allclose(
        np.stack([logits, distances], 1), one_by_one[:, :2], rtol=0, atol=1e-5
    )


def test_embedding_from_some_tokens_goes_with_the_answer_from_these(predictor, questions):
    stacks, kinds = questions
    inputs = [network_input(s, predictor.model.views.image_px) for s in stacks]
    present = np.ones((N, N_TOKENS), bool)
    present[:, [0, 4]] = False

    logits, embeddings = predictor.embed(inputs, present, kinds)

    left = [k for k in range(N_TOKENS) if k not in (0, 4)]
    expected = predictor.subset_logits(inputs, np.ones((N, N_TOKENS), bool), kinds, [left])
    np.testing.assert_allclose(logits, expected[:, 0], rtol=0, atol=1e-5)
    assert len(np.unique(embeddings, axis=0)) == N


def test_threads_give_the_same_numbers(tiny_model_folder, questions, one_by_one):
    alone = Predictor.open(tiny_model_folder, "cpu", threads=1)
    try:
        got = numbers(alone.predict(*questions))
    finally:
        alone.close()

    np.testing.assert_allclose(got, one_by_one, rtol=0, atol=1e-6)


def test_one_pass_over_many_decisions_gives_the_same_numbers(predictor, questions, one_by_one):
    got = numbers(predictor.predict_batch(*questions))

    # distances are about 14: six digits of a float32 embedding
    np.testing.assert_allclose(got, one_by_one, rtol=1e-6, atol=1e-6)


class SmallGpu:
    """An encoder on a GPU that holds the images of three decisions."""

    backend = "torch"

    def __init__(self, encoder):
        self.encoder, self.tried = encoder, []

    def __call__(self, geometry, em):
        self.tried.append(len(geometry) // 3)
        if len(geometry) > 3 * 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.encoder(geometry, em)


@pytest.fixture
def on_small_gpu(tiny_model_folder, monkeypatch):
    """A predictor that takes this machine's memory for a GPU's."""
    monkeypatch.setattr(
        "cb2_assist.model.predictor.to_device", lambda a, _: to_device(a, torch.device("cpu"))
    )
    made = Predictor.open(tiny_model_folder, "cpu", threads=1)
    made.device, made.encoder = torch.device("cuda"), SmallGpu(made.encoder)
    yield made
    made.close()


def test_a_gpu_s_batches_are_halved_until_they_fit(on_small_gpu, questions, one_by_one):
    got = numbers(on_small_gpu.predict(*questions))

    np.testing.assert_allclose(got, one_by_one, rtol=1e-6, atol=1e-6)
    assert on_small_gpu.encoder.tried[:4] == [16, 8, 4, 2]
    stacks, kinds = questions
    inputs = [network_input(s, on_small_gpu.model.views.image_px) for s in stacks]
    every = on_small_gpu.subset_logits(
        inputs, np.ones((N, N_TOKENS), bool), kinds, [range(N_TOKENS)]
    )
    np.testing.assert_allclose(every[:, 0], one_by_one[:, 0], atol=1e-5)
    assert set(on_small_gpu.encoder.tried[4:]) == {2}


def test_nothing_asked_nothing_answered(predictor):
    assert predictor.predict([], []) == []


def test_the_input_is_the_stack_made_smaller(questions, tiny_model_folder):
    px = load_model(tiny_model_folder).views.image_px
    stack = questions[0][0]
    x = network_input(stack, px)

    assert x.geometry.shape == (3, 7, px, px)
    assert x.em.shape == (3, 3, px, px)
    # what was not measured of this site is 0, so that all sites go into one batch
    n = len(stack.features) - x.neighbours.size
    both = np.concatenate([x.features[:n], x.neighbours.ravel()])
    assert np.array_equal(both, stack.features)
    assert len(x.features) == len(MEASURED_NAMES)
    assert not x.features[n:].any()
    np.testing.assert_array_equal(
        x.geometry[:, 0] > 0, stack.geometry()[:, 0, :: 224 // px, :: 224 // px] > 0
    )


@pytest.mark.parametrize("wanted", ["gpu", "cuda:x", "cuda:-1", "mps", ""])
def test_unknown_devices_are_refused_in_words(wanted):
    with pytest.raises(ModelError, match="--device takes auto, cpu, cuda"):
        choose_device(wanted)


def test_absent_gpus_are_told_in_words(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ModelError, match=r"0 CUDA devices.*--device cpu"):
        choose_device("cuda:1")
    assert choose_device("auto") == "cpu"


def test_present_gpus_are_used(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_device("auto") == "cuda"
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(ModelError, match="2 CUDA devices"):
        choose_device("cuda:2")


def test_some_tokens_alone_give_what_they_give_among_the_others(predictor, questions, one_by_one):
    stacks, kinds = questions
    inputs = [network_input(s, predictor.model.views.image_px) for s in stacks]
    present = np.ones((N, N_TOKENS), bool)
    present[3, :3] = False
    got = predictor.subset_logits(inputs, present, kinds, [range(N_TOKENS), [4], range(3)])

    whole = [i for i in range(N) if i != 3]
    np.testing.assert_allclose(got[whole, 0], one_by_one[whole, 0], atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-got[:, 1])), one_by_one[:, 2 + 4], atol=1e-5)
    assert np.isnan(got[:, 2]).tolist() == [i == 3 for i in range(N)]
    assert abs(got[3, 0] - one_by_one[3, 0]) > 1e-4, "what is absent is not looked at"


def test_what_an_absent_view_holds_changes_nothing(predictor, questions):
    stacks, kinds = questions
    one = network_input(stacks[0], predictor.model.views.image_px)
    other = replace(one, em=np.full_like(one.em, 200))
    present = np.array([[True] * 3 + [False] * 3 + [True] * 2] * 2)

    first, second = predictor.subset_logits([one, other], present, kinds[:1] * 2, [range(N_TOKENS)])
    assert first == second


def test_neighbours_that_were_not_measured_are_absent(predictor, questions):
    """As in views kept by an earlier version."""
    stacks, kinds = questions
    old = [replace(s, features=s.features[: len(FEATURE_NAMES)]) for s in stacks[:2]]
    inputs = [network_input(s, predictor.model.views.image_px) for s in stacks[:2]]
    got = predictor.predict(old, kinds[:2])
    without = predictor.subset_logits(
        inputs, np.ones((2, N_TOKENS), bool), kinds[:2], [range(GRAPH_TOKEN), range(N_TOKENS)]
    )

    assert [v.name for v in got[0].views] == [*VIEW_NAMES, "features"]
    np.testing.assert_allclose([o.logit for o in got], without[:, 0], atol=1e-5)
    assert np.abs(without[:, 0] - without[:, 1]).min() > 1e-4


def test_a_network_without_a_graph_answers_from_the_rest(tmp_path, questions):
    stacks, kinds = questions
    folder = tiny_model(tmp_path / "m", spec=replace(TINY_NETWORK, contact_measures=0))
    made = Predictor.open(folder, "cpu", threads=1)
    short = [replace(s, features=s.features[: len(FEATURE_NAMES)]) for s in stacks[:2]]
    answers, alike = made.predict(stacks[:2], kinds[:2]), made.predict(short, kinds[:2])
    made.close()

    assert [v.name for v in answers[0].views] == [*VIEW_NAMES, "features"]
    np.testing.assert_array_equal(numbers(answers), numbers(alike))


def test_no_decisions_have_no_subsets(predictor):
    assert predictor.subset_logits([], np.ones((0, N_TOKENS), bool), [], [[0], [1]]).shape == (0, 2)
