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

from cb2_assist.core.channels import VIEW_NAMES
from cb2_assist.core.errors import ModelError
from cb2_assist.core.records import Kind, ModelOutput, ViewScore
from cb2_assist.model.cb2_network import Cb2ViT
from cb2_assist.model.checkpoint import Model, load_model
from cb2_assist.model.inputs import NetworkInput, network_input, scale_em
from cb2_assist.model.network import N_GEOMETRY, N_TOKENS, N_VIEWS, TASKS, MultiTaskViT
from cb2_assist.model.view_average import answer_by_views, answer_subsets
from cb2_assist.views.stack import ViewStack

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
            # row 0 of a decision: all tokens; rows 1..7: each token alone
            rows = 1 + N_TOKENS
            absent = torch.ones(rows, N_TOKENS, dtype=torch.bool, device=self.device)
            absent[0] = False
            absent[1:].fill_diagonal_(False)
            B = len(stacks)
            logit, embedding = network.decide(
                tokens.repeat_interleave(rows, 0), absent.repeat(B, 1), task.repeat_interleave(rows)
            )
            logits = logit.view(B, rows).double().cpu().numpy()
            embeddings = embedding.view(B, rows, -1)[:, 0].float().cpu().numpy()
        reference = self.model.ood
        nowhere = np.full(len(stacks), np.nan)
        distance = nowhere if reference is None else reference.distance(embeddings)
        names = (*VIEW_NAMES, "features")
        return [
            ModelOutput(
                float(logits[b, 0]),
                tuple(
                    ViewScore(n, float(1 / (1 + np.exp(-logits[b, 1 + i]))))
                    for i, n in enumerate(names)
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
            present: Which tokens there are, (n, `N_TOKENS`): `VIEW_NAMES`, then the features.
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
        used = np.stack([present for _, present, _ in jobs])[:, None] & allowed
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
        features = net.feature_tokens(to([x.features for x in inputs]))
        return torch.cat(
            [
                cls[:n].view(B, N_GEOMETRY, -1),
                cls[n:].view(B, N_VIEWS - N_GEOMETRY, -1),
                features[:, None],
            ],
            1,
        )

    def close(self) -> None:
        """Stop the worker threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
