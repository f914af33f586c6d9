"""Trains `masked.MaskedViews` on rendered sites: resumable, on a CPU or a GPU."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cb2_assist.core.channels import GeometryChannel
from cb2_assist.core.errors import ModelError, UsageError
from cb2_assist.learning.checkpoints import (
    CHECKPOINT,
    optimiser_state,
    read_checkpoint,
    state_of,
    write_checkpoint,
)
from cb2_assist.learning.optimise import rate_at, set_rate
from cb2_assist.learning.pretrain_history import PretrainHistory
from cb2_assist.learning.pretrain_sites import Sites
from cb2_assist.learning.pretrain_step import Sums, cheap_sums, draw_site, make_batch, step_sums
from cb2_assist.learning.progress_log import EVERY_STEPS, Means, Pace
from cb2_assist.learning.recipe import AMP
from cb2_assist.model.masked import CHANNEL_NAMES, MaskedSpec, MaskedViews

_CHECKPOINT = "checkpoint.safetensors"
_MOST_HELD_OUT = 1000
"""Held-out sites that are looked at after an epoch."""
_GEOMETRY = len(GeometryChannel)
_DRAWS = 500
"""Resamples behind an interval."""


@dataclass(frozen=True, slots=True)
class PretrainRecipe:
    """Everything that decides how masked modelling goes; part of the card."""

    seed: int = 0
    epochs: int = 20
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    """Share of all steps."""
    mask: float = 0.75
    """Share of the patches of each image that is hidden."""
    amp: str = "off"
    """``bf16`` runs the network in bfloat16 where that is safe; weights stay float32."""

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            UsageError: A value makes no sense; the message says which.
        """
        if self.amp not in AMP:
            raise UsageError(f"amp is {' or '.join(AMP)}, got {self.amp!r}.")
        if self.batch < 1 or self.epochs < 1 or not self.lr > 0:
            raise UsageError(
                f"batch and epochs are at least 1 and the rate is above 0, got {self.batch}, "
                f"{self.epochs} and {self.lr:g}."
            )
        if not 0 < self.mask < 1:
            raise UsageError(
                f"--mask is the share of patches that is hidden, between 0 and 1, got "
                f"{self.mask:g}; 0.75 is usual."
            )


