"""Trains MultiTaskViT on prepared parts: resumable, on CPU or GPU.

Each step answers every decision three times, from all its tokens, from the images alone and from
the features alone, so that no half leans on the other: image statistics do not carry over between
datasets as well as the features do, and features miss what only a picture shows. Half of the
patches are left out at random, which also halves the cost on a CPU.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from cb2_assist.core.channels import GeometryChannel, GeometryView
from cb2_assist.core.errors import ModelError
from cb2_assist.learning.prepare import Part
from cb2_assist.model.inputs import scale_em
from cb2_assist.model.network import N_GEOMETRY, N_TOKENS, N_VIEWS, MultiTaskViT, NetworkSpec

Say = Callable[[str], None]

# right and up of each camera as normal channels; mirroring an image mirrors that component
_RIGHT = {GeometryView.FRONT: 1, GeometryView.SIDE: 0, GeometryView.TOP: 0}
_UP = {GeometryView.FRONT: 2, GeometryView.SIDE: 2, GeometryView.TOP: 1}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides how a run goes; part of the card."""

    seed: int = 0
    epochs: int = 10
    batch: int = 32
    lr: float = 5e-4
    lr_heads: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    """Share of all steps."""
    smoothing: float = 0.05
    views_per_decision: int = 2
    """Half of them geometry, half EM, drawn anew at each step."""
    drop_images: float = 0.3
    """Share of decisions that see no image in a step."""
    drop_features: float = 0.2
    """Share of the others that see no features in their joint answer."""
    keep_patches: float = 0.5
    feature_noise: float = 0.05
    hide_partner: float = 0.15
    """Share of geometry images shown without telling the sides apart; these train the mask head."""
    mask_weight: float = 0.2
    ema: float = 0.998


@dataclass(slots=True)
class _Rows:
    """One step's decisions as arrays."""

    features: NDArray[np.float32]
    task: NDArray[np.int64]
    answer: NDArray[np.bool_]
    weight: NDArray[np.float32]
    geometry: NDArray[np.float32]
    geometry_of: NDArray[np.int64]
    geometry_view: NDArray[np.int64]
    sides: NDArray[np.float32]
    hidden: NDArray[np.bool_]
    em: NDArray[np.float32]
    em_of: NDArray[np.int64]
    em_view: NDArray[np.int64]


class Examples:
    """Several parts as one list of decisions, balanced by task and answer through weights."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        self.index = np.array(
            [(k, i) for k, p in enumerate(self.parts) for i in range(len(p))], np.int64
        )
        self.features = np.concatenate([p.features for p in self.parts])
        self.task = np.concatenate([p.task for p in self.parts])
        self.answer = np.concatenate([p.answer for p in self.parts])
        self.group = np.concatenate([p.group for p in self.parts])
        self.weight = np.ones(len(self.task), np.float32)
        for task in np.unique(self.task):
            of = self.task == task
            for answer in (False, True):
                m = of & (self.answer == answer)
                if m.any():
                    # each answer has half of its task's weight: the model's prior is 50:50
                    self.weight[m] = 0.5 * of.sum() / m.sum()

    def __len__(self) -> int:
        return len(self.task)

    def views(self, row: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Geometry and EM of one decision."""
        k, i = self.index[row]
        return self.parts[k].geometry[i], self.parts[k].em[i]


