"""Model cards: what is known of a model before its network is built. No torch here.

A server can answer its first request while torch is still being imported, so everything that a
card alone decides, and every check that needs no tensor, lies here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cb2_assist.core.channels import VIEW_SIZE_PX
from cb2_assist.core.errors import AssistError, ModelError
from cb2_assist.core.records import Kind
from cb2_assist.model.ood.reference import PREFIX, OodReference, from_tensors, of_one_gaussian
from cb2_assist.views.encode import check_profile
from cb2_assist.views.features import FEATURE_NAMES
from cb2_assist.views.surroundings import CONTACT_NAMES, MEASURED_NAMES

CARD, WEIGHTS = "card.json", "weights.safetensors"
FORMAT = 2
"""Of the cards that are written."""
FORMATS = (1, FORMAT)
"""That are read. Format 1 knows one Gaussian of all training decisions (`_read_ood`)."""
CB2_ARCHITECTURE = "connectomebench2"
"""On a card's ``network`` of a `cb2_network.Cb2ViT`; others are `network.MultiTaskViT`."""
UNCALIBRATED = "uncalibrated"
"""On a card's ``calibration``: the network's numbers are shown as they are, and marked."""
OOD_UNKNOWN = "unknown"
"""On a card's ``ood``: there is no reference that says what the training decisions looked like."""
CB2_SITE_NM = 640.0
"""See `ViewSpec.site_nm`; the window of the shipped model."""


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """How a model wants its views; part of the card."""

    profile: str = "clean"
    extent_nm: float = 640.0
    """Half width of the site window and of every view."""
    image_px: int = 112
    """The network reads views at this size; they are kept at 224."""
    em_oblique: bool = False
    """Whether joins also get the best tilted EM plane (`views.oblique`): kept with the label and
    exported; of the networks, only imported ones of ConnectomeBench2 read it."""
    em_extent_nm: float | None = None
    """Half width of the EM planes; None: as wide as the others."""

    @property
    def em_nm(self) -> float:
        """Half width of the EM planes."""
        return self.extent_nm if self.em_extent_nm is None else self.em_extent_nm

    @property
    def reach_nm(self) -> float:
        """Half width of the widest view."""
        return max(self.extent_nm, self.em_nm)

    @property
    def site_nm(self) -> float:
        """Half width of the window in which sides are told apart and features are measured.

        ``clean`` views show that window. Those of ``cb2`` reach micrometres, in which telling
        sides apart would take minutes and means nothing to its networks.
        """
        return self.reach_nm if self.profile == "clean" else min(self.extent_nm, CB2_SITE_NM)

    def check(self) -> None:
        """Refuse views that cannot be made.

        Raises:
            BadRequestError: The profile does not exist.
            ValueError: A size cannot be rendered.
        """
        check_profile(self.profile)
        wide = all(0 < w < math.inf for w in (self.extent_nm, self.em_nm))
        sizes_fit = wide and not VIEW_SIZE_PX % self.image_px
        if not sizes_fit or not isinstance(self.em_oblique, bool):
            raise ValueError(f"views {asdict(self)} cannot be made")


@dataclass(frozen=True, slots=True)
class CheckedCard:
    """A card whose weights file is the one that it names."""

    folder: Path
    card: dict[str, Any]
    sha256: str
    """Of the weights file."""
    views: ViewSpec
    ood: OodReference | None
    """None: nothing is known of what the training decisions looked like."""
    by_species: dict[str, ViewSpec]

    @property
    def name(self) -> str:
        """As on the card."""
        return str(self.card["name"])

    def percentile(self, kind: Kind, distance: float) -> float:
        """`OodReference.percentile`; 100 where there is no reference."""
        return 100.0 if self.ood is None else self.ood.percentile(kind, distance)

    @property
    def reads_neighbours(self) -> bool:
        """See `reads_neighbours`."""
        return reads_neighbours(self.card)

    @property
    def reads_passage(self) -> bool:
        """See `reads_passage`."""
        return reads_passage(self.card)

    def views_for(self, species: str) -> ViewSpec:
        """How the model wants its views on a dataset of this species."""
        return self.by_species.get(species, self.views)


