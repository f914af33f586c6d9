"""`import-checkpoint`: a ConnectomeBench2 training file as one of our model folders.

Their trainer writes ``{"model": state dict, "cfg", "epoch", "metrics"}`` with `torch.save` (arXiv
2606.21116, github.com/timfarkas/ConnectomeBench2). What is read is data only: a file that wants to
run something is refused.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from cb2_assist import __version__
from cb2_assist.core.channels import VIEW_SIZE_PX
from cb2_assist.core.errors import ModelError, UsageError
from cb2_assist.core.records import Kind
from cb2_assist.model.card import (
    CARD,
    FORMAT,
    OOD_UNKNOWN,
    UNCALIBRATED,
    WEIGHTS,
    ViewSpec,
    sha256_of,
)
from cb2_assist.model.cb2_keys import encoder_of, plain_names, to_network
from cb2_assist.model.cb2_network import Cb2Spec, Cb2ViT

EXTENTS_NM = {
    "mouse": (5000.0, 10000.0),
    "fly": (2000.0, 4000.0),
    "human": (6000.0, 12000.0),
    "zebrafish": (2500.0, 5000.0),
}
"""Their renderer draws the half width of geometry views from these, by species; we take the middle
(configs/, and the mouse's in the paper's Table 4)."""
EM_EXTENTS_NM = {"mouse": 1625.0, "fly": 975.0, "human": 1625.0, "zebrafish": 975.0}
"""Half width of EM planes: their windows are 2500 nm (fly, zebrafish 1500 nm) and come out between
1.05 and 1.5 times as wide; we take 1.3 times."""
FALLBACK = "fly"
"""Whose extents a dataset of another species gets: the smallest, which any volume holds."""
NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the file does not say and its owner may.

    Attributes:
        name: On the card; empty takes the file's name.
        species: What it was trained on, of `EXTENTS_NM`; empty where it is not known.
        licence: Under which the weights may be used.
        citation: What a user of them must cite.
        extent_nm: Half width of geometry views for every species instead of `EXTENTS_NM`'s.
    """

    name: str = ""
    species: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""
    extent_nm: float | None = None


def import_checkpoint(file: Path, out: Path, given: Provenance) -> dict[str, Any]:
    """Write a model folder that `--model` takes; returns its card.

    Nothing is left behind unless everything is there.

    Args:
        file: Their ``*_best.pt`` or ``*_last.pt``, or a state dict alone.
        out: Folder to make; must not exist.
        given: What goes on the card besides what the file says.

    Raises:
        UsageError: ``out`` exists, or a species or an extent cannot be.
        ModelError: The file is not such a checkpoint, or the folder cannot be written.
    """
    _check(out, given)
    state, told = _read(file)
    try:
        state = plain_names(state)
        encoder = encoder_of(state)
        spec = Cb2Spec(encoder)
        with torch.device("meta"):
            wanted = Cb2ViT(spec).state_dict()
        tensors = to_network(state, wanted)
    except ModelError as e:
        raise ModelError(
            f"{file} is not a ConnectomeBench2 checkpoint that can be imported. {e} "
            "Nothing was written."
        ) from e
    card = _card(file, told, spec, given)
    return _write(out, {f"network.{k}": v for k, v in tensors.items()}, card)


