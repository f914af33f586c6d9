"""`cb2-assist finetune`: from collected labels to a model that has learnt from them.

The labels are split by segments or space: a part is held out for the figures before and after, the
rest is learnt from. The calibration is fitted on what the model says of labels in folds that it has
not learnt from: of those that the queue drew at random where there are enough, and never of those
that it chose by rank, whose share of true sites says nothing. What comes out is a
model folder as `train` makes it, whose card says what it was made from and whether it is better.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cb2_assist import __version__
from cb2_assist.core.errors import AssistError, ModelError, UsageError
from cb2_assist.core.records import Kind
from cb2_assist.learning.calibrate import fit_scale
from cb2_assist.learning.finetune_cache import label_tokens, replay_tokens
from cb2_assist.learning.finetune_card import (
    fit_words,
    labels_of,
    new_card,
    parent_of,
    replay_words,
    validation,
)
from cb2_assist.learning.finetune_fit import (
    LEVELS,
    FitPlan,
    Prior,
    check_enough,
    fit,
    folds_of,
    level_for,
    out_of_fold,
)
from cb2_assist.learning.finetune_labels import (
    Collected,
    Harvest,
    Source,
    check_readable,
    collect,
    digest,
)
from cb2_assist.learning.finetune_report import before_and_after, markdown, verdict
from cb2_assist.learning.finetune_split import Split, split_labels
from cb2_assist.learning.finetune_tokens import Tokens, answers, joined
from cb2_assist.learning.ood_fit import Embedded, fit_reference
from cb2_assist.model.checkpoint import Model, load_model, save_model
from cb2_assist.model.network import MultiTaskViT
from cb2_assist.model.ood.reference import OodReference
from cb2_assist.model.shipped import shipped_by, shipped_model
from cb2_assist.suggestions.calibration import Calibrator, calibrator_from_card

Say = Callable[[str], None]
Document = dict[str, Any]
Floats = NDArray[np.float64]

MODEL, REPORT = "model", "report"
_LEAST_SCALE = 10
"""Labels of either answer from which on a question gets a scale of its own."""
_LEAST_RANDOM = 20
"""The same of labels that were drawn at random, for a scale from those alone."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One fine-tuning.

    Attributes:
        source: Where the labels are.
        init: The model to begin with; it stays as it is. None: the shipped one that most labels
            were answers to.
        out: Folder of the run.
        replay: Base data: folders of prepared decisions (as `train` leaves them in OUT/parts), or
            dataset files with truth.
        replay_below_z: Of those dataset files only contacts below this voxel plane.
        replay_share: Of every batch.
        level: One of `finetune_fit.LEVELS`, or ``auto``.
        steps: Of the optimiser, above ``head``.
        held_out: Share of the labels.
        name: On the card; empty makes one.
        seed: Of everything random.
    """

    source: Source
    init: Path | None
    out: Path
    replay: tuple[Path, ...] = ()
    replay_below_z: int | None = None
    replay_share: float = 0.5
    level: str = "auto"
    steps: int = 150
    held_out: float = 0.25
    name: str = ""
    seed: int = 0


def run_finetune(plan: Plan, say: Say) -> Document:
    """Fine-tune, or go on with what an earlier call left in ``plan.out``.

    Returns:
        The report; ``model.folder`` in it says where the model is.

    Raises:
        UsageError: Options that do not go together.
        ModelError: The model cannot be fine-tuned, or not on these labels.
        DatasetError: There are too few labels, or base data cannot be read.
        AssistError: The folder cannot be written.
    """
    if plan.level != "auto" and plan.level not in LEVELS:
        raise UsageError(f"--fit is auto, {', '.join(LEVELS)}; got {plan.level!r}.")
    if plan.level not in ("auto", "head") and not plan.replay:
        raise UsageError(
            f"--fit {plan.level} changes what all questions share, so it needs base data: give "
            "--replay, or leave it to --fit auto."
        )
    harvest = collect(plan.source)
    model = load_model(plan.init or shipped_by(_models(harvest)) or shipped_model())
    net = model.network
    if not isinstance(net, MultiTaskViT):
        raise ModelError(
            f"{model.name} answers view by view and has no decision to fine-tune. Give --init a "
            "model that train or finetune has made."
        )
    inputs = _named(plan, model, harvest)
    done = _done(plan.out, inputs)
    if done is not None:
        say("this was done before, with the same labels and options")
        return done
    torch.set_num_threads(1)  # the same sums in the same order wherever it runs
    _make(plan.out)
    rows, labels = label_tokens(harvest, model, net, plan.out / "work", say)
    check_readable(harvest, len(rows), model.name, model.views)
    check_enough(labels)
    return _Run(plan, model, net, harvest, rows, labels, inputs, say).result()


def _models(harvest: Harvest) -> list[str]:
    """Weights behind each label, where kept."""
    kept = (row.stored for row in harvest.rows)
    return [row["model"]["sha256"] for row in kept if isinstance(row, dict) and "model" in row]


def _named(plan: Plan, model: Model, harvest: Harvest) -> str:
    options = asdict(plan) | {"source": "", "out": "", "init": model.sha256}
    text = json.dumps(options, sort_keys=True, default=str)
    return digest(harvest.rows, __version__, text)


def _done(out: Path, inputs: str) -> Document | None:
    """The report of an earlier run of the same.

    Raises:
        UsageError: There is another model already.
    """
    if not (out / MODEL).exists():
        return None
    try:
        found: Document = json.loads((out / f"{REPORT}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    if found.get("inputs") != inputs:
        raise UsageError(
            f"{out / MODEL} is there already and was made from other labels, options or model. A "
            "server may be using it: give another --out."
        )
    return found


def _make(out: Path) -> None:
    try:
        (out / "work").mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"--out names a folder, but {out} is a file.") from None
    except OSError as e:
        raise AssistError(
            f"The folder {out} cannot be made: {e.strerror or e}. Name another with --out."
        ) from e


class _Run:
    """Everything that one fine-tuning knows."""

    def __init__(
        self,
        plan: Plan,
        model: Model,
        net: MultiTaskViT,
        harvest: Harvest,
        rows: list[Collected],
        labels: Tokens,
        inputs: str,
        say: Say,
    ) -> None:
        self.plan, self.model, self.net, self.harvest = plan, model, net, harvest
        self.rows, self.labels, self.inputs, self.say = rows, labels, inputs, say
        self.split = _split(rows, labels, plan)
        self.learnt = labels.take(self.split.learnt)
        self.chosen = np.array([r.chosen for r in rows])[self.split.learnt]
        check_enough(self.learnt)
        self.base, self.base_held, self.base_group = self._base()
        replay = self.base
        level = level_for(self.learnt, replay) if plan.level == "auto" else plan.level
        if level == "head":
            replay = None
        share = plan.replay_share if replay else 0.0
        self.fit_plan = FitPlan(level, share, plan.steps, seed=plan.seed)
        self.replay = replay

    def result(self) -> Document:
        """Fit, measure, and write model and report."""
        group = self.split.group[self.split.learnt]
        fold = folds_of(group, self.learnt.answer, self.plan.seed)
        self.say(
            f"{len(self.learnt)} labels to learn from, {int(self.split.held.sum())} held out by "
            f"{self.split.by}; fitting {self.fit_plan.level}"
        )
        prior = self._prior()
        given = (self.learnt, self.replay, self.fit_plan, fold, prior)
        net = _as_stored(fit(self.net, *given))
        outside = out_of_fold(self.net, *given)
        scales, told = self._scales(outside, group)
        card = new_card(self.plan.name, self.model, self.rows, self.fit_plan, scales, told)
        document = self._report(net, calibrator_from_card(card), told)
        card["finetune"] = {k: v for k, v in document.items() if k not in ("model", "inputs")}
        card["validation"] = validation(document["held_out"])
        ood, card["ood"] = self._ood(net)
        self._write(net, ood, card, document)
        return document

    # -- base data

    def _base(self) -> tuple[Tokens | None, Tokens | None, NDArray[np.int64]]:
        """Base data to replay, a part that is held out, and the held-out part's groups."""
        plan = self.plan
        if not plan.replay:
            return None, None, np.zeros(0, np.int64)
        tokens, group = replay_tokens(
            plan.replay, plan.replay_below_z, self.model, self.net, plan.out / "work",
            seed=plan.seed, say=self.say,
        )  # fmt: skip
        held = folds_of(group, tokens.answer, plan.seed) == 0
        return tokens.take(~held), tokens.take(held), group[held]

    # -- calibration

    def _prior(self) -> dict[Kind, Prior]:
        """What the labels say of the share of true sites, and the model's own scale."""
        scales = calibrator_from_card(self.model.card).scales
        out = {}
        for index, kind in enumerate(Kind):
            mine = (self.learnt.task == index) & ~self.chosen
            yes = int(self.learnt.answer[mine].sum())
            # half a label of either answer keeps it off 0 and 1; of none it is one half
            shift = np.log((yes + 0.5) / (int(mine.sum()) - yes + 0.5))
            scale = scales[kind]
            out[kind] = Prior(scale.temperature, scale.bias, float(shift))
        return out

    def _scales(self, outside: Floats, group: NDArray[np.int64]) -> tuple[Document, Document]:
        """The card's ``calibration``, and where each question's is from, in words."""
        rows = [r for r, own in zip(self.rows, self.split.learnt, strict=True) if own]
        drawn = np.array([r.explore for r in rows])
        scales, told = {}, {}
        for index, kind in enumerate(Kind):
            mine = self.learnt.task == index
            for some, words, least in (
                (mine & drawn, "labels that were drawn at random", _LEAST_RANDOM),
                (mine & ~self.chosen, "labels that no rank has chosen", _LEAST_SCALE),
            ):
                yes = self.learnt.answer[some]
                if min(yes.sum(), (~yes).sum()) >= least:
                    # of the dataset itself, so without what places differ by (`elsewhere`)
                    scales[kind.value] = fit_scale(outside[some], yes, group[some])
                    told[kind.value] = (
                        f"fitted on {len(yes)} {words} ({int(yes.sum())} accepted), each as the "
                        "model answers that has not learnt from its fold"
                    )
                    break
            else:
                scales[kind.value] = self.model.card["calibration"][kind.value]
                told[kind.value] = (
                    f"that of {self.model.name}: fewer than {_LEAST_SCALE} labels of one answer "
                    "that no rank has chosen"
                )
        return scales, told

    # -- what lies where

    def _ood(self, net: MultiTaskViT) -> tuple[OodReference, Document]:
        parent = self.model.ood
        assert parent is not None  # of all that is no Cb2ViT
        if self.fit_plan.level == "head":
            about = {k: v for k, v in self.model.card["ood"].items() if k != "default"}
            return parent, about | {
                "kept": f"that of {self.model.name}: fitting heads moves no decision"
            }
        held = self.labels.take(self.split.held)
        inside = [(self.learnt, self.split.group[self.split.learnt])]
        outside = [(held, self.split.group[self.split.held])]
        if self.base is not None and self.base_held is not None:
            inside.append((self.base, np.arange(len(self.base))))
            outside.append((self.base_held, self.base_group))
        seen = parent.reads_appearance
        inner, outer = (_embedded(net, parts, seen=seen) for parts in (inside, outside))
        found = fit_reference(inner, outer, seed=self.plan.seed)
        return replace(found, default=parent.default), {
            "n_training": sum(len(t) for t, _ in inside),
            "n_validation": sum(len(t) for t, _ in outside),
            "percentiles_from": "held-out labels and base data",
            "chosen": f"as {self.model.name}",
        }

    # -- card and report

    def _report(self, net: MultiTaskViT, calibrator: Calibrator, told: Document) -> Document:
        old = calibrator_from_card(self.model.card)

        def compared(tokens: Tokens | None, group: NDArray[np.int64]) -> Document:
            if tokens is None or not len(tokens):
                return {}
            scored = [_scores(n, c, tokens) for n, c in ((self.net, old), (net, calibrator))]
            return before_and_after(tokens.task, tokens.answer, group, scored[0], scored[1])

        held = compared(self.labels.take(self.split.held), self.split.group[self.split.held])
        base = compared(self.base_held, self.base_group)
        what, why = verdict(held, base)
        return {
            "inputs": self.inputs,
            "model": {"name": "", "sha256": "", "folder": str(self.plan.out / MODEL)},
            "parent": parent_of(self.model),
            "labels": labels_of(self.rows, self.labels, self.split, self.harvest),
            "fit": {
                **asdict(self.fit_plan),
                "words": fit_words(self.fit_plan.level, self.learnt),
                "replay": replay_words(self.base, self.replay, self.fit_plan.replay_share),
            },
            "held_out": held,
            "base": base,
            "calibration": told,
            "verdict": {"is": what, "why": why},
        }

    def _write(
        self, net: MultiTaskViT, ood: OodReference, card: Document, document: Document
    ) -> None:
        out = self.plan.out
        made, temporary = out / MODEL, out / "model.part"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            whole = save_model(temporary, net, self.model.views, ood, card)
            document["model"]["name"] = whole["name"]
            document["model"]["sha256"] = whole["weights"]["sha256"]
            text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
            (out / f"{REPORT}.md").write_text(markdown(document), encoding="utf-8")
            (out / f"{REPORT}.json").write_text(text + "\n", encoding="utf-8")
            # last of all: where there is a model, there is a report
            temporary.replace(made)
        except OSError as e:
            raise AssistError(
                f"The model cannot be written to {out}: {e.strerror or e}. Free some space, and "
                "run the same command again."
            ) from e


