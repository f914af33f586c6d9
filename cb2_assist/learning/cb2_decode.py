"""Stored views of a ConnectomeBench2 row to what a network reads.

Blobs come from files that anyone may have made: sizes are checked before anything is unpacked, and
nothing unpickles.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from cb2_assist.core.channels import (
    VIEW_SIZE_PX,
    EmChannel,
    EmView,
    GeometryChannel,
    GeometryView,
)
from cb2_assist.core.records import Kind
from cb2_assist.learning.cb2_decisions import StoredDecision
from cb2_assist.model.card import ViewSpec
from cb2_assist.model.inputs import NetworkInput
from cb2_assist.views.encode import Geometry, downsample_em, downsample_geometry
from cb2_assist.views.features import FEATURE_NAMES
from cb2_assist.views.surroundings import MEASURED_NAMES, resized, split_vector

GEOMETRY_SHAPE = (len(GeometryView), len(GeometryChannel), VIEW_SIZE_PX, VIEW_SIZE_PX)
_LARGEST = int(np.prod(GEOMETRY_SHAPE)) * 8 + 4096
"""Bytes of the array as float64, with its header."""
_TOLERANCE = 0.01
_N_GEOMETRY, _N_EM = len(GeometryView), len(EmView)
_MEASURED = 2
"""Tokens that are no views: features and neighbours."""


class DamagedViewError(Exception):
    """A view cannot be read; its text is the reason, by which such decisions are counted."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a model is shown of a stored decision.

    Attributes:
        input: Zeros where something is absent.
        present: Which tokens there are, (views, features, neighbours).
    """

    input: NetworkInput
    present: NDArray[np.bool_]


def fitting(stored: StoredDecision, profile: str) -> tuple[bool, bool]:
    """Whether geometry and EM are encoded as a profile has them.

    A ``clean`` cut shows its two sides; no release, and no export, keeps them in EM.
    """
    em = stored.em_profile == profile and not (profile == "clean" and stored.kind is Kind.CUT)
    return profile == "cb2", em


def decode(
    stored: StoredDecision, views: ViewSpec, *, use_geometry: bool, use_em: bool
) -> Seen | None:
    """Decode a decision's views at a network's size; None where it has none of those to use.

    Raises:
        DamagedViewError: One that is there cannot be read.
    """
    if stored.damage is not None:
        raise DamagedViewError(stored.damage)
    px = views.image_px
    factor = VIEW_SIZE_PX // px
    geometry = np.zeros((*GEOMETRY_SHAPE[:2], px, px), np.float16)
    em = np.zeros((_N_EM, len(EmChannel), px, px), np.uint8)
    present = np.zeros(_N_GEOMETRY + _N_EM + _MEASURED, bool)
    if use_geometry and stored.geometry is not None:
        geometry = downsample_geometry(read_geometry(stored.geometry), factor)
        present[:_N_GEOMETRY] = True
    if use_em:
        shown = read_em(stored.em, stored.kind)
        em = downsample_em(shown, factor)
        present[_N_GEOMETRY:-_MEASURED] = [png is not None for png in stored.em]
    features, neighbours = _measured(stored.measured, present)
    if not present.any():
        return None
    return Seen(NetworkInput(geometry, em, features, neighbours), present)


def _measured(
    blob: bytes, present: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Features and neighbours of an export of ours; says in ``present`` which of them there are."""
    n = len(MEASURED_NAMES)
    vector = np.frombuffer(blob, "<f4") if len(blob) % 4 == 0 else np.zeros(0, np.float32)
    features, neighbours = split_vector(vector.astype(np.float32))
    # of another version, or damaged: as if it was not there
    if len(features) not in (len(FEATURE_NAMES), n) or not np.isfinite(vector).all():
        return np.zeros(n, np.float32), None
    present[_N_GEOMETRY + _N_EM] = True
    present[_N_GEOMETRY + _N_EM + 1] = neighbours is not None
    return resized(features, n), neighbours


def read_geometry(blob: bytes) -> Geometry:
    """float16, (view, channel, row, column), from ``arr_0`` of an npz.

    Masks of a single segment are as stored (A is the silhouette, B is empty), as our own ``cb2``
    views of a cut have them.

    Raises:
        DamagedViewError: Not such a file, another shape, or values that no geometry has.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            if archive.getinfo("arr_0.npy").file_size > _LARGEST:
                raise DamagedViewError("its geometry has another shape than (3, 7, 224, 224)")
            raw = archive.read("arr_0.npy")
        array = npy.read_array(io.BytesIO(raw), allow_pickle=False)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, zlib.error, OSError) as e:
        raise DamagedViewError("its geometry is not a readable npz with arr_0") from e
    except (NotImplementedError, RuntimeError) as e:
        raise DamagedViewError("its geometry is packed or encrypted in a way not known") from e
    if array.shape != GEOMETRY_SHAPE:
        raise DamagedViewError("its geometry has another shape than (3, 7, 224, 224)")
    if array.dtype.kind != "f":
        raise DamagedViewError("its geometry is not of floating point numbers")
    # a comparison with NaN is false
    if not (np.abs(array) <= 1 + _TOLERANCE).all():
        raise DamagedViewError("its geometry has values beyond -1..1, or NaN")
    return array.astype(np.float16)


def read_em(blobs: Sequence[bytes | None], kind: Kind) -> NDArray[np.uint8]:
    """uint8, (`EmView`, `EmChannel`, row, column), zeros for absent planes.

    A cut is one segment: masks A and B become one, as ConnectomeBench2's loader does.

    Raises:
        DamagedViewError: A plane is no 224 x 224 RGB PNG.
    """
    out = np.zeros((_N_EM, len(EmChannel), VIEW_SIZE_PX, VIEW_SIZE_PX), np.uint8)
    for plane, blob in zip(out, blobs, strict=True):
        if blob is not None:
            plane[:] = np.moveaxis(_png(blob), -1, 0)
    if kind is Kind.CUT:
        sides = out[:, EmChannel.MASK_A], out[:, EmChannel.MASK_B]
        out[:, EmChannel.MASK_A] = np.maximum(*sides)
        out[:, EmChannel.MASK_B] = 0
    return out


def _png(blob: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(blob), formats=("PNG",)) as image:
            if image.size != (VIEW_SIZE_PX, VIEW_SIZE_PX) or image.mode != "RGB":
                raise DamagedViewError("an EM view is not 224 x 224 RGB")
            return np.asarray(image)
    # Pillow raises these, and SyntaxError, on damaged files
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as e:
        raise DamagedViewError("an EM view is not a readable PNG") from e