def _check(out: Path, given: Provenance) -> None:
    if os.path.lexists(out):
        raise UsageError(f"{out} exists already. Give --out a folder that does not exist yet.")
    for species in given.species:
        if species not in EXTENTS_NM:
            raise UsageError(
                f"There is no species {species!r} here. Known: {', '.join(EXTENTS_NM)}."
            )
    if given.extent_nm is not None and not 0 < given.extent_nm < math.inf:
        raise UsageError(
            f"The half width of a view is a positive number of nm, got {given.extent_nm}."
        )


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights, and what else the file says of itself."""
    try:
        with file.open("rb") as f:
            loaded = torch.load(f, map_location="cpu", weights_only=True)
    except OSError as e:
        raise ModelError(f"{file} cannot be read: {e.strerror or e}. Nothing was written.") from e
    except UnpicklingError as e:
        object_ = re.search(r"GLOBAL (\S+)", str(e))
        why = "it is damaged, or no file of torch.save"
        if object_:
            why = f"it holds a Python object, {object_[1]}, and reading that could run code"
        raise ModelError(
            f"{file} cannot be read as weights: {why}. Nothing was written. Save it again as "
            'torch.save({"model": model.state_dict()}, FILE).'
        ) from e
    except Exception as e:  # a damaged file can fail anywhere within the reader
        raise ModelError(
            f"{file} cannot be read as weights: it is cut off, damaged, or no file of torch.save. "
            "Nothing was written. Copy it again."
        ) from e
    told = loaded if isinstance(loaded, dict) else {}
    state = told.get("model", loaded)
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(_is_weight(*i) for i in state.items())
    ):
        raise ModelError(
            f"{file} holds no state dict: {_kind(loaded)}. ConnectomeBench2's trainer saves one "
            'under "model". Nothing was written.'
        )
    if state is loaded:
        told = {}
    return dict(state), told


def _is_weight(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _kind(loaded: object) -> str:
    if isinstance(loaded, dict):
        return f"a dict with {', '.join(repr(k) for k in list(loaded)[:5]) or 'nothing in it'}"
    return f"{type(loaded).__name__}"


def _card(file: Path, told: Mapping[str, Any], spec: Cb2Spec, given: Provenance) -> dict[str, Any]:
    by_species = {s: asdict(_views(s, given.extent_nm)) for s in EXTENTS_NM}
    return {
        "format": FORMAT,
        "name": given.name or file.stem,
        "made_by": f"cb2-assist {__version__}, torch {torch.__version__}, {platform.machine()}",
        "origin": {
            "what": "a checkpoint of ConnectomeBench2's trainer (arXiv 2606.21116), imported",
            "file": file.name,
            "sha256": sha256_of(file),
            **{k: _plain(told[k]) for k in ("epoch", "metrics", "cfg") if k in told},
        },
        "data": [
            {
                "name": NOT_STATED,
                "species": list(given.species) or NOT_STATED,
                "licence": given.licence or NOT_STATED,
                "citation": given.citation or NOT_STATED,
            }
        ],
        "limits": (
            "Imported, not trained or measured here. Score is the mean over all views of what each "
            "says alone, as their trainer decides, at the 50:50 prior to which it balances; it is "
            "not calibrated, and how unusual a site is for the network is not known. Their renders "
            "are of meshes to 1.2 times the view's box and with a random extent; ours have the "
            "middle of its range."
        ),
        "calibration": UNCALIBRATED,
        "ood": OOD_UNKNOWN,
        "trained_on": {
            "species": list(given.species),
            "extents_nm": {s: list(EXTENTS_NM[s]) for s in given.species},
        },
        # where nothing was counted, confidence is the score
        "base_rates": {k.value: 0.5 for k in Kind},
        "network": spec.to_json(),
        "views": by_species[FALLBACK],
        "views_by_species": by_species,
        "features": [],
    }


def _views(species: str, extent_nm: float | None) -> ViewSpec:
    low, high = EXTENTS_NM[species]
    return ViewSpec(
        profile="cb2",
        extent_nm=(low + high) / 2 if extent_nm is None else extent_nm,
        image_px=VIEW_SIZE_PX,
        em_oblique=True,
        em_extent_nm=EM_EXTENTS_NM[species],
    )


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    """What JSON can hold of a value from their file; the rest by its name."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return type(value).__name__


def _write(out: Path, tensors: dict[str, Tensor], card: dict[str, Any]) -> dict[str, Any]:
    """Make the folder beside its place, then move it there in one step."""
    try:
        part = out.with_name(f".{out.name}-{uuid.uuid4().hex[:8]}.part")
        part.mkdir(parents=True)
    except OSError as e:
        raise ModelError(f"{out} cannot be made: {e.strerror}.") from e
    try:
        weights = part / WEIGHTS
        save_file(tensors, weights)
        whole = {
            **card,
            "weights": {
                "file": WEIGHTS,
                "sha256": sha256_of(weights),
                "bytes": weights.stat().st_size,
            },
        }
        text = json.dumps(whole, indent=1, ensure_ascii=False) + "\n"
        (part / CARD).write_text(text, encoding="utf-8")
        # safetensors makes its file for the owner alone
        weights.chmod((part / CARD).stat().st_mode)
        part.rename(out)
    except BaseException as e:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(e, Exception):
            raise ModelError(f"{out} cannot be written: {e}. Nothing was left behind.") from e
        raise
    return whole
