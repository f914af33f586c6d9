"""What is asked of one training run, and whether that can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cb2_assist.core.errors import UsageError
from cb2_assist.learning.recipe import Recipe, check_views
from cb2_assist.model.card import UNCALIBRATED, ViewSpec, check_card
from cb2_assist.model.network import NetworkSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """One training run.

    Attributes:
        datasets: Dataset files with truth; joins are learnt from all of them.
        cuts_from: Which of them also give synthetic cuts, by position.
        below_z: Training uses contacts with z below this voxel index, and the volumes are cut
            there before anything is computed.
        validation_z: Contacts in this range calibrate and choose; their volumes are cut at its
            end. Not below ``below_z`` unless an earlier run's calibration is given.
        merges: Synthetic merges for each of segments and true bodies.
        synapses: For each dataset a CSV of synapses (`pair_types.read_synapses`) or None; empty:
            none is known.
        folds: Slabs of the training part that networks of their own judge, to calibrate without a
            validation slab (`cross_fit`); 0: none.
        voxel_nm: Edges along x, y, z. The volumes are learnt from as a microscope with such voxels
            would give them (`shifts.sections`); planes stay those of the datasets. None: as they
            are.
        init_from: Folder of `pretrain` whose encoder the networks start from; None: random weights.
        calibration_from: A model whose scales, base rates and choice of distance are taken over:
            the final fit includes the validation slab and cannot be calibrated on it.
    """

    datasets: tuple[Path, ...]
    out: Path
    name: str
    below_z: int
    validation_z: tuple[int, int] | None
    cuts_from: tuple[int, ...] = (0,)
    merges: int = 500
    synapses: tuple[Path | None, ...] = ()
    folds: int = 0
    voxel_nm: tuple[float, float, float] | None = None
    calibration_from: Path | None = None
    init_from: Path | None = None
    device: str = "auto"
    minutes: float = 60.0
    recipe: Recipe = field(default_factory=Recipe)
    views: ViewSpec = field(default_factory=ViewSpec)
    network: NetworkSpec = field(default_factory=NetworkSpec)


def check_plan(plan: Plan) -> None:
    """Refuse what cannot be trained.

    Raises:
        ModelError: `Plan.calibration_from` is no model.
        UsageError: Options that make no sense, or not together.
    """
    plan.recipe.check()
    check_views(plan.views)
    if plan.synapses and len(plan.synapses) != len(plan.datasets):
        raise UsageError(
            f"Got {len(plan.synapses)} files of synapses for {len(plan.datasets)} datasets; give "
            "one for each, in their order, or none."
        )
    ways = [plan.validation_z, plan.folds, plan.calibration_from]
    if sum(bool(w) for w in ways) != 1:
        raise UsageError(
            "A model needs one calibration: give --val-z LO:HI, --cross-fit SLABS to learn from "
            "all of the training part, or --calibration-from MODEL for a final fit; "
            f"{sum(bool(w) for w in ways)} of them are given."
        )
    if plan.calibration_from:
        earlier = check_card(plan.calibration_from)
        if earlier.card.get("calibration") == UNCALIBRATED or earlier.ood is None:
            raise UsageError(
                f"The model {earlier.name} is not calibrated, so --calibration-from has nothing to "
                "take from it. Give a model that train has made."
            )
    if plan.voxel_nm and not min(plan.voxel_nm) > 0:
        got = ",".join(f"{v:g}" for v in plan.voxel_nm)
        raise UsageError(f"--voxel-nm takes three sizes X,Y,Z above 0, got {got}.")
    if plan.validation_z and plan.validation_z[0] < plan.below_z:
        raise UsageError(
            f"Validation starts at z {plan.validation_z[0]}, inside training (z below "
            f"{plan.below_z}). Choose slabs that do not overlap."
        )
