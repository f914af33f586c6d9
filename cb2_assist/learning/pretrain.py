"""`cb2-assist pretrain`: from datasets without truth to an encoder that `train` starts from."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cb2_assist import __version__
from cb2_assist.core.errors import DatasetError, UsageError
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning.licences import licence_note
from cb2_assist.learning.pretrain_sites import (
    GUARD_NM,
    HELD_OUT,
    Places,
    Sites,
    drawn,
    places_of,
    render_sites,
    unlabelled_volume,
)
from cb2_assist.learning.pretrain_trainer import Pretrainer, PretrainRecipe
from cb2_assist.learning.recipe import check_views
from cb2_assist.model.card import ViewSpec
from cb2_assist.model.masked import MaskedSpec
from cb2_assist.model.predictor import choose_device
from cb2_assist.model.start import save_start


@dataclass(frozen=True, slots=True)
class PretrainPlan:
    """One pretraining run.

    Attributes:
        datasets: Dataset files; their truth is not read.
        below_z: Nothing at or beyond this voxel plane is read; None: everything is.
        sites: Most sites of all datasets together.
    """

    datasets: tuple[Path, ...]
    out: Path
    below_z: int | None = None
    sites: int = 20_000
    device: str = "auto"
    minutes: float = 600.0
    recipe: PretrainRecipe = field(default_factory=PretrainRecipe)
    views: ViewSpec = field(default_factory=ViewSpec)
    network: MaskedSpec = field(default_factory=MaskedSpec)


def run_pretraining(plan: PretrainPlan, say: Callable[[str], None]) -> Path | None:
    """Pretrain, or go on with what an earlier call left in ``plan.out``.

    Returns:
        The folder for ``train --init-from``, or None when the time was up before the last epoch.

    Raises:
        DatasetError: A dataset cannot be read, or no two segments touch.
        ModelError: The encoder cannot be used, or the folder holds another run.
        UsageError: The recipe makes no sense.
    """
    plan.recipe.check()
    check_views(plan.views)
    device = torch.device(choose_device(plan.device))
    places, sources = _places(plan, say)
    parts = _rendered(plan, places, sources, say)
    trainer = Pretrainer(plan.out, plan.network, plan.recipe, parts, device, say)
    trainer.resume()
    if not trainer.run(minutes=plan.minutes):
        say(f"time is up at step {trainer.step}; the same command goes on from here")
        return None
    card = _card(plan, trainer, parts, sources)
    whole = save_start(plan.out, trainer.net, card)
    say(f"encoder of {whole['weights']['bytes']} bytes in {plan.out}; {_told(card['held_out'])}")
    return plan.out


def _places(
    plan: PretrainPlan, say: Callable[[str], None]
) -> tuple[list[Places], list[dict[str, Any]]]:
    places, sources = [], []
    for path in plan.datasets:
        source = open_dataset_file(path)
        try:
            info = source.info
            places.append(places_of(unlabelled_volume(source, plan.below_z)))
        finally:
            source.close()
        sources.append(asdict(info))
    twice = [n for n, k in Counter(s["name"] for s in sources).items() if k > 1]
    if twice:
        raise UsageError(
            f"Several datasets are called {twice[0]}. Give each --dataset-file once, or change the "
            "name in one dataset.toml."
        )
    note = licence_note(sources)
    if note:
        say(note)
    found = drawn(places, plan.sites, plan.recipe.seed)
    if not sum(int((~p.held_out).sum()) for p in found):
        raise DatasetError(
            f"No two segments touch in {', '.join(s['name'] for s in sources)}, so there is "
            "nothing to learn from. Give other datasets, more --sites, or a greater --below-z."
        )
    return found, sources


def _rendered(
    plan: PretrainPlan,
    places: Sequence[Places],
    sources: Sequence[dict[str, Any]],
    say: Callable[[str], None],
) -> list[Sites]:
    out = []
    for place, source in zip(places, sources, strict=True):
        asked = {
            "version": source["version"],
            "below_z": plan.below_z,
            "sites": len(place.pairs),
            "of": plan.sites,
            "seed": plan.recipe.seed,
            **{k: v for k, v in asdict(plan.views).items() if v is not None},
        }
        out.append(render_sites(place, plan.out / "parts" / source["name"], plan.views, asked, say))
    return out


def _card(
    plan: PretrainPlan,
    trainer: Pretrainer,
    parts: Sequence[Sites],
    sources: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "made_by": f"cb2-assist {__version__}, torch {torch.__version__}, {platform.machine()}",
        "how": "masked modelling of geometry and EM views; no truth was read",
        "network": asdict(plan.network),
        "views": asdict(plan.views),
        "data": [
            {
                **source,
                "sites": int((~part.held_out).sum()),
                "sites_held_out": int(part.held_out.sum()),
            }
            for source, part in zip(sources, parts, strict=True)
        ],
        "below_z_vx": plan.below_z,
        "recipe": asdict(plan.recipe),
        "seed": plan.recipe.seed,
        "steps": trainer.step,
        "held_out_part": (
            f"sites in the last {HELD_OUT:.0%} of each volume's longest side; those within "
            f"{GUARD_NM:g} nm of it are not used"
        ),
        "held_out": trainer.judged(),
    }


def _told(held_out: dict[str, Any]) -> str:
    if not held_out:
        return "no site is held out"
    mine, cheap = (held_out[k]["loss"] for k in ("network", "mean_of_shown"))
    left = held_out["share_left"]
    low, high = left["ci95"]
    return (
        f"loss on {held_out['n']} held-out sites {mine:.3f}, of the mean of what is shown "
        f"{cheap:.3f}: {left['value']:.3f} [{low:.3f}, {high:.3f}] of it is left"
    )
