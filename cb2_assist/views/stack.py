"""Everything that the model sees of one site, and its form on disk.

A stack keeps the hit map, not the tensors: each encoding follows from it byte for byte. On disk
it is a small container of our own that any language can read:

    8 bytes    ``CB2VIEWS``
    4 bytes    length of the header, little endian
    header     JSON, UTF-8: version, profile, extent_nm, sha256 and the arrays in order, each with
               name, dtype, shape, filter and compressed length in bytes
    payloads   one zlib stream per array

Filter ``delta`` replaces every item by its difference to the item above, then those by their
difference to the one on the left (unsigned, wrapping around), and writes byte planes, lowest byte
first; ``none`` keeps the raw C-order bytes. Nothing in it depends on time, host or user.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.channels import VIEW_SIZE_PX, EmChannel, EmView, GeometryView
from cb2_assist.core.errors import AssistError, LabelError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.source import EmStatistics
from cb2_assist.views.em import render_em
from cb2_assist.views.encode import ENCODINGS, Geometry, check_profile, encode
from cb2_assist.views.hitmap import HitMap, render_hits
from cb2_assist.views.site import SiteWindow

_MAGIC = b"CB2VIEWS"
_VERSION = 1
_MAX_HEADER = 1 << 16
_MAX_FEATURES = 4096
_UNREADABLE = (
    AssistError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    zlib.error,
)
_KERNELS = 32  # at least as many as there are to compile

_S = VIEW_SIZE_PX
# name: (dtype, shape, filter); None stands for any length
_LAYOUT: dict[str, tuple[str, tuple[int | None, ...], str]] = {
    "depth_nm": ("<i2", (len(GeometryView), 2, _S, _S), "delta"),
    "normal_i8": ("|i1", (len(GeometryView), 2, 3, _S, _S), "delta"),
    "em": ("|u1", (len(EmView), len(EmChannel), _S, _S), "delta"),
    "features": ("<f4", (None,), "none"),
}


@dataclass(frozen=True, slots=True, eq=False)
class ViewStack:
    """One site, as the model sees it.

    Attributes:
        hits: Geometry before encoding.
        em: uint8, (`EmView`, `EmChannel`, row, column).
        features: float32, (feature,), from `views.features`.
        extent_nm: Half width of every view.
        profile: ``cb2`` or ``clean``.
    """

    hits: HitMap
    em: NDArray[np.uint8]
    features: NDArray[np.float32]
    extent_nm: float
    profile: str

    def geometry(self) -> Geometry:
        """The 7-channel geometry tensor, float16, (view, channel, row, column)."""
        return encode(self.profile, self.hits, self.extent_nm)


def render(
    window: SiteWindow,
    *,
    extent_nm: float,
    profile: str,
    statistics: EmStatistics,
    features: NDArray[np.float32],
) -> ViewStack:
    """Render all views of a window.

    Args:
        window: Should reach `extent_nm` around its site; what it lacks is shown as outside.
        extent_nm: Half width of every view.
        profile: Encoding on the model's card.
        statistics: Grey level of the dataset.
        features: Contact features of the site, kept with the views.

    Raises:
        BadRequestError: Unknown profile, extent out of range, EM without contrast.
    """
    check_profile(profile)
    hits = render_hits(window, extent_nm)
    em = render_em(window, extent_nm, profile, statistics)
    return ViewStack(hits, em, np.asarray(features, np.float32), float(extent_nm), profile)


def content_sha256(stack: ViewStack) -> str:
    """Content address: SHA-256 over profile, extent and the uncompressed arrays.

    Independent of the compressor, so the same views have the same address on every machine.
    """
    digest = hashlib.sha256()
    for name, array in _arrays(stack).items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    digest.update(f"{stack.profile} {stack.extent_nm!r}".encode())
    return digest.hexdigest()


def to_bytes(stack: ViewStack) -> bytes:
    """Write the container: equal stacks give equal bytes.

    Raises:
        ValueError: An array does not have the shape that `ViewStack` documents.
    """
    described, payloads = [], []
    for name, array in _arrays(stack).items():
        how = _LAYOUT[name][2]
        payload = _compress(_forward(array) if how == "delta" else array.tobytes())
        described.append(
            {
                "name": name,
                "dtype": array.dtype.str,
                "shape": list(array.shape),
                "filter": how,
                "bytes": len(payload),
            }
        )
        payloads.append(payload)
    header = {
        "version": _VERSION,
        "profile": stack.profile,
        "extent_nm": stack.extent_nm,
        "sha256": content_sha256(stack),
        "arrays": described,
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return b"".join([_MAGIC, struct.pack("<I", len(text)), text, *payloads])


def from_bytes(data: bytes) -> ViewStack:
    """Read a container and check it against its own content address.

    Raises:
        LabelError: Truncated, damaged, or from another version.
    """
    try:
        header, offset = _read_header(data)
        arrays: dict[str, NDArray[Any]] = {}
        for entry, (name, (dtype, shape, how)) in zip(
            header["arrays"], _LAYOUT.items(), strict=True
        ):
            arrays[name] = _read_array(data, offset, entry, (name, dtype, shape, how))
            offset += entry["bytes"]
        if offset != len(data):
            raise _damaged(f"{len(data) - offset} bytes follow the last array")
        extent, profile = float(header["extent_nm"]), str(header["profile"])
        if not (math.isfinite(extent) and extent > 0):
            raise _damaged(f"its extent is {extent} nm")
        check_profile(profile)
        hits = HitMap(arrays["depth_nm"], arrays["normal_i8"])
        stack = ViewStack(hits, arrays["em"], arrays["features"], extent, profile)
        if content_sha256(stack) != header["sha256"]:
            raise _damaged("its content does not match its checksum")
    except LabelError:
        raise
    except _UNREADABLE as error:
        raise _damaged(str(error)) from error
    return stack


def warm_up() -> None:
    """Compile, or load from numba's cache, every kernel that rendering and encoding run.

    Takes seconds on a fresh machine and milliseconds later; a server calls it from a thread. A
    cache that cannot be written (full disk) only costs the next start its head start.
    """
    site = Site(Kind.JOIN, SegmentId(1), SegmentId(2), PointNm(2.5, 2.5, 2.5))
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(5, 5, 5))
    volume = np.ones((5, 5, 5), np.uint8)
    window = SiteWindow(
        site, Resolution(1, 1, 1), box, 2.0, volume, volume.astype(np.uint64), volume
    )
    for profile in ENCODINGS:
        _until_compiled(window, profile)


def _until_compiled(window: SiteWindow, profile: str) -> None:
    # numba raises when it cannot write its cache, once per kernel, and keeps the machine code
    for attempts_left in reversed(range(_KERNELS)):
        try:
            stack = render(
                window,
                extent_nm=2.0,
                profile=profile,
                statistics=EmStatistics(128.0, 32.0),
                features=np.zeros(0, np.float32),
            )
            stack.geometry()
        except OSError:
            if not attempts_left:
                raise
        else:
            return


def _arrays(stack: ViewStack) -> dict[str, NDArray[Any]]:
    """Canonical arrays in their order on disk: little endian, C order, checked shapes."""
    given: dict[str, NDArray[Any]] = {
        "depth_nm": stack.hits.depth_nm,
        "normal_i8": stack.hits.normal_i8,
        "em": stack.em,
        "features": stack.features,
    }
    out = {}
    for name, array in given.items():
        dtype, shape, _ = _LAYOUT[name]
        if not _fits(array.shape, shape):
            raise ValueError(f"{name} has shape {array.shape}, a view stack needs {shape}")
        out[name] = np.ascontiguousarray(array, dtype=dtype)
    return out


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        n == w or (w is None and n <= _MAX_FEATURES) for n, w in zip(shape, wanted, strict=True)
    )


def _read_header(data: bytes) -> tuple[dict[str, Any], int]:
    if data[: len(_MAGIC)] != _MAGIC:
        raise _damaged("it does not begin like one")
    start = len(_MAGIC) + 4
    if len(data) < start:
        raise _damaged("it is cut off")
    (length,) = struct.unpack("<I", data[len(_MAGIC) : start])
    if length > _MAX_HEADER or len(data) < start + length:
        raise _damaged("it is cut off")
    header = json.loads(data[start : start + length].decode())
    if not isinstance(header, dict):
        raise _damaged("its header is not an object")
    if header.get("version") != _VERSION:
        raise LabelError(
            f"Kept views of version {header.get('version')!r} cannot be read; this program knows "
            f"version {_VERSION}. Update cb2-assist, or propose the site again."
        )
    return header, start + length


def _read_array(
    data: bytes, offset: int, entry: dict[str, Any], layout: tuple[str, str, Any, str]
) -> NDArray[Any]:
    name, dtype, wanted, how = layout
    shape, length = tuple(entry["shape"]), entry["bytes"]
    described = (entry["name"], entry["dtype"], entry["filter"])
    if described != (name, dtype, how) or not _fits(shape, wanted):
        raise _damaged(f"it holds {described} of shape {shape} where {name} is expected")
    if not isinstance(length, int) or not 0 <= length <= len(data) - offset:
        raise _damaged("it is cut off")
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    stream = zlib.decompressobj()
    # never more than one byte too many: a damaged length must not fill the memory
    raw = stream.decompress(data[offset : offset + length], n_bytes + 1)
    if len(raw) != n_bytes or not stream.eof or stream.unused_data:
        raise _damaged(f"{name} is cut off")
    if how == "delta":
        return _backward(raw, np.dtype(dtype), shape)
    return np.frombuffer(raw, dtype).reshape(shape)


def _damaged(why: str) -> LabelError:
    return LabelError(
        f"Kept views cannot be read: {why}. The file is damaged or not a view file; "
        "the label itself is not affected. Restore it from a backup, or propose the site again."
    )


def _compress(raw: bytes) -> bytes:
    # After the delta filter there are runs of zeros and noise, hardly any repeats: run-length
    # matching is both smaller and several times faster than a search for repeats.
    stream = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return stream.compress(raw) + stream.flush()


def _forward(array: NDArray[Any]) -> bytes:
    delta = _difference(array.view(f"<u{array.itemsize}"))
    planes = delta.view(np.uint8).reshape(*array.shape, array.itemsize)
    return np.moveaxis(planes, -1, 0).tobytes()


def _difference(items: NDArray[Any]) -> NDArray[Any]:
    down = items.copy()
    down[..., 1:, :] -= items[..., :-1, :]
    across = down.copy()
    across[..., 1:] -= down[..., :-1]
    return across


def _backward(raw: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, *shape)
    items = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view(f"<u{dtype.itemsize}")
    items = items.reshape(shape)
    across = np.cumsum(items, axis=-1, dtype=items.dtype)
    return np.cumsum(across, axis=-2, dtype=items.dtype).view(dtype)