class Pretrainer:
    """One run in one folder; stop it at any time, start it again, it goes on.

    On one kind of processor, with one number of threads, a seed gives the same weights, bit for bit
    on a CPU, however often the run was interrupted.

    Args:
        folder: Of the run.
        spec: The network.
        recipe: How to train it.
        parts: Rendered sites.
        device: Where it computes.
        say: Told about progress.

    Raises:
        ModelError: The encoder is not one that the network can use.
        UsageError: Nothing would be hidden, or everything.
    """

    def __init__(
        self,
        folder: Path,
        spec: MaskedSpec,
        recipe: PretrainRecipe,
        parts: Sequence[Sites],
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self.folder, self.recipe, self._parts, self._device = folder, recipe, parts, device
        self.say = say
        torch.manual_seed(recipe.seed)
        self.net = MaskedViews(spec).to(device)
        self.shown = round((1 - recipe.mask) * self.net.patches)
        if not 0 < self.shown < self.net.patches:
            raise UsageError(
                f"--mask {recipe.mask:g} of {self.net.patches} patches leaves {self.shown} to be "
                "seen: at least one must be seen and one hidden. Give a share nearer 0.75."
            )
        self.optimizer = torch.optim.AdamW(
            [{"params": list(self.net.parameters()), "peak": recipe.lr}],
            lr=recipe.lr,
            betas=(0.9, 0.95),
            weight_decay=recipe.weight_decay,
        )
        self.step = 0
        index = np.array([(k, i) for k, p in enumerate(parts) for i in range(len(p))], np.int64)
        held_out = np.concatenate([p.held_out for p in parts])
        self.learnt = index[~held_out]
        rows = np.flatnonzero(held_out)
        some = np.random.default_rng((recipe.seed, 3)).permutation(rows)[:_MOST_HELD_OUT]
        self.held_out = index[np.sort(some)]

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        meta = {"step": str(self.step), "run": self._identity()}
        write_checkpoint(
            self.folder / CHECKPOINT, {"net": self.net.state_dict()}, self.optimizer, meta
        )

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one.

        Raises:
            ModelError: It cannot be read, or is of another network, recipe or number of sites.
        """
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return False
        meta, saved = read_checkpoint(path)
        if meta["run"] != self._identity():
            raise ModelError(
                f"{path} is of another run ({meta['run']}), now wanted is {self._identity()}. Give "
                "another --out, or delete the folder to start again."
            )
        self.net.load_state_dict(state_of(saved, "net"))
        self.optimizer.load_state_dict(optimiser_state(self.optimizer, saved))
        self.step = int(meta["step"])
        return True

    def _identity(self) -> str:
        spec = asdict(self.net.spec)
        return json.dumps([spec, asdict(self.recipe), len(self.learnt)], sort_keys=True)

    @property
    def length(self) -> tuple[int, int]:
        """Steps of one epoch and of the whole run."""
        per_epoch = -(-len(self.learnt) // self.recipe.batch)
        return per_epoch, per_epoch * self.recipe.epochs

    def run(self, *, minutes: float, checkpoint_s: float = 120.0) -> bool:
        """Train until the recipe's epochs are done or the time is up.

        Args:
            minutes: Stop after so long.
            checkpoint_s: Least time between two checkpoints within an epoch.

        Returns:
            Whether all epochs are done.
        """
        per_epoch, total = self.length
        history = PretrainHistory(self.folder, self.step, resumed=self.step > 0)
        pace, means = Pace(), Means()
        until, saved = time.monotonic() + 60 * minutes, time.monotonic()
        for rows in self._batches(per_epoch, total):
            means.add(self._one(rows, total))
            pace.step()
            epoch_ends = self.step % per_epoch == 0
            if self.step % EVERY_STEPS == 0 or epoch_ends:
                self._tell(history, means, pace)
            now = time.monotonic()
            if epoch_ends:
                history.add_held_out(self.step, self.judged())
            if epoch_ends or now - saved > checkpoint_s:
                history.write()
                self.save()
                saved = now
            if epoch_ends:
                pace.resume()
            if now > until:
                break
        history.write()
        self.save()
        return self.step >= total

    def _tell(self, history: PretrainHistory, means: Means, pace: Pace) -> None:
        per_epoch, total = self.length
        loss = means.take()["loss"]
        history.add_steps(self.step, loss, pace.step_seconds)
        self.say(
            f"epoch {(self.step - 1) // per_epoch + 1}/{self.recipe.epochs}, step {self.step}/"
            f"{total}: loss {loss:.3f}; {pace.step_seconds:.2f} s a step, "
            f"{pace.left(total - self.step)}"
        )

    def _batches(self, per_epoch: int, total: int) -> Iterator[NDArray[np.int64]]:
        while self.step < total:
            epoch, k = divmod(self.step, per_epoch)
            order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self.learnt))
            for i in range(k, per_epoch):
                yield self.learnt[order[i * self.recipe.batch : (i + 1) * self.recipe.batch]]

    def _one(self, rows: NDArray[np.int64], total: int) -> dict[str, torch.Tensor]:
        draws = [
            draw_site(
                self.net.patches, np.random.default_rng((self.recipe.seed, 1, self.step, place))
            )
            for place in range(len(rows))
        ]
        batch = make_batch(self._of(rows), draws, self.shown, self._device)
        set_rate(self.optimizer, rate_at(self.step, total, self.recipe.warmup))
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.recipe.amp == "bf16"):
            loss = step_sums(self.net, batch).loss(_GEOMETRY)
        loss.backward()  # type: ignore[no-untyped-call] # torch's carries no types
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        return {"loss": loss.detach()}

    def _of(self, rows: NDArray[np.int64]) -> list[tuple[Sites, int]]:
        return [(self._parts[k], int(i)) for k, i in rows]

    def judged(self) -> dict[str, Any]:
        """Loss on held-out sites beside the mean of the patches that are shown, by channel.

        Always the same sites, views and hidden patches; nothing is mirrored. Intervals resample
        the cubes that the sites lie in. Empty where no site is held out.
        """
        if not len(self.held_out):
            return {}
        found: dict[str, list[Sums]] = {"network": [], "mean_of_shown": []}
        self.net.eval()
        with torch.inference_mode():
            for start in range(0, len(self.held_out), self.recipe.batch):
                rows = self.held_out[start : start + self.recipe.batch]
                draws = [
                    draw_site(
                        self.net.patches,
                        np.random.default_rng((self.recipe.seed, 2, start + place)),
                        moved=False,
                    )
                    for place in range(len(rows))
                ]
                batch = make_batch(self._of(rows), draws, self.shown, self._device)
                found["network"].append(step_sums(self.net, batch))
                found["mean_of_shown"].append(cheap_sums(self.net, batch))
        sums = {
            name: Sums(torch.cat([s.error for s in each]), torch.cat([s.weight for s in each]))
            for name, each in found.items()
        }
        return {"n": len(self.held_out), **judgement(sums, self._blocks())}

    def _blocks(self) -> NDArray[np.int64]:
        """The cube of each held-out site, two volumes' apart."""
        pairs = np.array([(k, self._parts[k].block[i]) for k, i in self.held_out])
        return np.unique(pairs, axis=0, return_inverse=True)[1].ravel()


def judgement(sums: Mapping[str, Sums], block: NDArray[np.int64]) -> dict[str, Any]:
    """Losses of network and cheap guess with 95 % intervals, and the share that is left of it.

    Args:
        sums: Of ``network`` and ``mean_of_shown``, on the same sites.
        block: Which sites belong together.
    """
    members = [np.flatnonzero(block == b) for b in np.unique(block)]
    rng = np.random.default_rng(0)
    picks = [np.arange(len(block))]
    for _ in range(_DRAWS):
        chosen = rng.integers(0, len(members), len(members))
        picks.append(np.concatenate([members[k] for k in chosen]))
    losses = {
        name: np.array([float(s.take(torch.from_numpy(p)).loss(_GEOMETRY)) for p in picks])
        for name, s in sums.items()
    }
    out: dict[str, Any] = {"cubes": len(members)}
    for name, s in sums.items():
        each = zip(CHANNEL_NAMES, s.by_channel.tolist(), strict=True)
        out[name] = _with_interval(losses[name], "loss") | {
            "by_channel": {k: round(v, 5) for k, v in each}
        }
    left = losses["network"] / np.maximum(losses["mean_of_shown"], 1e-9)
    return out | {"share_left": _with_interval(left, "value")}


def _with_interval(values: NDArray[np.float64], name: str) -> dict[str, Any]:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return {name: round(float(values[0]), 5), "ci95": [round(float(v), 5) for v in (low, high)]}