def read_card(folder: Path) -> dict[str, Any]:
    """The card alone, without torch tensors.

    Raises:
        ModelError: There is no readable card.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ModelError(
            f"There is no model at {folder} ({CARD}: {e.strerror}). Give --model a folder that "
            f"holds {CARD} and {WEIGHTS}."
        ) from e
    except ValueError as e:
        raise ModelError(f"{path} is not JSON: {e}. Restore the card or train again.") from e
    if not isinstance(card, dict) or card.get("format") not in FORMATS:
        got = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise ModelError(
            f"{path} has format {got!r}; this version reads formats "
            f"{' and '.join(map(str, FORMATS))}. "
            "Update cb2-assist, or train again."
        )
    return card


def reads_neighbours(card: dict[str, Any]) -> bool:
    """Whether a model has a graph token, so that `views.surroundings` must be measured for it."""
    return bool(card["network"].get("contact_measures", 0))


def reads_passage(card: dict[str, Any]) -> bool:
    """Whether `views.passage` must be measured for a model's cuts."""
    return tuple(card.get("features", ())) == MEASURED_NAMES


def check_card(folder: Path) -> CheckedCard:
    """Read a card and check that weights, features and views fit it and this version.

    Raises:
        ModelError: They do not; the message says which part.
    """
    card = read_card(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{folder} has a card but no {WEIGHTS}. Copy the weights beside it.")
    sha = sha256_of(path)
    try:
        str(card["name"])
        dict(card["network"])
        wanted = card["weights"]["sha256"]
        views = ViewSpec(**card["views"])
        by_species = {k: ViewSpec(**v) for k, v in card.get("views_by_species", {}).items()}
        for given in (views, *by_species.values()):
            given.check()
        features = tuple(card["features"])
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, AssistError) as e:
        raise ModelError(
            f"The card {folder / CARD} lacks or misnames something: {e}. "
            "Restore the card or train again."
        ) from e
    if sha != wanted:
        raise ModelError(
            f"The weights in {path} are not the ones of the card beside them: SHA-256 {sha[:12]}…, "
            f"the card says {str(wanted)[:12]}…. One of the two was replaced; copy both together."
        )
    contact = tuple(card.get("contact", ()))
    if reads_neighbours(card) and contact != CONTACT_NAMES:
        raise ModelError(
            f"The model {card.get('name')!r} wants {len(contact)} measures of each contact that "
            f"this version does not compute alike (it has {len(CONTACT_NAMES)}). Use the version "
            "that made it, or train again."
        )
    reads_only_views = card["network"].get("architecture") == CB2_ARCHITECTURE
    if features not in ([()] if reads_only_views else [FEATURE_NAMES, MEASURED_NAMES]):
        raise ModelError(
            f"The model {card.get('name')!r} wants {len(features)} features that this version does "
            f"not compute alike (it has {len(MEASURED_NAMES)}). Use the version that made it, or "
            "train again."
        )
    ood = None if card.get("ood") == OOD_UNKNOWN else _read_ood(path, card)
    return CheckedCard(folder, card, sha, views, ood, by_species)


def _read_ood(path: Path, card: Mapping[str, Any]) -> OodReference:
    try:
        file = safe_open(path, "numpy")
    except (SafetensorError, OSError) as e:
        raise ModelError(f"{path} is not a safetensors file: {e}. Copy the weights again.") from e
    try:
        with file as f:
            if card["format"] == 1:
                old = ("mean", "whiten", "percentiles")
                return of_one_gaussian(*(f.get_tensor(f"{PREFIX}.{k}") for k in old))
            names = [k for k in f.keys() if k.startswith(f"{PREFIX}.")]  # noqa: SIM118 - no mapping
            return from_tensors(card["ood"]["default"], {k: f.get_tensor(k) for k in names})
    except (SafetensorError, KeyError, TypeError, ValueError) as e:
        raise ModelError(
            f"The weights in {path} do not fit the card, in what says how unlike training a site "
            f"is: {e}. Train again."
        ) from e


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
