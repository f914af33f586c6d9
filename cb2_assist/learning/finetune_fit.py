"""Fine-tuning on kept tokens: how much of a network is fitted, and how.

Few labels bear few parameters, and without decisions of the base data nothing holds a network to
what it knew. So (`level_for`):

- ``head``: without base data, or with fewer than `LEAST_DECISION` labels of a question. The last
  linear layer of each labelled question is fitted: nothing, its bias, or all of it, held to what it
  was by a penalty on the change; which of these is chosen on held-out folds.
- ``decision``: with base data and more labels. What combines the tokens is fitted, too; half of
  every batch is base data, and every weight is pulled towards what it was.
- ``measured``: from `LEAST_MEASURED` on. The layers behind the measured tokens as well.

The image encoder and the first stage of the graph never change here.

Labels that a queue chose by rank are no sample of the answers: where the model doubts, most may be
the same answer, which is what there is to learn. So labels are not balanced by answer, as training
examples are. What is fitted is the calibrated score moved to the share of true sites, `Prior`: as
far as the choice went by what the model sees, the chance of an answer at a given site does not
depend on it. Base data are whole samples, and are balanced.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch.nn import functional

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.records import Kind
from cb2_assist.learning.finetune_tokens import Rows, Tokens, answers, token_stack
from cb2_assist.learning.optimise import rate_at
from cb2_assist.model.network import FEATURE_TOKEN, GRAPH_TOKEN, N_VIEWS, TASKS, MultiTaskViT

LEVELS = ("head", "decision", "measured")
LEAST = 5
"""Labels of either answer from which on a question is fitted at all."""
LEAST_DECISION, LEAST_MEASURED = 20, 400
"""Labels of a question from which on more is fitted, when there is base data."""
_HELD = (1.0, 10.0, 100.0, 1000.0)
"""Strengths of the penalty on a head's change."""
_FOLDS = 5
_DECISION = (
    "heads.",
    "task_query",
    "token_norm.",
    "fusion.",
    "fusion_mlp.",
    "decision_norm.",
)
_MEASURED = ("feature_token.", "graph.token.")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FitPlan:
    """How to fit; part of the card.

    Attributes:
        level: One of `LEVELS`.
        replay_share: Of every batch, when there is base data.
        steps: Of the optimiser, above ``head``.
        batch: Decisions of a step, base data included.
        lr: Peak.
        hold: Pull of every weight towards what it was, added to the loss as
            ``hold * sum of squared changes``.
        drop_images, drop_measured: Share of decisions of a step that lose all views, or each of
            the measured tokens, so that the tokens keep answering alone.
        seed: Of order and drops.
    """

    level: str
    replay_share: float = 0.5
    steps: int = 150
    batch: int = 64
    lr: float = 5e-4
    hold: float = 0.01
    drop_images: float = 0.3
    drop_measured: float = 0.15
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Prior:
    """From a network's log-odds of one question to those of its labels.

    Attributes:
        temperature, bias: The model's own scale: ``logit / temperature + bias`` is at 50:50.
        shift: Log-odds of the share of true sites where the labels are from.
    """

    temperature: float = 1.0
    bias: float = 0.0
    shift: float = 0.0

    @property
    def offset(self) -> float:
        """What is added to ``logit / temperature``."""
        return self.bias + self.shift


EVEN = dict.fromkeys(Kind, Prior())
"""Log-odds as they are, and as many true sites as false ones."""


def level_for(labels: Tokens, replay: Tokens | None) -> str:
    """How much so many labels bear; see the module.

    With two questions fitted the one with fewer labels decides.
    """
    fitted = [k for k, n in rarer_counts(labels).items() if n >= LEAST]
    tasks = [list(Kind).index(k) for k in fitted]
    if replay is None or not tasks or not set(tasks) <= set(replay.task.tolist()):
        return "head"
    n = min(int((labels.task == t).sum()) for t in tasks)
    if n < LEAST_DECISION:
        return "head"
    return "decision" if n < LEAST_MEASURED else "measured"


def rarer_counts(labels: Tokens) -> dict[Kind, int]:
    """Labels of the rarer answer, by question that has any label."""
    out = {}
    for index, kind in enumerate(Kind):
        mine = labels.answer[labels.task == index]
        if len(mine):
            out[kind] = int(min(mine.sum(), (~mine).sum()))
    return out


def check_enough(labels: Tokens) -> None:
    """Refuse labels that nothing can be fitted to.

    Raises:
        DatasetError: No question has enough labels of both answers.
    """
    counts = rarer_counts(labels)
    if max(counts.values(), default=0) >= LEAST:
        return
    told = []
    for index, kind in enumerate(Kind):
        mine = labels.answer[labels.task == index]
        if len(mine):
            told.append(f"{len(mine)} {kind.value}s, {int(mine.sum())} of them accepted")
    raise DatasetError(
        f"There is too little to learn from: {'; '.join(told) or 'no labels'}. A question needs "
        f"{LEAST} accepted and {LEAST} rejected labels to be fitted. Answer more sites with the "
        "answer that is rare (q brings up uncertain ones)."
    )