def _mirror(
    geometry: NDArray[np.float32], view: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Mirror a geometry image left-right or up-down, its world normals with it."""
    normal = GeometryChannel.NORMAL_X
    if rng.random() < 0.5:
        geometry = geometry[:, :, ::-1].copy()
        geometry[normal + _RIGHT[GeometryView(view)]] *= -1
    if rng.random() < 0.5:
        geometry = geometry[:, ::-1].copy()
        geometry[normal + _UP[GeometryView(view)]] *= -1
    return geometry


def _vary_em(em: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    if rng.random() < 0.5:
        em = em[:, :, ::-1]
    if rng.random() < 0.5:
        em = em[:, ::-1]
    if rng.random() < 0.5:
        em = em.transpose(0, 2, 1)
    em = em.copy()
    em[0] = em[0] * rng.uniform(0.75, 1.3) + rng.uniform(-0.35, 0.35)
    em[0] += rng.normal(0, rng.uniform(0, 0.25), em[0].shape)
    return em


def _step_rows(
    data: Examples, rows: NDArray[np.int64], recipe: Recipe, rng: np.random.Generator
) -> _Rows:
    geometry, g_of, g_view, sides, hidden, em, e_of, e_view = ([] for _ in range(8))
    half = max(1, recipe.views_per_decision // 2)
    for b, row in enumerate(rows):
        if rng.random() < recipe.drop_images:
            continue
        g, e = data.views(int(row))
        swap = rng.random() < 0.5
        for v in rng.permutation(N_GEOMETRY)[:half]:
            image = _mirror(g[v].astype(np.float32), int(v), rng)
            a, c = GeometryChannel.MASK_A, GeometryChannel.MASK_B
            if swap:
                image[[a, c]] = image[[c, a]]
            sides.append(image[[a, c]].copy())
            hide = rng.random() < recipe.hide_partner
            if hide:
                image[a] = np.maximum(image[a], image[c])
                image[c] = 0
            hidden.append(hide)
            geometry.append(image)
            g_of.append(b)
            g_view.append(v)
        for v in rng.permutation(N_VIEWS - N_GEOMETRY)[:half]:
            image = _vary_em(scale_em(e[v]), rng)
            if swap:
                image[[1, 2]] = image[[2, 1]]
            em.append(image)
            e_of.append(b)
            e_view.append(v + N_GEOMETRY)
    px = data.parts[0].em.shape[-1]
    return _Rows(
        features=data.features[rows],
        task=data.task[rows],
        answer=data.answer[rows],
        weight=data.weight[rows],
        geometry=np.stack(geometry) if geometry else np.zeros((0, 7, px, px), np.float32),
        geometry_of=np.array(g_of, np.int64),
        geometry_view=np.array(g_view, np.int64),
        sides=np.stack(sides) if sides else np.zeros((0, 2, px, px), np.float32),
        hidden=np.array(hidden, bool),
        em=np.stack(em) if em else np.zeros((0, 3, px, px), np.float32),
        em_of=np.array(e_of, np.int64),
        em_view=np.array(e_view, np.int64),
    )


def _loss(
    net: MultiTaskViT, rows: _Rows, recipe: Recipe, device: torch.device
) -> tuple[Tensor, dict[str, float]]:
    def to(x: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(device)

    B = len(rows.task)
    task, target = to(rows.task), to(rows.answer).float()
    target = target * (1 - recipe.smoothing) + 0.5 * recipe.smoothing
    weight = to(rows.weight)
    absent = torch.ones(B, N_TOKENS, dtype=torch.bool, device=device)
    features = to(rows.features)
    noise = torch.randn_like(features) * recipe.feature_noise * net.feature_std
    token = net.feature_tokens(features + noise)
    tokens = torch.zeros(B, N_TOKENS, token.shape[1], device=device)
    if len(rows.geometry) + len(rows.em):
        cls, _ = net.encode_views(
            to(rows.geometry),
            to(rows.geometry_view),
            to(rows.em),
            to(rows.em_view),
            keep=recipe.keep_patches,
        )
        of = to(np.concatenate([rows.geometry_of, rows.em_of]))
        view = to(np.concatenate([rows.geometry_view, rows.em_view]))
        tokens = tokens.index_put((of, view), cls)
        absent[of, view] = False
    imaged = ~absent[:, :N_VIEWS].all(1)
    tokens = torch.cat([tokens[:, :N_VIEWS], token[:, None]], 1)
    alone = torch.ones_like(absent)
    alone[:, -1] = False
    both = absent.clone()
    both[:, -1] = imaged & (torch.rand(B, device=device) < recipe.drop_features)

    def answer(missing: Tensor, use: Tensor) -> Tensor:
        if not bool(use.any()):
            return tokens.sum() * 0
        logit, _ = net.decide(tokens[use], missing[use], task[use])
        each = F.binary_cross_entropy_with_logits(logit, target[use], reduction="none")
        return (each * weight[use]).mean()

    everyone = torch.ones(B, dtype=torch.bool, device=device)
    losses = {
        "joint": answer(both, everyone),
        "images": answer(absent, imaged),
        "features": answer(alone, everyone),
    }
    total = losses["joint"] + 0.5 * losses["images"] + 0.5 * losses["features"]
    if rows.hidden.any() and recipe.mask_weight:
        hidden = to(rows.hidden)
        _, kept = net.encode_views(
            to(rows.geometry[rows.hidden]),
            to(rows.geometry_view[rows.hidden]),
            to(rows.em[:0]),
            to(rows.em_view[:0]),
        )
        losses["mask"] = mask_loss(net.masks(kept), to(rows.sides)[hidden])
        total = total + recipe.mask_weight * losses["mask"]
    return total, {k: float(v.detach()) for k, v in losses.items()}


def mask_loss(logits_NSHW: Tensor, sides_NSHW: Tensor) -> Tensor:
    """Half cross entropy, half soft Dice on the foreground, for the better assignment of sides.

    Which piece is called A is arbitrary, so both assignments are tried and the smaller loss of
    each image counts (ConnectomeBench2, arXiv 2606.21116). Pixels that both sides cover carry no
    answer.
    """
    only = (sides_NSHW.sum(1) == 1).float()
    n = only.sum((1, 2)).clamp(min=1)
    share = logits_NSHW.softmax(1)
    per_way = []
    for sides in (sides_NSHW, sides_NSHW.flip(1)):
        ce = -(logits_NSHW.log_softmax(1) * sides).sum(1)
        ce = (ce * only).sum((1, 2)) / n
        inter = (share * sides * only[:, None]).sum((2, 3))
        size = ((share + sides) * only[:, None]).sum((2, 3)) + 1e-6
        dice = (2 * inter / size).mean(1)
        per_way.append(0.5 * ce + 0.5 * (1 - dice))
    return torch.stack(per_way).min(0).values.mean()


class Trainer:
    """One run in one folder; stop it at any time, start it again, it goes on."""

    def __init__(
        self, folder: Path, spec: NetworkSpec, recipe: Recipe, device: torch.device, say: Say
    ) -> None:
        self.folder, self.recipe, self.device, self.say = folder, recipe, device, say
        torch.manual_seed(recipe.seed)
        self.net = MultiTaskViT(spec).to(device)
        heads = [
            p
            for n, p in self.net.named_parameters()
            if not n.startswith(("encoder", "em_patches", "view_embedding"))
        ]
        known = {id(p) for p in heads}
        body = [p for p in self.net.parameters() if id(p) not in known]
        self.optimizer = torch.optim.AdamW(
            [{"params": body, "peak": recipe.lr}, {"params": heads, "peak": recipe.lr_heads}],
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
        )
        self.step = 0
        self.average = {k: v.detach().clone() for k, v in self.net.state_dict().items()}

    def fit_scale(self, data: Examples) -> None:
        """Set the feature token's normalisation from the training examples."""
        mean, std = data.features.mean(0), data.features.std(0)
        std = np.where(std < 1e-6, 1.0, std)
        self.net.feature_mean.copy_(torch.from_numpy(mean))
        self.net.feature_std.copy_(torch.from_numpy(std.astype(np.float32)))
        for k in ("feature_mean", "feature_std"):
            self.average[k] = self.net.state_dict()[k].clone()

    def save(self) -> None:
        """Write the checkpoint, atomically: a run killed here loses at most the last minutes."""
        out = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        out |= {f"ema.{k}": v for k, v in self.average.items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            out |= {f"opt.{i}.{k}": v for k, v in state.items()}
        out = {k: v.detach().cpu().clone().contiguous() for k, v in out.items()}
        temporary = self.folder / "checkpoint.tmp"
        meta = {
            "step": str(self.step),
            "recipe": json.dumps(asdict(self.recipe)),
            "network": json.dumps(self.net.spec.to_json()),
        }
        save_file(out, temporary, meta)
        temporary.replace(self.folder / "checkpoint.safetensors")

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one.

        Raises:
            ModelError: The checkpoint is of another network.
        """
        path = self.folder / "checkpoint.safetensors"
        if not path.is_file():
            return False
        from safetensors import safe_open

        with safe_open(path, "pt") as f:
            meta = f.metadata()
        if json.loads(meta["network"]) != self.net.spec.to_json():
            raise ModelError(
                f"{path} was made with another network ({meta['network']}). Give another --out, "
                "or delete the folder to start again."
            )
        if json.loads(meta["recipe"]) != asdict(self.recipe):
            self.say(f"going on with another recipe than the checkpoint's {meta['recipe']}")
        # on the CPU first: the optimizer keeps its step counts there and moves the rest itself
        saved = load_file(path)
        self.net.load_state_dict({k[4:]: v for k, v in saved.items() if k.startswith("net.")})
        self.average = {k[4:]: v.to(self.device) for k, v in saved.items() if k.startswith("ema.")}
        state = self.optimizer.state_dict()
        for key, value in saved.items():
            if key.startswith("opt."):
                _, i, name = key.split(".", 2)
                state["state"].setdefault(int(i), {})[name] = value
        self.optimizer.load_state_dict(state)
        self.step = int(meta["step"])
        return True

    def run(
        self,
        data: Examples,
        *,
        minutes: float,
        on_epoch: Callable[[int], None],
        checkpoint_s: float = 120.0,
    ) -> bool:
        """Train until the recipe's epochs are done or the time is up.

        Returns:
            Whether all epochs are done.
        """
        per_epoch = math.ceil(len(data) / self.recipe.batch)
        total = per_epoch * self.recipe.epochs
        until, saved = time.monotonic() + 60 * minutes, time.monotonic()
        for rows in self._batches(data, per_epoch, total):
            logs = self._one(data, rows, total)
            now = time.monotonic()
            if self.step % 25 == 0:
                text = " ".join(f"{k} {v:.3f}" for k, v in logs.items())
                self.say(f"step {self.step}/{total}: {text}")
            if now - saved > checkpoint_s:
                self.save()
                saved = now
            if self.step % per_epoch == 0:
                self.save()
                on_epoch(self.step // per_epoch)
            if now > until:
                break
        self.save()
        return self.step >= total

    def _batches(self, data: Examples, per_epoch: int, total: int) -> Iterator[NDArray[np.int64]]:
        while self.step < total:
            epoch, k = divmod(self.step, per_epoch)
            order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(data))
            for i in range(k, per_epoch):
                yield order[i * self.recipe.batch : (i + 1) * self.recipe.batch]

    def _one(self, data: Examples, rows: NDArray[np.int64], total: int) -> dict[str, float]:
        rng = np.random.default_rng((self.recipe.seed, 1, self.step))
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.step)
        warm = max(1, int(self.recipe.warmup * total))
        share = min(1.0, (self.step + 1) / warm)
        rate = share * 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / total)))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        self.net.train()
        loss, logs = _loss(
            self.net, _step_rows(data, rows, self.recipe, rng), self.recipe, self.device
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(self.recipe.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for k, v in self.net.state_dict().items():
                self.average[k].lerp_(v, 1 - keep)
        return logs

    def averaged(self) -> MultiTaskViT:
        """The network with averaged weights, ready to answer."""
        net = MultiTaskViT(self.net.spec).to(self.device)
        net.load_state_dict(self.average)
        return net.eval()
