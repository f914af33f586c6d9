"""Trains MultiTaskViT on prepared parts: resumable, on a CPU, a GPU or several."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cb2_assist.core.errors import ModelError
from cb2_assist.learning.checkpoints import (
    CHECKPOINT,
    optimiser_state,
    read_checkpoint,
    state_of,
    write_checkpoint,
)
from cb2_assist.learning.distributed import Team
from cb2_assist.learning.first_stage import Sides, fit_first_stage
from cb2_assist.learning.optimise import Average, make_optimizer, rate_at, set_rate
from cb2_assist.learning.progress_log import EVERY_STEPS, History, Means, Pace
from cb2_assist.learning.recipe import Recipe, recipe_json, steps_of
from cb2_assist.learning.teacher import opinions
from cb2_assist.learning.train import Examples, Per, Rows, per_of, step_draws, step_loss, step_rows
from cb2_assist.model.network import MultiTaskViT, NetworkSpec, check_plain
from cb2_assist.model.start import Start

Say = Callable[[str], None]
_FIRST_STAGE, _TEACHER = "first_stage.safetensors", "second_opinion.safetensors"


def _no_validation(_net: MultiTaskViT, _epoch: int) -> dict[str, Any]:
    return {}


class _Step(nn.Module):
    """The loss as a module, which is what `DistributedDataParallel` wraps."""

    def __init__(self, net: MultiTaskViT, recipe: Recipe, device: torch.device) -> None:
        super().__init__()
        self.net = net
        self._recipe, self._device = recipe, device

    def forward(self, rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of some decisions, and its terms."""
        use = self._recipe.amp == "bf16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=use):
            return step_loss(self.net, rows, self._recipe, self._device)