def fit(
    net: MultiTaskViT,
    labels: Tokens,
    replay: Tokens | None,
    plan: FitPlan,
    fold: Rows,
    prior: Mapping[Kind, Prior] = EVEN,
) -> MultiTaskViT:
    """A copy of a network, fitted; the same inputs give the same weights.

    Args:
        net: Stays as it is.
        labels: What to learn.
        replay: Base data; None at level ``head``.
        plan: How.
        fold: A fold of each label, in which level ``head`` chooses, (n,).
        prior: Of the labels.
    """
    if plan.level == "head" or replay is None:
        return _fit_heads(net, labels, fold, prior)
    return _fit_layers(net, labels, replay, plan, prior)


def _fit_heads(
    net: MultiTaskViT, labels: Tokens, fold: Rows, prior: Mapping[Kind, Prior]
) -> MultiTaskViT:
    out = copy.deepcopy(net).eval()
    _, embedding = answers(net, labels)
    for index, kind in enumerate(Kind):
        rows = labels.task == index
        answer = labels.answer[rows]
        if min(answer.sum(), (~answer).sum()) < LEAST:
            continue
        head: Any = out.heads[TASKS[index]]  # a linear layer; torch says a module
        before = np.append(
            head.weight.detach().double().numpy()[0], head.bias.detach().double().numpy()
        )
        after = fit_head(
            before, embedding[rows].astype(np.float64), answer, fold[rows], prior[kind]
        )
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(after[:-1][None]))
            head.bias.copy_(torch.from_numpy(after[-1:]))
    return out


def fit_head(
    before: Floats,
    embedding: Floats,
    answer: NDArray[np.bool_],
    fold: Rows,
    prior: Prior = EVEN[Kind.JOIN],
) -> Floats:
    """Weights and bias of one linear head.

    Of no change, a new bias, and new weights by the strength of their penalty, the one whose log
    loss on held-out folds is least; ties go to the smaller change.

    Args:
        before: Weights and bias as they are, (D + 1,).
        embedding: What the head sees, (n, D).
        answer: (n,), both answers.
        fold: What is held out together, (n,).
        prior: Of the labels.
    """
    x = np.hstack([embedding, np.ones((len(embedding), 1))])

    def fitted(rows: NDArray[np.bool_], strength: float | None) -> Floats:
        if strength is None:
            return before
        return _held_fit(before, x[rows], answer[rows], strength, prior)

    best, least = None, np.inf
    for strength in (None, np.inf, *sorted(_HELD, reverse=True)):
        loss = 0.0
        for k in np.unique(fold):
            held = fold == k
            z = x[held] @ fitted(~held, strength) / prior.temperature + prior.offset
            loss += float(_losses(z, answer[held]).sum())
        if loss < least - 1e-6:
            best, least = strength, loss
    return fitted(np.ones(len(answer), bool), best)


def _held_fit(
    before: Floats, x: Floats, answer: NDArray[np.bool_], strength: float, prior: Prior
) -> Floats:
    """With an infinite strength only the bias is fitted."""
    sign = np.where(answer, 1.0, -1.0)
    only_bias = not np.isfinite(strength)
    held = np.full(len(before), 0.0 if only_bias else strength)
    held[-1] = 1.0  # the bias costs one label's worth

    def loss(w: Floats) -> tuple[float, Floats]:
        z = sign * (x @ w / prior.temperature + prior.offset)
        value = np.logaddexp(0, -z).sum() + 0.5 * held @ (w - before) ** 2
        pull = -sign / (1 + np.exp(z)) / prior.temperature
        slope = x.T @ pull + held * (w - before)
        if only_bias:
            slope[:-1] = 0
        return float(value), slope

    found = optimize.minimize(loss, before, jac=True, method="L-BFGS-B")
    out: Floats = found.x
    return out


def _losses(logit: Floats, answer: NDArray[np.bool_]) -> Floats:
    out: Floats = np.logaddexp(0, np.where(answer, -logit, logit))
    return out


def balanced(answer: NDArray[np.bool_]) -> Floats:
    """Weights by which both answers count the same, mean 1."""
    share = np.clip(answer.mean(), 1e-9, 1 - 1e-9)
    out: Floats = np.where(answer, 0.5 / share, 0.5 / (1 - share))
    return out


def step_weights(tokens: Tokens) -> NDArray[np.float32]:
    """The same within each question."""
    out = np.ones(len(tokens), np.float32)
    for index in np.unique(tokens.task):
        rows = tokens.task == index
        if tokens.answer[rows].any() and not tokens.answer[rows].all():
            out[rows] = balanced(tokens.answer[rows])
    return out


