"""What decides how a training run goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cb2_assist.core.channels import VIEW_SIZE_PX
from cb2_assist.core.errors import UsageError
from cb2_assist.model.card import ViewSpec

AMP = ("off", "bf16")
TURNS = ("all", "sections", "none")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides how a run goes; part of the card."""

    seed: int = 0
    epochs: int = 10
    batch: int = 32
    """Decisions of a step, of all processes together."""
    lr: float = 5e-4
    lr_heads: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    """Share of all steps."""
    smoothing: float = 0.05
    teacher: float = 0.5
    """Share of the target that is a second opinion (`teacher`) instead of the answer."""
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
    turns: str = "all"
    """Which images may also be turned by 90 degrees: ``all``, only those that look along z
    (``sections``, for volumes whose sections are thick), or ``none``. All may be mirrored."""
    micro_batch: int = 0
    """Decisions of one forward pass; gradients of a step add up. 0: all at once."""
    layer_decay: float = 1.0
    """Learning rate of each encoder block over that of the block after it."""
    amp: str = "off"
    """``bf16`` runs the network in bfloat16 where that is safe; weights stay float32."""
    init_from: str = ""
    """SHA-256 of the pretrained encoder that the run starts from; empty: random weights."""
    quotas: Mapping[str, float] = field(default_factory=dict)
    """Least share of a sample type in the weight of its task's negatives; see `quota_weights`."""

    def check(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            UsageError: A value makes no sense; the message says which.
        """
        if self.amp not in AMP:
            raise UsageError(f"amp is {' or '.join(AMP)}, got {self.amp!r}.")
        if self.turns not in TURNS:
            raise UsageError(f"turns is one of {', '.join(TURNS)}, got {self.turns!r}.")
        if self.batch < 1 or self.micro_batch < 0 or self.epochs < 1:
            raise UsageError(
                f"batch {self.batch}, micro_batch {self.micro_batch} and epochs {self.epochs} "
                "cannot be; batch and epochs are at least 1, micro_batch at least 0."
            )
        if not (self.lr > 0 and self.lr_heads > 0 and 0 < self.layer_decay <= 1):
            raise UsageError(
                f"Learning rates must be above 0 and layer_decay in 0..1, got {self.lr:g}, "
                f"{self.lr_heads:g} and {self.layer_decay:g}."
            )
        if not 0 <= self.teacher <= 1:
            raise UsageError(f"teacher is a share of the target, 0..1, got {self.teacher:g}.")
        total = sum(self.quotas.values())
        if min(self.quotas.values(), default=0.0) < 0 or total >= 1:
            raise UsageError(
                f"Quotas are shares of the negatives' weight: none below 0, less than 1 together; "
                f"got {dict(self.quotas)}."
            )


def check_views(views: ViewSpec) -> None:
    """Refuse image sizes that views cannot be made at.

    Raises:
        UsageError: The message says which would do.
    """
    try:
        views.check()
    except ValueError as e:
        raise UsageError(
            f"Images of {views.image_px} px cannot be made from views of {VIEW_SIZE_PX} px: "
            f"--px must divide {VIEW_SIZE_PX}, e.g. 56, 112 or 224."
        ) from e


def steps_of(decisions: int, recipe: Recipe) -> tuple[int, int]:
    """Steps of one epoch and of the whole run."""
    per_epoch = -(-decisions // recipe.batch)
    return per_epoch, per_epoch * recipe.epochs


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """For the card and the checkpoint."""
    return {k: getattr(recipe, k) for k in recipe.__slots__} | {"quotas": dict(recipe.quotas)}
