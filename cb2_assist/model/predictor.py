"""Runs a model on view stacks: one number per decision, the same whatever it is batched with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import Kind, ModelOutput, ViewScore
from cb2_assist.model.cb2_network import Cb2ViT
from cb2_assist.model.checkpoint import Model, load_model
from cb2_assist.model.inputs import NetworkInput, network_input, scale_em
from cb2_assist.model.network import (
    GRAPH_TOKEN,
    N_GEOMETRY,
    N_TOKENS,
    N_VIEWS,
    TASKS,
    TOKEN_NAMES,
    MultiTaskViT,
)
from cb2_assist.model.view_average import answer_by_views, answer_subsets
from cb2_assist.views.stack import ViewStack
from cb2_assist.views.surroundings import SHAPE

_GPU_BATCH = 16


def choose_device(wanted: str) -> str:
    """Resolve ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: CUDA was asked for and is not there.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return wanted
    kind, _, number = wanted.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise ModelError(f"--device takes auto, cpu, cuda or cuda:N, got {wanted!r}.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise ModelError(
            f"--device {wanted}: torch sees {count} CUDA devices here. Use --device cpu, or "
            "install a torch build for your GPU."
        )
    return wanted


class Predictor:
    """A loaded model on a device. `predict` may be called from several threads.

    On a CPU every decision is computed on its own, in one thread, and decisions share the cores:
    that makes its number independent of batch and thread count, bit for bit, and on few cores it
    is as fast as batching. On a GPU decisions are batched.
    """

    def __init__(self, model: Model, device: str = "cpu", threads: int | None = None) -> None:
        self.model = model
        self.device = torch.device(device)
        model.network.to(self.device).eval()
        self._workers = max(1, threads or os.cpu_count() or 1)
        # torch's kernels keep their thread count per calling thread
        self._pool = ThreadPoolExecutor(
            self._workers,
            thread_name_prefix="predict",
            initializer=torch.set_num_threads,
            initargs=(1,),
        )

    @classmethod
    def open(cls, folder: Path, device: str = "auto", threads: int | None = None) -> Predictor:
        """Load a model folder.

        Raises:
            ModelError: The folder or the device cannot be used.
        """
        return cls(load_model(folder), choose_device(device), threads)

    def predict(self, stacks: Sequence[ViewStack], kinds: Sequence[Kind]) -> list[ModelOutput]:
        """Answer one question per stack, in order."""
        jobs = list(zip(stacks, kinds, strict=True))
        if self.device.type == "cpu":
            return list(self._pool.map(lambda j: self.predict_batch([j[0]], [j[1]])[0], jobs))
        out: list[ModelOutput] = []
        for i in range(0, len(jobs), _GPU_BATCH):
            part = jobs[i : i + _GPU_BATCH]
            out += self.predict_batch([s for s, _ in part], [k for _, k in part])
        return out

    def predict_batch(
        self, stacks: Sequence[ViewStack], kinds: Sequence[Kind]
    ) -> list[ModelOutput]:
        """Answer several questions in one pass of the network."""
        network = self.model.network
        if isinstance(network, Cb2ViT):
            return answer_by_views(network, stacks, kinds, self.device)
        return self._answer_jointly(network, stacks, kinds)

    def _answer_jointly(
        self, network: MultiTaskViT, stacks: Sequence[ViewStack], kinds: Sequence[Kind]
    ) -> list[ModelOutput]:
        px = self.model.views.image_px
        inputs = [network_input(s, px) for s in stacks]
        task = torch.tensor([TASKS.index(k.value) for k in kinds], device=self.device)
        # TF32 would round a GPU's answers to three digits
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            tokens = self._tokens(network, inputs)
            B = len(stacks)
            rows = 1 + N_TOKENS
            absent = torch.from_numpy(_each_alone(_there(network, inputs))).to(self.device)
            logit, embedding = network.decide(
                tokens.repeat_interleave(rows, 0), absent, task.repeat_interleave(rows)
            )
            logits = logit.view(B, rows).double().cpu().numpy()
            embeddings = embedding.view(B, rows, -1)[:, 0].float().cpu().numpy()
        reference = self.model.ood
        nowhere = np.full(len(stacks), np.nan)
        there = _there(network, inputs)
        distance = nowhere if reference is None else reference.distance(embeddings, kinds)
        return [
            ModelOutput(
                float(logits[b, 0]),
                tuple(
                    ViewScore(n, float(1 / (1 + np.exp(-logits[b, 1 + i]))))
                    for i, n in enumerate(TOKEN_NAMES)
                    if there[b, i]
                ),
                float(distance[b]),
            )
            for b in range(B)
        ]

    @property
    def averages_views(self) -> bool:
        """Whether a decision is the mean of what its views say alone (`model.view_average`)."""
        return isinstance(self.model.network, Cb2ViT)

    def embed(
        self,
        inputs: Sequence[NetworkInput],
        present: NDArray[np.bool_],
        kinds: Sequence[Kind],
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Answer each question from the tokens that it has, and say where it lies.

        Args:
            inputs: n decisions; what is absent may hold anything finite.
            present: Which tokens there are, (n, `N_TOKENS`), at least one of each.
            kinds: Which question each is.

        Returns:
            Log-odds (n,) and decision embeddings (n, D).

        Raises:
            ModelError: The network has no joint decision, but one for each view.
        """
        network = self.model.network
        if isinstance(network, Cb2ViT):
            raise ModelError(
                f"{self.model.name} answers view by view and has no embedding of a decision. Give "
                "a model that train has made."
            )
        size = 1 if self.device.type == "cpu" else _GPU_BATCH
        jobs = list(zip(inputs, present, kinds, strict=True))
        parts = [jobs[i : i + size] for i in range(0, len(jobs), size)]
        run = self._pool.map if size == 1 else map
        found = list(run(lambda part: self._embed_batch(network, part), parts))
        return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])

    def _embed_batch(
        self, network: MultiTaskViT, jobs: Sequence[tuple[NetworkInput, NDArray[np.bool_], Kind]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        absent = torch.from_numpy(np.stack([~p for _, p, _ in jobs])).to(self.device)
        task = torch.tensor([TASKS.index(k.value) for _, _, k in jobs], device=self.device)
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            tokens = self._tokens(network, [x for x, _, _ in jobs])
            logit, embedding = network.decide(tokens, absent, task)
        return logit.double().cpu().numpy(), embedding.float().cpu().numpy()

    def subset_logits(
        self,
        inputs: Sequence[NetworkInput],
        present: NDArray[np.bool_],
        kinds: Sequence[Kind],
        subsets: Sequence[Sequence[int]],
    ) -> NDArray[np.float64]:
        """Answer each question from some of its tokens only, as training does when it drops some.

        Args:
            inputs: n decisions; what is absent may hold anything finite.
            present: Which tokens there are, (n, `N_TOKENS`), in the order of `TOKEN_NAMES`.
            kinds: Which question each is.
            subsets: Positions of the tokens that each answer may use.

        Returns:
            Log-odds, (n, subsets); NaN where none of a subset's tokens is there.
        """
        network = self.model.network
        if isinstance(network, Cb2ViT):
            return answer_subsets(network, inputs, present, kinds, subsets, self.device)
        allowed = np.zeros((len(subsets), N_TOKENS), bool)
        for k, subset in enumerate(subsets):
            allowed[k, list(subset)] = True
        jobs = list(zip(inputs, present, kinds, strict=True))
        size = 1 if self.device.type == "cpu" else _GPU_BATCH
        parts = [jobs[i : i + size] for i in range(0, len(jobs), size)]
        run = self._pool.map if size == 1 else map
        found = list(run(lambda part: self._subset_batch(network, part, allowed), parts))
        return np.concatenate(found) if found else np.zeros((0, len(subsets)))

    def _subset_batch(
        self,
        network: MultiTaskViT,
        jobs: Sequence[tuple[NetworkInput, NDArray[np.bool_], Kind]],
        allowed: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        there = np.stack([present for _, present, _ in jobs])
        there &= _there(network, [x for x, _, _ in jobs])
        used = there[:, None] & allowed
        empty = np.logical_not(used.any(axis=2))
        # attention needs something to look at; the answer is thrown away
        absent = torch.from_numpy(~(used | np.expand_dims(empty, 2))).to(self.device)
        task = torch.tensor([TASKS.index(k.value) for _, _, k in jobs], device=self.device)
        n, rows, _ = used.shape
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            tokens = self._tokens(network, [x for x, _, _ in jobs]).repeat_interleave(rows, 0)
            logit, _ = network.decide(tokens, absent.flatten(0, 1), task.repeat_interleave(rows))
        out: NDArray[np.float64] = logit.view(n, rows).double().cpu().numpy()
        out[empty] = np.nan
        return out

    def _tokens(self, net: MultiTaskViT, inputs: Sequence[NetworkInput]) -> Tensor:
        def to(arrays: list[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(arrays)).to(self.device)

        B = len(inputs)
        geometry = to([x.geometry.astype(np.float32) for x in inputs])
        em = to([scale_em(x.em) for x in inputs])
        view = torch.arange(N_VIEWS, device=self.device)
        cls, _ = net.encode_views(
            geometry.flatten(0, 1),
            view[:N_GEOMETRY].repeat(B),
            em.flatten(0, 1),
            view[N_GEOMETRY:].repeat(B),
        )
        n = B * N_GEOMETRY
        features = to([x.features for x in inputs])
        token = net.feature_tokens(features)
        graph = torch.zeros_like(token)
        if net.graph is not None:
            nothing = np.zeros(SHAPE, np.float32)
            around = [nothing if x.neighbours is None else x.neighbours for x in inputs]
            graph = net.graph_tokens(features, to(around))
        return torch.cat(
            [
                cls[:n].view(B, N_GEOMETRY, -1),
                cls[n:].view(B, N_VIEWS - N_GEOMETRY, -1),
                token[:, None],
                graph[:, None],
            ],
            1,
        )

    def close(self) -> None:
        """Stop the worker threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _there(network: MultiTaskViT, inputs: Sequence[NetworkInput]) -> NDArray[np.bool_]:
    """Which tokens each decision can have, (n, `N_TOKENS`)."""
    out = np.ones((len(inputs), N_TOKENS), bool)
    if network.graph is None:
        out[:, GRAPH_TOKEN] = False
    else:
        out[:, GRAPH_TOKEN] = [x.neighbours is not None for x in inputs]
    return out


def _each_alone(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Absent tokens of 1 + `N_TOKENS` rows a decision: all that there are, then each one alone.

    The answer of a token that is not there means nothing; attention needs something to look at.
    """
    n = len(there)
    absent = np.ones((n, 1 + N_TOKENS, N_TOKENS), bool)
    absent[:, 0] = ~there
    absent[:, 1:] = ~np.eye(N_TOKENS, dtype=bool)
    return absent.reshape(-1, N_TOKENS)