def _fit_layers(
    net: MultiTaskViT,
    labels: Tokens,
    replay: Tokens,
    plan: FitPlan,
    prior: Mapping[Kind, Prior],
) -> MultiTaskViT:
    out = copy.deepcopy(net)
    starts = _DECISION if plan.level == "decision" else (*_DECISION, *_MEASURED)
    moving = []
    for name, parameter in out.named_parameters():
        parameter.requires_grad_(name.startswith(starts))
        if parameter.requires_grad:
            moving.append((parameter, parameter.detach().clone()))
    optimizer = torch.optim.AdamW([p for p, _ in moving], plan.lr, weight_decay=0.0)
    rng = np.random.default_rng((plan.seed, 3))
    torch.manual_seed(plan.seed)
    base = round(plan.batch * plan.replay_share)
    own = [prior[k] for k in Kind]
    # base data are whole samples, balanced by answer, at 50:50
    whole = [Prior(p.temperature, p.bias) for p in own]
    plain = np.ones(len(labels), np.float32)
    streams = [
        (_stream(labels, plan.batch - base, plain, rng), own),
        (_stream(replay, base, step_weights(replay), rng), whole),
    ]
    out.train()
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.lr * rate_at(step, plan.steps, 0.1)
        total = torch.zeros(())
        for stream, at in streams:
            some, weight = next(stream)
            total = total + _loss(out, some, weight, at, plan, rng) * len(some) / plan.batch
        pull = sum(((p - was) ** 2).sum() for p, was in moving)
        optimizer.zero_grad(set_to_none=True)
        (total + plan.hold * pull).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for p, _ in moving], 1.0)
        optimizer.step()
    for parameter in out.parameters():
        parameter.requires_grad_(False)
    return out.eval()


class _stream:  # noqa: N801 - an iterator, used like a function
    """Endless batches: every row once, then all again in another order."""

    def __init__(
        self, tokens: Tokens, n: int, weight: NDArray[np.float32], rng: np.random.Generator
    ) -> None:
        self._tokens, self._n, self._weight, self._rng = tokens, n, weight, rng
        self._left = np.zeros(0, np.intp)

    def __next__(self) -> tuple[Tokens, NDArray[np.float32]]:
        while len(self._left) < self._n:
            more = self._rng.permutation(len(self._tokens))
            self._left = np.concatenate([self._left, more])
        rows, self._left = self._left[: self._n], self._left[self._n :]
        return self._tokens.take(rows), self._weight[rows]


def _loss(
    net: MultiTaskViT,
    some: Tokens,
    weight: NDArray[np.float32],
    prior: Sequence[Prior],
    plan: FitPlan,
    rng: np.random.Generator,
) -> torch.Tensor:
    there = some.there.copy()
    there[rng.random(len(some)) < plan.drop_images, :N_VIEWS] = False
    for token in (FEATURE_TOKEN, GRAPH_TOKEN):
        there[rng.random(len(some)) < plan.drop_measured, token] = False
    nothing = ~there.any(1)
    there[nothing] = some.there[nothing]
    logit, _ = net.decide(
        token_stack(net, some), torch.from_numpy(~there), torch.from_numpy(some.task)
    )
    scale, offset = (
        torch.tensor([getattr(prior[t], k) for t in some.task.tolist()])
        for k in ("temperature", "offset")
    )
    target = torch.from_numpy(some.answer.astype(np.float32)) * 0.95 + 0.025
    return functional.binary_cross_entropy_with_logits(
        logit / scale + offset, target, weight=torch.from_numpy(weight)
    )


def folds_of(
    group: NDArray[np.int64], answer: NDArray[np.bool_], seed: int, folds: int = _FOLDS
) -> Rows:
    """A fold of each label: whole groups together, accepted labels spread, (n,).

    Args:
        group: What must not be torn apart, (n,).
        answer: (n,).
        seed: Of ties.
        folds: At most so many.
    """
    names, inverse = np.unique(group, return_inverse=True)
    accepted = np.bincount(inverse, answer, len(names))
    size = np.bincount(inverse, minlength=len(names))
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-size[order], kind="stable")]
    k = min(folds, len(names))
    load = np.zeros((k, 2))
    fold = np.zeros(len(names), np.intp)
    for g in order:
        # the fold that is emptiest of what this group brings, then emptiest of all
        brings = np.array([accepted[g], size[g] - accepted[g]])
        fold[g] = int(np.argmin(load @ (brings + 1e-6)))
        load[fold[g]] += (accepted[g], size[g] - accepted[g])
    found: Rows = fold[inverse]
    return found


def out_of_fold(
    net: MultiTaskViT,
    labels: Tokens,
    replay: Tokens | None,
    plan: FitPlan,
    fold: Rows,
    prior: Mapping[Kind, Prior] = EVEN,
) -> Floats:
    """Log-odds of each label by a network that was fitted without the label's fold, (n,)."""
    out = answers(net, labels)[0]
    for k in np.unique(fold):
        held = fold == k
        if held.all():
            continue
        rest = fit(net, labels.take(~held), replay, plan, fold[~held], prior)
        out[held] = answers(rest, labels.take(held))[0]
    return out
