"""`cb2-assist train`: from datasets with truth to a model folder with a card."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cb2_assist import __version__
from cb2_assist.core.records import Kind
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning.calibrate import fit_scale
from cb2_assist.learning.cross_fit import (
    GUARD_VX,
    Fold,
    Held,
    Slab,
    embedded,
    joined,
    judge_fold,
    judged,
    reference_across,
    slabs,
)
from cb2_assist.learning.distributed import Team, team
from cb2_assist.learning.elsewhere import elsewhere, places
from cb2_assist.learning.examples import Volume, pure_bodies
from cb2_assist.learning.licences import licence_note
from cb2_assist.learning.metrics import figures
from cb2_assist.learning.ood_chimera import chimeras
from cb2_assist.learning.ood_fit import choose, fit_reference
from cb2_assist.learning.pair_types import Synapses, read_synapses
from cb2_assist.learning.prepare import (
    Part,
    grey_statistics,
    load_volume,
    open_part,
    prepare,
    volume_examples,
)
from cb2_assist.learning.proposed_rates import proposed_rates
from cb2_assist.learning.recipe import Recipe, recipe_json
from cb2_assist.learning.shifts import sections
from cb2_assist.learning.train import Examples
from cb2_assist.learning.trainer import Say, Trainer
from cb2_assist.learning.training_plan import Plan, check_plan
from cb2_assist.learning.watch import line, validate, validation_figures
from cb2_assist.model.card import check_card
from cb2_assist.model.checkpoint import MAX_BYTES, save_model
from cb2_assist.model.network import MultiTaskViT
from cb2_assist.model.ood.reference import OodReference
from cb2_assist.model.predictor import choose_device
from cb2_assist.model.start import Start, read_start

_THICK = 1.5
"""Sections this many times thicker than pixels look different when seen from the side."""
_OOD_SAMPLE = 1000
"""Training decisions of each part behind the out-of-distribution reference."""
_CHIMERAS = 300
"""Held-out decisions of each part of which chimeras are made."""


def run_training(plan: Plan, say: Say) -> Path | None:
    """Train, or go on with what an earlier call left in ``plan.out``.

    Started by torchrun, its processes train one network together.

    Returns:
        The model folder, or None when the time was up before the last epoch. Only the lead process
        makes it; the others return None.

    Raises:
        DatasetError: A dataset cannot be read, or has no truth.
        ModelError: The encoder cannot be used, or what it is to start from does not fit it.
        UsageError: The slabs overlap, or the recipe makes no sense.
    """
    check_plan(plan)
    start = None if plan.init_from is None else read_start(plan.init_from)
    if start is not None:
        start.check(plan.network)
        plan = replace(plan, recipe=replace(plan.recipe, init_from=start.sha256))
    with team(choose_device(plan.device)) as us:
        return _train_together(plan, start, us, say)


def _train_together(plan: Plan, start: Start | None, us: Team, say: Say) -> Path | None:
    volumes, sources = _volumes(plan)
    note = licence_note([*sources, *([] if start is None else start.card["data"])])
    if note and us.lead:
        say(note)
    if any(max(e) > _THICK * min(e) for e in (plan.voxel_nm or v.resolution for v in volumes)):
        plan = replace(plan, recipe=_flat_turns(plan.recipe))
    # the lead renders what is missing; the others open what it made
    if not us.lead:
        us.wait()
    training = _parts(plan, volumes, "train", (0, plan.below_z), plan.below_z, say)
    validation: list[Part] = []
    if plan.validation_z:
        low, high = plan.validation_z
        validation = _parts(plan, volumes, "validation", (low, high), high, say)
    if us.lead:
        us.wait()
    started = time.monotonic()
    folds: list[Fold] = []
    for k, slab in enumerate(slabs(training, plan.folds) if plan.folds else ()):
        left = plan.minutes - (time.monotonic() - started) / 60
        fold = _fold(plan, k, slab, training, start, us, left, say)
        if fold is None:
            return None
        folds.append(fold)
    data = Examples(training, plan.recipe.quotas)
    trainer = Trainer(plan.out, plan.network, plan.recipe, us, say)
    _begin(trainer, data, start)

    def watch(net: MultiTaskViT, epoch: int) -> dict[str, Any]:
        found = validate(net, validation)
        for name, figures_ in found.items():
            say(f"epoch {epoch} {line(name, figures_)}")
        return found

    left = plan.minutes - (time.monotonic() - started) / 60
    done = trainer.run(data, minutes=left, validate=watch)
    if not us.lead:
        return None
    if not done:
        say(f"time is up at step {trainer.step}; the same command goes on from here")
        return None
    return _finish(plan, trainer, training, validation, folds, volumes, sources, start, say)


def _fold(
    plan: Plan,
    k: int,
    slab: Slab,
    training: Sequence[Part],
    start: Start | None,
    us: Team,
    minutes: float,
    say: Say,
) -> Fold | None:
    """Train without a slab and judge it; None when the time is up, or another process leads."""
    folder = plan.out / f"without-slab-{k + 1}"
    folder.mkdir(exist_ok=True)
    name = f"slab {k + 1} of {plan.folds}"
    trainer = Trainer(folder, plan.network, plan.recipe, us, lambda text: say(f"{name}: {text}"))
    rows = [slab.learnt(p) for p in training]
    data = Examples(training, plan.recipe.quotas, rows)
    _begin(trainer, data, start)
    if not trainer.run(data, minutes=minutes):
        say(f"{name}: time is up at step {trainer.step}; the same command goes on from here")
        return None
    return judge_fold(
        trainer.averaged(),
        slab,
        training,
        sample=_OOD_SAMPLE,
        mixed=_CHIMERAS,
        seed=plan.recipe.seed,
    )


def _begin(trainer: Trainer, data: Examples, start: Start | None) -> None:
    """Go on with a run, or begin it from random weights or a pretrained encoder."""
    if not trainer.resume():
        if start is not None:
            trainer.start_from(start)
        trainer.fit_scale(data)
    trainer.fit_graph(data)
    trainer.fit_teacher(data)


def _flat_turns(recipe: Recipe) -> Recipe:
    """No turned image mixes thick sections with the plane that they cut."""
    return replace(recipe, turns="sections") if recipe.turns == "all" else recipe


def _volumes(plan: Plan) -> tuple[list[Volume], list[dict[str, str]]]:
    volumes, sources = [], []
    for path in plan.datasets:
        source = open_dataset_file(path)
        info = source.info
        volumes.append(load_volume(source))
        sources.append(asdict(info))
        source.close()
    return volumes, sources


def _parts(
    plan: Plan,
    volumes: Sequence[Volume],
    what: str,
    z_range: tuple[int, int],
    plane: int,
    say: Say,
) -> list[Part]:
    out = []
    for k, whole in enumerate(volumes):
        volume = _as_seen(whole.below_z(plane), plan.voxel_nm)
        planes = whole.resolution.z / volume.resolution.z
        for kind in Kind:
            if kind is Kind.CUT and k not in plan.cuts_from:
                continue
            name = f"{whole.name}-{kind.value}-{what}"
            folder = plan.out / "parts" / name
            seen = {k: v for k, v in asdict(plan.views).items() if v is not None}
            asked = {"z": list(z_range), "plane": plane, **seen}
            if kind is Kind.CUT:
                asked |= {"seed": plan.recipe.seed, "merges": plan.merges}
            synapses = _synapses(plan, k)
            if synapses is not None:
                asked["synapses"] = len(synapses.pre)
            if plan.voxel_nm:
                asked["voxel_nm"] = list(plan.voxel_nm)
            if not (folder / "part.json").is_file():
                prepare(
                    volume_examples(
                        volume,
                        plan.views,
                        kinds=(kind,),
                        z_range=(math.ceil(z_range[0] * planes), math.ceil(z_range[1] * planes)),
                        seed=plan.recipe.seed,
                        merges=plan.merges if what == "train" else plan.merges // 2,
                        synapses=synapses,
                    ),
                    folder,
                    name,
                    plan.views,
                    grey_statistics(volume),
                    say=say,
                    bodies=pure_bodies(volume),
                    asked=asked,
                )
            part = open_part(folder, asked)
            if plan.voxel_nm:
                part = replace(part, z=((part.z + 0.5) / planes).astype(np.int64))
            out.append(part)
    return out


def _as_seen(volume: Volume, voxel_nm: tuple[float, float, float] | None) -> Volume:
    return sections(volume, voxel_nm=voxel_nm) if voxel_nm else volume


def _synapses(plan: Plan, dataset: int) -> Synapses | None:
    path = plan.synapses[dataset] if plan.synapses else None
    return None if path is None else read_synapses(path)


def _finish(
    plan: Plan,
    trainer: Trainer,
    training: Sequence[Part],
    validation: Sequence[Part],
    folds: Sequence[Fold],
    volumes: Sequence[Volume],
    sources: Sequence[dict[str, str]],
    start: Start | None,
    say: Say,
) -> Path:
    network = trainer.averaged()
    card: dict[str, Any] = {
        "name": plan.name,
        "made_by": f"cb2-assist {__version__}, torch {torch.__version__}, {platform.machine()}",
        "data": list(sources),
        "split": {
            "train_below_z_vx": plan.below_z,
            "validation_z_vx": plan.validation_z,
            "voxel_nm": plan.voxel_nm,
            "examples": {
                p.name: {
                    "n": len(p),
                    "positive": int(p.answer.sum()),
                    "types": _types(p),
                }
                for p in (*training, *validation)
            },
        },
        "recipe": recipe_json(plan.recipe),
        "seed": plan.recipe.seed,
        "limits": (
            "Joins are learnt from touching pairs of automatic segmentations. Cuts are learnt from "
            "synthetic merges of touching neighbours, since real ones are too few. The synapse "
            "head is not trained."
        ),
    }
    if start is not None:
        # whole, with every licence: the weights are made from that data, too
        card["pretraining"] = start.card
    if plan.calibration_from:
        earlier = check_card(plan.calibration_from)
        for key in ("calibration", "base_rates", "validation"):
            card[key] = earlier.card[key]
        card["calibrated_on"] = f"{earlier.name}, the same recipe on less data"
    else:
        _calibrate(card, joined([f.held for f in folds]) if folds else judged(network, validation))
        seen = (_as_seen(volumes[k].below_z(plan.below_z), plan.voxel_nm) for k in plan.cuts_from)
        rates, n = proposed_rates(seen, plan.views.extent_nm, plan.recipe.seed)
        say(f"base rates {rates} from {n}")
        card["base_rates"] = rates
    if folds:
        card["split"]["cross_fit"] = {"slabs": plan.folds, "guard_vx": GUARD_VX}
        card["calibrated_on"] = (
            f"training decisions, each by a network of the same recipe without its slab of "
            f"{plan.folds}"
        )
    ood, card["ood"] = _reference(plan, network, training, validation, folds)
    folder = plan.out / "model"
    whole = save_model(folder, network, plan.views, ood, card)
    size = whole["weights"]["bytes"]
    note = "" if size <= MAX_BYTES else f", more than the {MAX_BYTES} that the repository ships"
    say(f"model of {size} bytes in {folder}{note}")
    return folder


def _reference(
    plan: Plan,
    network: MultiTaskViT,
    training: Sequence[Part],
    validation: Sequence[Part],
    folds: Sequence[Fold],
) -> tuple[OodReference, dict[str, Any]]:
    """Where training lies, and how that was found, for the card."""
    seed = plan.recipe.seed
    inside = embedded(network, [_some(p, _OOD_SAMPLE, seed) for p in training])
    if folds:
        return reference_across(inside, folds, seed=seed)
    about: dict[str, Any] = {"n_training": len(inside)}
    if plan.calibration_from:
        earlier = check_card(plan.calibration_from)
        reference = fit_reference(inside, seed=seed)
        wanted = earlier.ood.default if earlier.ood is not None else reference.default
        about["percentiles_from"] = "training decisions of other bodies: too near, if anything"
        about["chosen"] = f"as {earlier.name}"
        return replace(reference, default=wanted), about
    held = embedded(network, validation)
    reference = fit_reference(inside, held, seed=seed)
    strange = [chimeras(_some(p, _CHIMERAS, seed), seed=seed) for p in validation]
    reference, found = choose(reference, held, embedded(network, strange))
    about |= {
        "percentiles_from": "validation decisions",
        "n_validation": len(held),
        "chosen": "greatest AUROC of chimeras of validation decisions against these, mean over "
        "questions",
        "auroc": {k: round(v, 4) for k, v in found.items()},
    }
    return reference, about


def _calibrate(card: dict[str, Any], held: Held) -> None:
    """Put scales and the figures of unseen decisions on the card."""
    card["calibration"], card["validation"] = {}, {}
    for index, kind in enumerate(Kind):
        rows = held.task == index
        answer, group, types = (x[rows] for x in (held.answer, held.group, held.sample_type))
        scale = fit_scale(held.logits["all"][rows], answer, group)
        place = places(held.source[rows], held.point_nm[rows], answer)
        scale["elsewhere"] = elsewhere(held.logits["all"][rows], answer, place, scale)
        card["calibration"][kind.value] = scale
        for mode, logits in held.logits.items():
            values = logits[rows]
            measured = figures(answer, _sigmoid(values), group)
            card["validation"][f"{kind.value} {mode}"] = {
                "n": len(answer),
                **{k: str(v) for k, v in measured.items()},
            }
            if mode == "all":
                # before the scale above is fitted: what the curves of the run show, too
                both = validation_figures(answer, values, types)
                card["validation"][f"{kind.value} {mode}"] |= {
                    "natural_prior": {k: both[k] for k in ("ece15", "brier", "nll")},
                    "equal_priors": {k: both[f"{k}_equal"] for k in ("ece15", "brier", "nll")},
                    "by_type": both["by_type"],
                }


def _types(part: Part) -> dict[str, int]:
    names, count = np.unique(part.sample_type, return_counts=True)
    return dict(zip(names.tolist(), count.tolist(), strict=True))


def _some(part: Part, most: int, seed: int) -> Part:
    """A random part of a part, in its order."""
    if len(part) <= most:
        return part
    return part.take(np.sort(np.random.default_rng(seed).choice(len(part), most, replace=False)))


def _sigmoid(v: NDArray[np.float64]) -> NDArray[np.float64]:
    p: NDArray[np.float64] = 1 / (1 + np.exp(-v))
    return p
