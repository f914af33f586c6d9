"""The models that come with the program: which one serves where none is named.

One learnt from nearly cubic voxels (FIB-SEM), one from the same tissue as a microscope with thick
sections would give it. What is measured of a contact means another thing in sections of 40 nm, and
so does a distance to training: one scale for both would be right for neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cb2_assist.datasets.registry import known_voxel_nm
from cb2_assist.model.card import read_card
from cb2_assist.resources import resource_dir
from cb2_assist.settings import DEFAULT_MODEL, SECTIONS_MODEL

SECTIONS_FROM = 2.0
"""Longest over shortest edge of a voxel from which the sections' model serves: about half way, as a
ratio, between the cubes and the 8 x 8 x 40 nm that the two have learnt from."""


def shipped_model(voxel_nm: Iterable[float] | None = None) -> Path:
    """Folder of the model for a segmentation.

    Args:
        voxel_nm: Edges of its voxels along x, y, z; None where that is not known.
    """
    edges = tuple(voxel_nm or (1.0,))
    is_thick = max(edges) >= SECTIONS_FROM * min(edges)
    return resource_dir("models") / (SECTIONS_MODEL if is_thick else DEFAULT_MODEL)


def shipped_models() -> list[Path]:
    """Folders of all of them."""
    return [resource_dir("models") / name for name in (DEFAULT_MODEL, SECTIONS_MODEL)]


def shipped_for(dataset: str, sha256s: Iterable[str] = ()) -> Path:
    """Folder of the model for a dataset of which only the name is known.

    By its voxels where the name is a known one, else the one behind most of its answers.

    Args:
        dataset: Name.
        sha256s: Of the weights behind each of its answers.
    """
    voxel_nm = known_voxel_nm(dataset)
    if voxel_nm is not None:
        return shipped_model(voxel_nm)
    return shipped_by(sha256s) or shipped_model()


def shipped_by(sha256s: Iterable[str]) -> Path | None:
    """The one that most of some answers are of; None if none is of any.

    Args:
        sha256s: Of the weights behind each answer.
    """
    count = Counter(sha256s)
    by_hash = {read_card(folder)["weights"]["sha256"]: folder for folder in shipped_models()}
    found = [(n, folder) for sha, folder in by_hash.items() if (n := count[sha])]
    return max(found)[1] if found else None
