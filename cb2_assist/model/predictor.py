"""Runs a model on view stacks: one number per decision, the same whatever it is batched with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import Kind, ModelOutput, ViewScore
from cb2_assist.model.cb2_network import Cb2ViT
from cb2_assist.model.checkpoint import Model, load_model
from cb2_assist.model.encoders import make_encoder
from cb2_assist.model.inputs import NetworkInput, network_input, scale_em
from cb2_assist.model.network import (
    FEATURE_TOKEN,
    GRAPH_TOKEN,
    N_GEOMETRY,
    N_TOKENS,
    N_VIEWS,
    TASKS,
    TOKEN_NAMES,
    MultiTaskViT,
)
from cb2_assist.model.ood.appearance import appearance
from cb2_assist.model.transfer import InBatches, to_device
from cb2_assist.model.view_average import answer_by_views, answer_subsets
from cb2_assist.views.stack import ViewStack
from cb2_assist.views.surroundings import SHAPE


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
    is as fast as batching. On a GPU decisions are batched. The same site, model and backend give
    the same numbers; between the backends of float32 they differ by less than 1e-5.
    """

    def __init__(
        self,
        model: Model,
        device: str = "cpu",
        threads: int | None = None,
        backend: str = "auto",
    ) -> None:
        self.model = model
        self.device = torch.device(device)
        model.network.to(self.device).eval()
        self._workers = max(1, threads or os.cpu_count() or 1)
        self.encoder = make_encoder(model, self.device, self._workers, backend)
        self._in_batches = InBatches()
        # torch's kernels keep their thread count per calling thread
        self._pool = ThreadPoolExecutor(
            self._workers,
            thread_name_prefix="predict",
            initializer=torch.set_num_threads,
            initargs=(1,),
        )

    @classmethod
    def open(
        cls,
        folder: Path,
        device: str = "auto",
        threads: int | None = None,
        backend: str = "auto",
    ) -> Predictor:
        """Load a model folder.

        Raises:
            ModelError: The folder, the device or the backend cannot be used.
        """
        return cls(load_model(folder), choose_device(device), threads, backend)

    def predict(self, stacks: Sequence[ViewStack], kinds: Sequence[Kind]) -> list[ModelOutput]:
        """Answer one question per stack, in order."""
        jobs = list(zip(stacks, kinds, strict=True))
        if self.device.type == "cpu":
            return list(self._pool.map(lambda j: self.predict_batch([j[0]], [j[1]])[0], jobs))
        return self._in_batches(
            jobs, lambda part: self.predict_batch([s for s, _ in part], [k for _, k in part])
        )

    def predict_batch(
        self, stacks: Sequence[ViewStack], kinds: Sequence[Kind]
    ) -> list[ModelOutput]:
        """Answer several questions in one pass of the network."""
        network = self.model.network
        if isinstance(network, Cb2ViT):
            return answer_by_views(network, self.encoder, stacks, kinds, self.device)
        return self._answer_jointly(network, stacks, kinds)

    def _answer_jointly(
        self, network: MultiTaskViT, stacks: Sequence[ViewStack], kinds: Sequence[Kind]
    ) -> list[ModelOutput]:
        px = self.model.views.image_px
        inputs = [network_input(s, px) for s in stacks]
        B, there = len(stacks), _there(network, inputs)
        logit, embedding = self._decide(network, inputs, _each_alone(there), kinds)
        logits = logit.astype(np.float64)
        embeddings = embedding[:, 0]
        reference = self.model.ood
        distance = np.full(len(stacks), np.nan)
        if reference is not None:
            vectors = self._vectors(network, inputs, there, embeddings)
            distance = reference.distance(vectors, kinds)
        return [
            ModelOutput(
                float(logits[b, 0]),
                tuple(
                    ViewScore(n, float(1 / (1 + np.exp(-logits[b, 1 + i]))))
                    for i, n in enumerate(TOKEN_NAMES)
                    if there[b, i]
                ),
                float(distance[b]),
                embeddings[b],
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
            Log-odds (n,) and decision embeddings (n, D), with appearance behind them (n, D + A)
            where the model's reference reads it.

        Raises:
            ModelError: The network has no joint decision, but one for each view.
        """
        network = self.model.network
        if isinstance(network, Cb2ViT):
            raise ModelError(
                f"{self.model.name} answers view by view and has no embedding of a decision. Give "
                "a model that train has made."
            )
        jobs = list(zip(inputs, present, kinds, strict=True))
        if self.device.type == "cpu":
            found = list(self._pool.map(lambda j: self._embed_batch(network, [j])[0], jobs))
        else:
            found = self._in_batches(jobs, lambda part: self._embed_batch(network, part))
        return np.array([a for a, _ in found]), np.stack([b for _, b in found])

    def _embed_batch(
        self, network: MultiTaskViT, jobs: Sequence[tuple[NetworkInput, NDArray[np.bool_], Kind]]
    ) -> list[tuple[float, NDArray[np.float32]]]:
        inputs = [x for x, _, _ in jobs]
        there = np.stack([p for _, p, _ in jobs]) & _there(network, inputs)
        logit, embedding = self._decide(
            network, inputs, np.expand_dims(~there, 1), [k for _, _, k in jobs]
        )
        vectors = self._vectors(network, inputs, there, embedding[:, 0])
        return [(float(a[0]), b) for a, b in zip(logit, vectors, strict=True)]

    def _vectors(
        self,
        network: MultiTaskViT,
        inputs: Sequence[NetworkInput],
        there: NDArray[np.bool_],
        embeddings: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """What the model's reference measures: embeddings, and appearance if it reads that."""
        if self.model.ood is None or not self.model.ood.reads_appearance:
            return embeddings
        return np.hstack([embeddings, seen_of(network, inputs, there)])

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
            return answer_subsets(
                network, self.encoder, inputs, present, kinds, subsets, self.device
            )
        allowed = np.zeros((len(subsets), N_TOKENS), bool)
        for k, subset in enumerate(subsets):
            allowed[k, list(subset)] = True
        jobs = list(zip(inputs, present, kinds, strict=True))
        if self.device.type == "cpu":
            found = list(
                self._pool.map(lambda j: self._subset_batch(network, [j], allowed)[0], jobs)
            )
        else:
            found = self._in_batches(
                jobs, lambda part: list(self._subset_batch(network, part, allowed))
            )
        return np.stack(found) if found else np.zeros((0, len(subsets)))

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
        absent = ~(used | np.expand_dims(empty, 2))
        inputs, kinds = [x for x, _, _ in jobs], [k for _, _, k in jobs]
        logit, _ = self._decide(network, inputs, absent, kinds)
        out = logit.astype(np.float64)
        out[empty] = np.nan
        return out

    def _decide(
        self,
        net: MultiTaskViT,
        inputs: Sequence[NetworkInput],
        absent: NDArray[np.bool_],
        kinds: Sequence[Kind],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Answer each decision once for each choice of its tokens; images are encoded once.

        To a GPU and back goes one transfer each, and nothing waits in between.

        Args:
            net: The network.
            inputs: B decisions.
            absent: Which tokens each answer may not use, (B, answers, `N_TOKENS`).
            kinds: Which question each decision is.

        Returns:
            Log-odds (B, answers) and decision embeddings (B, answers, D).
        """
        B, rows, _ = absent.shape
        sent = to_device(
            [
                np.stack([x.geometry.astype(np.float32) for x in inputs]),
                np.stack([scale_em(x.em) for x in inputs]),
                np.stack([x.features for x in inputs]),
                _neighbours(net, inputs),
                absent.astype(np.float32),
                np.array([TASKS.index(k.value) for k in kinds], np.float32),
            ],
            self.device,
        )
        geometry, em, features, around, hidden, task = sent
        # TF32 would round a GPU's answers to three digits
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
            cls = self.encoder(geometry.flatten(0, 1), em.flatten(0, 1))
            n = B * N_GEOMETRY
            token = net.feature_tokens(features)
            graph = torch.zeros_like(token)
            if net.graph is not None:
                graph = net.graph_tokens(features, around)
            tokens = torch.cat(
                [
                    cls[:n].view(B, N_GEOMETRY, -1),
                    cls[n:].view(B, N_VIEWS - N_GEOMETRY, -1),
                    token[:, None],
                    graph[:, None],
                ],
                1,
            )
            logit, embedding = net.decide(
                tokens.repeat_interleave(rows, 0),
                hidden.flatten(0, 1) > 0,
                task.long().repeat_interleave(rows),
            )
            back = torch.cat([logit[:, None], embedding], 1).float().cpu().numpy()
        both = back.reshape(B, rows, -1)
        return both[..., 0], both[..., 1:]

    def close(self) -> None:
        """Stop the worker threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def seen_of(
    network: MultiTaskViT, inputs: Sequence[NetworkInput], there: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """`ood.appearance` of decisions; tokens that are not there count as zeros, unlike any.

    Args:
        network: Knows how features were scaled.
        inputs: n decisions.
        there: (n, `N_TOKENS`).
    """
    geometry = np.stack([x.geometry for x in inputs])
    em = np.stack([x.em for x in inputs])
    features = np.stack([x.features for x in inputs])
    geometry[~there[:, :N_GEOMETRY]] = 0
    em[~there[:, N_GEOMETRY:N_VIEWS]] = 0
    features[~there[:, FEATURE_TOKEN]] = 0
    return appearance(network.scaled_features(features), geometry, em)


def _there(network: MultiTaskViT, inputs: Sequence[NetworkInput]) -> NDArray[np.bool_]:
    """Which tokens each decision can have, (n, `N_TOKENS`)."""
    out = np.ones((len(inputs), N_TOKENS), bool)
    if network.graph is None:
        out[:, GRAPH_TOKEN] = False
    else:
        out[:, GRAPH_TOKEN] = [x.neighbours is not None for x in inputs]
    return out


def _each_alone(there: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Absent tokens of 1 + `N_TOKENS` answers a decision: from all there are, from each one alone.

    The answer of a token that is not there means nothing; attention needs something to look at.
    """
    n = len(there)
    absent = np.ones((n, 1 + N_TOKENS, N_TOKENS), bool)
    absent[:, 0] = ~there
    absent[:, 1:] = ~np.eye(N_TOKENS, dtype=bool)
    return absent


def _neighbours(network: MultiTaskViT, inputs: Sequence[NetworkInput]) -> NDArray[np.float32]:
    """Surroundings of each decision, zeros where they were not measured or are not read."""
    out = np.zeros((len(inputs), *(SHAPE if network.graph is not None else (0,))), np.float32)
    for row, x in zip(out, inputs, strict=True):
        if network.graph is not None and x.neighbours is not None:
            row[:] = x.neighbours
    return out