class Trainer:
    """One run in one folder; stop it at any time, start it again, it goes on.

    On one kind of processor, with one number of threads and processes, a seed gives the same
    weights, bit for bit on a CPU, however often the run was interrupted.

    Args:
        folder: Of the run.
        spec: The network.
        recipe: How to train it.
        team: This process, and which others train with it.
        say: Told about progress, by the lead only.

    Raises:
        ModelError: The encoder is not one that the network can use.
    """

    def __init__(
        self, folder: Path, spec: NetworkSpec, recipe: Recipe, team: Team, say: Say
    ) -> None:
        self.folder, self.recipe, self.team = folder, recipe, team
        self.say = say if team.lead else _silent
        torch.manual_seed(recipe.seed)
        self.net = MultiTaskViT(spec)
        check_plain(self.net.encoder, spec.encoder)
        self.net.to(team.device)
        self.optimizer = make_optimizer(self.net, recipe)
        self.step = 0
        self.average = Average(self.net, recipe.ema)
        self._model: nn.Module = _Step(self.net, recipe, team.device)
        if team.size > 1:
            # a step may lack images or masks in one process, so not every weight has a gradient
            self._model = DistributedDataParallel(
                self._model, broadcast_buffers=False, find_unused_parameters=True
            )

    def fit_scale(self, data: Examples) -> None:
        """Set the feature token's normalisation from the training examples."""
        mean, std = data.features.mean(0), data.features.std(0)
        std = np.where(std < 1e-6, 1.0, std)
        self.net.feature_mean.copy_(torch.from_numpy(mean))
        self.net.feature_std.copy_(torch.from_numpy(std.astype(np.float32)))
        for k in ("feature_mean", "feature_std"):
            self.average.weights[k] = self.net.state_dict()[k].clone()

    def start_from(self, start: Start) -> None:
        """Put a pretrained encoder in place of the random one; for a run at its first step.

        Raises:
            ModelError: It is of another encoder, image size or shape.
        """
        start.apply(self.net)
        state = self.net.state_dict()
        for k in start.weights:
            self.average.weights[k] = state[k].detach().clone()

    def fit_graph(self, data: Examples) -> None:
        """Fit the graph's first stage, or take what an earlier call kept in the folder.

        To be called after `fit_scale` or `resume`. A network without a graph has none.

        Args:
            data: Gets the graph values.

        Raises:
            ModelError: What was kept is of other rows.
        """
        if self.net.graph is None:
            return
        path = self.folder / _FIRST_STAGE
        if not path.is_file() and self.team.lead:
            graph = self.net.graph.cpu()
            values = fit_first_stage(
                graph, Sides.of(data.parts).take(data.kept), seed=self.recipe.seed, say=self.say
            )
            kept = {f"net.{k}": v.contiguous() for k, v in graph.state_dict().items()}
            temporary = path.with_suffix(".tmp")
            save_file({**kept, "values": torch.from_numpy(values)}, temporary)
            temporary.replace(path)
        self.team.wait()
        self.net.to(self.team.device)
        kept = load_file(path)
        data.graph = kept.pop("values").numpy()
        if len(data.graph) != len(data):
            raise ModelError(
                f"{path} is of {len(data.graph)} decisions, now there are {len(data)}. Give "
                "another --out, or delete the folder to start again."
            )
        if self.step == 0:
            self.net.graph.load_state_dict({k[4:]: v for k, v in kept.items()})
            for k, v in self.net.state_dict().items():
                if k.startswith("graph."):
                    self.average.weights[k] = v.detach().clone()

    def fit_teacher(self, data: Examples) -> None:
        """Move the targets towards a second opinion, or take what an earlier call kept.

        To be called after `fit_graph`, whose values are judged with the features. Nothing is done
        where the recipe gives the teacher no share.

        Args:
            data: Gets the targets.

        Raises:
            ModelError: What was kept is of other rows.
        """
        share = self.recipe.teacher
        if not share:
            return
        path = self.folder / _TEACHER
        if not path.is_file() and self.team.lead:
            found = opinions(
                np.hstack([data.features, data.graph]),
                data.answer,
                data.task,
                data.weight,
                data.z,
                seed=self.recipe.seed,
                say=self.say,
            )
            temporary = path.with_suffix(".tmp")
            save_file({"opinion": torch.from_numpy(found)}, temporary)
            temporary.replace(path)
        self.team.wait()
        opinion = load_file(path)["opinion"].numpy()
        if len(opinion) != len(data):
            raise ModelError(
                f"{path} is of {len(opinion)} decisions, now there are {len(data)}. Give another "
                "--out, or delete the folder to start again."
            )
        answer = data.answer.astype(np.float32)
        data.target = ((1 - share) * answer + share * opinion).astype(np.float32)

    def save(self) -> None:
        """Write the checkpoint, atomically: a run killed here loses at most the last minutes."""
        if not self.team.lead:
            return
        write_checkpoint(
            self.folder / CHECKPOINT,
            {"net": self.net.state_dict(), "ema": self.average.weights},
            self.optimizer,
            {
                "step": str(self.step),
                "recipe": json.dumps(recipe_json(self.recipe)),
                "network": json.dumps(self.net.spec.to_json()),
            },
        )

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one.

        Raises:
            ModelError: The checkpoint cannot be read, or is of another network or optimiser, or
                started from other weights.
        """
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return False
        # on the CPU first: the optimizer keeps its step counts there and moves the rest itself
        meta, saved = read_checkpoint(path)
        if json.loads(meta["network"]) != self.net.spec.to_json():
            raise ModelError(
                f"{path} was made with another network ({meta['network']}). Give another --out, "
                "or delete the folder to start again."
            )
        before = json.loads(meta["recipe"])
        if before.get("init_from", "") != self.recipe.init_from:
            raise ModelError(
                f"{path} started from {_named(before.get('init_from', ''))}, now wanted is "
                f"{_named(self.recipe.init_from)}. Give the same --init-from, another --out, or "
                "delete the folder to start again."
            )
        if before != recipe_json(self.recipe):
            self.say(f"going on with another recipe than the checkpoint's {meta['recipe']}")
        state = optimiser_state(self.optimizer, saved)
        order = [p for group in state["param_groups"] for p in group["params"]]
        if not set(state["state"]) <= set(order):
            raise ModelError(
                f"{path} was made with an optimiser of other weights. Give another --out, or "
                "delete the folder to start again."
            )
        self.net.load_state_dict(state_of(saved, "net"))
        self.average.weights = {
            k: v.to(self.team.device) for k, v in state_of(saved, "ema").items()
        }
        self.optimizer.load_state_dict(state)
        self.step = int(meta["step"])
        return True

    def run(
        self,
        data: Examples,
        *,
        minutes: float,
        validate: Callable[[MultiTaskViT, int], Mapping[str, Any]] = _no_validation,
        checkpoint_s: float = 120.0,
    ) -> bool:
        """Train until the recipe's epochs are done or the time is up.

        Args:
            data: What to learn from.
            minutes: Stop after so long.
            validate: Given the averaged network and the number of epochs done, by the lead only;
                its figures go into the history.
            checkpoint_s: Least time between two checkpoints within an epoch.

        Returns:
            Whether all epochs are done.
        """
        per_epoch, total = steps_of(len(data), self.recipe)
        history = History(self.folder, self.step, total, resumed=self.step > 0)
        pace, means = Pace(), Means()
        until, saved = time.monotonic() + 60 * minutes, time.monotonic()
        if self.step and self.step % per_epoch == 0 and not history.validated(self.step):
            # killed between an epoch's checkpoint and its validation
            self._validate(history, validate, self.step // per_epoch)
            pace.resume()
        for rows in self._batches(data, per_epoch, total):
            means.add(self._one(data, rows, total))
            pace.step()
            epoch_ends = self.step % per_epoch == 0
            if self.step % EVERY_STEPS == 0 or epoch_ends:
                self._tell(history, means, pace, (per_epoch, total))
            now = time.monotonic()
            if now - saved > checkpoint_s or epoch_ends:
                self._keep(history)
                saved = now
            if epoch_ends:
                self._validate(history, validate, self.step // per_epoch)
                pace.resume()
            if self.team.lead_says(now > until):
                break
        self._keep(history)
        return self.step >= total

    def _validate(
        self,
        history: History,
        validate: Callable[[MultiTaskViT, int], Mapping[str, Any]],
        epoch: int,
    ) -> None:
        if self.team.lead:
            history.add_validation(self.step, epoch, validate(self.averaged(), epoch))
            history.write()
        self.team.wait()

    def _keep(self, history: History) -> None:
        # the history first: what it has beyond the checkpoint is dropped, the other way it is lost
        if self.team.lead:
            history.write()
        self.save()

    def _tell(self, history: History, means: Means, pace: Pace, length: tuple[int, int]) -> None:
        per_epoch, total = length
        terms = self.team.mean(means.take())
        epoch = (self.step - 1) // per_epoch + 1
        rate = self.recipe.lr * rate_at(self.step - 1, total, self.recipe.warmup)
        history.add_steps(self.step, epoch, {**terms, "lr": rate, "seconds": pace.step_seconds})
        text = " ".join(f"{k} {v:.3f}" for k, v in terms.items())
        self.say(
            f"epoch {epoch}/{self.recipe.epochs}, step {self.step}/{total}: {text}; "
            f"{pace.step_seconds:.2f} s a step, {pace.left(total - self.step)}"
        )

    def _batches(self, data: Examples, per_epoch: int, total: int) -> Iterator[NDArray[np.int64]]:
        while self.step < total:
            epoch, k = divmod(self.step, per_epoch)
            order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(data))
            for i in range(k, per_epoch):
                yield order[i * self.recipe.batch : (i + 1) * self.recipe.batch]

    def _one(self, data: Examples, rows: NDArray[np.int64], total: int) -> dict[str, Tensor]:
        """One step on a batch of which this process computes its share; the terms of its loss."""
        torch.manual_seed(
            (self.recipe.seed * 1_000_003 + self.step) * self.team.size + self.team.rank
        )
        draws = step_draws(len(rows), self.step, self.recipe)
        per = per_of(draws, self.team.size)
        set_rate(self.optimizer, rate_at(self.step, total, self.recipe.warmup))
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        terms = {k: torch.zeros((), device=self.team.device) for k in self._terms(per)}
        passes = self._passes(len(rows))
        for k, places in enumerate(passes):
            part = step_rows(data, rows[places], [draws[p] for p in places], per)
            with self._joined(last=k == len(passes) - 1):
                loss, logs = self._model(part)
                loss.backward()
            for name in terms.keys() & logs.keys():
                terms[name] += logs[name]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.average.update(self.net, self.step)
        return terms

    def _terms(self, per: Per) -> list[str]:
        """Terms of a step's loss, in every process alike."""
        images = ["images"] if per.imaged else []
        mask = ["mask"] if per.hidden and self.recipe.mask_weight else []
        return ["joint", "features", *images, *mask]

    def _passes(self, n: int) -> list[NDArray[np.int64]]:
        """Places in the batch of each forward pass; every process has as many passes."""
        mine = np.arange(self.team.rank, n, self.team.size)
        size = self.recipe.micro_batch or self.recipe.batch
        most = -(-n // self.team.size)
        return [mine[i : i + size] for i in range(0, most, size)]

    def _joined(self, *, last: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients after the last pass of a step only."""
        if last or not isinstance(self._model, DistributedDataParallel):
            return nullcontext()
        joined: AbstractContextManager[None] = self._model.no_sync()
        return joined

    def averaged(self) -> MultiTaskViT:
        """The network with averaged weights, ready to answer."""
        net = MultiTaskViT(self.net.spec).to(self.team.device)
        net.load_state_dict(self.average.weights)
        return net.eval()


def _named(init_from: str) -> str:
    return f"a pretrained encoder of SHA-256 {init_from[:12]}…" if init_from else "random weights"


def _silent(_text: str) -> None:
    pass