def _split(rows: Sequence[Collected], labels: Tokens, plan: Plan) -> Split:
    return split_labels(
        np.array([r.names for r in rows]),
        np.array([r.point_nm for r in rows], np.float64),
        labels.answer,
        plan.held_out,
        plan.seed,
    )


def _as_stored(net: MultiTaskViT) -> MultiTaskViT:
    """With the weights that a model folder keeps: what is measured is what is used."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.half().float())
    return net


def _scores(net: MultiTaskViT, calibrator: Calibrator, tokens: Tokens) -> Floats:
    kinds = list(Kind)
    logits = answers(net, tokens)[0]
    return np.array(
        [calibrator.score(kinds[t], v) for t, v in zip(tokens.task, logits, strict=True)]
    )


def _embedded(
    net: MultiTaskViT, parts: Sequence[tuple[Tokens, NDArray[np.int64]]], *, seen: bool
) -> Embedded:
    tokens = joined([t for t, _ in parts])
    apart = np.cumsum([0, *(int(g.max(initial=0)) + 1 for _, g in parts)])
    group = np.concatenate([g + start for (_, g), start in zip(parts, apart, strict=False)])
    return Embedded(
        answers(net, tokens)[1],
        tokens.task,
        tokens.answer,
        group,
        tokens.seen if seen else None,
    )
