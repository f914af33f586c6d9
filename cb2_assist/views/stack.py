"""Everything that the model sees of one site, and its form on disk.

A stack keeps the hit map, not the tensors: each encoding follows from it byte for byte. On disk
it is a small container of our own that any language can read:

    8 bytes    ``CB2VIEWS``
    4 bytes    length of the header, little endian
    header     JSON, UTF-8: version, profile, extent_nm, sha256 and the arrays in order, each with
               name, dtype, shape, filter and compressed length in bytes; from version 2 on also
               geometry_from, in version 3 em_extent_nm
    payloads   one zlib stream per array

Version 1 holds four arrays and geometry from labels. Version 2 may hold ``em_oblique`` after them,
and geometry from meshes; version 3 holds EM planes of another width than the geometry. A stack is
written in the lowest version that can hold it, so what version 1 can hold has the bytes and the
address that it always had.

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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.channels import VIEW_SIZE_PX, EmChannel, EmView, GeometryView
from cb2_assist.core.errors import AssistError, LabelError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.core.records import Kind, SegmentId, Site
from cb2_assist.datasets.source import EmStatistics, Mesh
from cb2_assist.views.em import render_em
from cb2_assist.views.encode import ENCODINGS, Geometry, check_profile, encode
from cb2_assist.views.hitmap import HitMap, render_hits
from cb2_assist.views.mesh_hits import mesh_hits
from cb2_assist.views.oblique import render_oblique
from cb2_assist.views.site import SIDE_A, SiteWindow

_MAGIC = b"CB2VIEWS"
_VERSIONS = (1, 2, 3)
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
    "em_oblique": ("|u1", (len(EmChannel), _S, _S), "delta"),
}
_OPTIONAL = "em_oblique"
_LABELS, _MESHES = "labels", "meshes"


@dataclass(frozen=True, slots=True, eq=False)
class ViewStack:
    """One site, as the model sees it.

    Attributes:
        hits: Geometry before encoding.
        em: uint8, (`EmView`, `EmChannel`, row, column).
        features: float32, (number,), from `views.surroundings.site_vector`.
        extent_nm: Half width of every view, EM planes excepted where `em_extent_nm` is given.
        profile: ``cb2`` or ``clean``.
        em_oblique: uint8, (`EmChannel`, row, column): the best tilted plane through a join; None
            when the model does not ask for it, and always None for a cut, whose plane would be
            chosen from the answer (`views.oblique`).
        geometry_from: What `hits` were made from, ``labels`` or ``meshes``.
        em_extent_nm: Half width of EM planes, where it is not `extent_nm`.
    """

    hits: HitMap
    em: NDArray[np.uint8]
    features: NDArray[np.float32]
    extent_nm: float
    profile: str
    em_oblique: NDArray[np.uint8] | None = None
    geometry_from: str = _LABELS
    em_extent_nm: float | None = None

    @property
    def em_half_nm(self) -> float:
        """Half width of EM planes."""
        return self.extent_nm if self.em_extent_nm is None else self.em_extent_nm

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
    meshes: tuple[Mesh | None, Mesh | None] | None = None,
    em_oblique: bool = False,
    em_extent_nm: float | None = None,
) -> ViewStack:
    """Render all views of a window.

    In ``cb2`` a cut shows one whole segment, as ConnectomeBench2's single renders do: it is A, and
    B is empty everywhere. In ``clean`` a cut shows its two sides.

    Args:
        window: Should reach `extent_nm` around its site; what it lacks is shown as outside.
        extent_nm: Half width of every view.
        profile: Encoding on the model's card.
        statistics: Grey level of the dataset.
        features: Contact features of the site, kept with the views.
        meshes: Surfaces of A and B to make the geometry from; used where `takes_meshes` says so.
            None makes it from labels.
        em_oblique: Also render the best tilted plane; joins only, see `ViewStack`.
        em_extent_nm: Half width of EM planes; None: `extent_nm`.

    Raises:
        BadRequestError: Unknown profile, extent out of range, EM without contrast.
    """
    check_profile(profile)
    if profile == "cb2" and window.site.kind is Kind.CUT:
        whole = (window.seg == np.uint64(window.site.segment)).astype(np.uint8)
        window = replace(window, label=SIDE_A * whole)
    if meshes is not None and takes_meshes(window.site.kind, profile):
        hits, source = mesh_hits(meshes, window.site.point, extent_nm, profile), _MESHES
    else:
        hits, source = render_hits(window, extent_nm, profile=profile), _LABELS
    em_half_nm = extent_nm if em_extent_nm is None else em_extent_nm
    return ViewStack(
        hits,
        render_em(window, em_half_nm, profile, statistics),
        np.asarray(features, np.float32),
        float(extent_nm),
        profile,
        render_oblique(window, em_half_nm, profile, statistics) if em_oblique else None,
        source,
        None if em_half_nm == extent_nm else float(em_half_nm),
    )


def takes_meshes(kind: Kind, profile: str) -> bool:
    """Whether geometry of such a question can be made from meshes.

    A cut's two sides are a partition of the segment's voxels; its mesh has no sides. So ``clean``
    cuts always use labels; ``cb2`` cuts show the segment as one and can use its mesh.
    """
    return kind is Kind.JOIN or profile == "cb2"


def content_sha256(stack: ViewStack) -> str:
    """Content address: SHA-256 over the uncompressed arrays, profile, extent, and mesh geometry.

    Independent of the compressor, so the same views have the same address on every machine.
    """
    digest = hashlib.sha256()
    for name, array in _arrays(stack).items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    digest.update(f"{stack.profile} {stack.extent_nm!r}".encode())
    if stack.geometry_from != _LABELS:
        digest.update(f" {stack.geometry_from}".encode())
    if stack.em_extent_nm is not None:
        digest.update(f" em {stack.em_extent_nm!r}".encode())
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
    header: dict[str, Any] = {
        "version": _version(stack),
        "profile": stack.profile,
        "extent_nm": stack.extent_nm,
        "sha256": content_sha256(stack),
        "arrays": described,
    }
    if header["version"] > 1:
        header["geometry_from"] = stack.geometry_from
    if header["version"] >= _VERSIONS[-1]:
        header["em_extent_nm"] = stack.em_extent_nm
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
        for entry, name in zip(header["arrays"], _names(header), strict=True):
            arrays[name] = _read_array(data, offset, entry, (name, *_LAYOUT[name]))
            offset += entry["bytes"]
        if offset != len(data):
            raise _damaged(f"{len(data) - offset} bytes follow the last array")
        extent, profile = _extent(header["extent_nm"]), str(header["profile"])
        check_profile(profile)
        hits = HitMap(arrays["depth_nm"], arrays["normal_i8"])
        stack = ViewStack(
            hits, arrays["em"], arrays["features"], extent, profile,
            arrays.get(_OPTIONAL), _geometry_from(header), _em_extent(header),
        )  # fmt: skip
        if header["version"] != _version(stack):
            raise _damaged(f"it says version {header['version']} and holds {_version(stack)}")
        if content_sha256(stack) != header["sha256"]:
            raise _damaged("its content does not match its checksum")
    except LabelError:
        raise
    except _UNREADABLE as error:
        raise _damaged(str(error)) from error
    return stack


def warm_up(*, meshes: bool = False, em_oblique: bool = False) -> None:
    """Compile, or load from numba's cache, every kernel that rendering and encoding run.

    Args:
        meshes: Also what draws meshes.
        em_oblique: Also what finds and cuts tilted planes.

    Takes seconds on a fresh machine and milliseconds later; a server calls it from a thread. A
    cache that cannot be written (full disk) only costs the next start its head start.
    """
    site = Site(Kind.JOIN, SegmentId(1), SegmentId(2), PointNm(2.5, 2.5, 2.5))
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(5, 5, 5))
    volume = np.ones((5, 5, 5), np.uint8)
    window = SiteWindow(
        site, Resolution(1, 1, 1), box, 2.0, volume, volume.astype(np.uint64), volume
    )
    triangle = Mesh(5 * np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.uint32))
    for profile in ENCODINGS:
        _until_compiled(window, profile, None, em_oblique)
        if meshes:
            _until_compiled(window, profile, (triangle, triangle), em_oblique)


def _until_compiled(
    window: SiteWindow,
    profile: str,
    meshes: tuple[Mesh, Mesh] | None,
    em_oblique: bool,
) -> None:
    # numba raises when it cannot write its cache, once per kernel, and keeps the machine code
    for attempts_left in reversed(range(_KERNELS)):
        try:
            stack = render(
                window,
                extent_nm=2.0,
                profile=profile,
                statistics=EmStatistics(128.0, 32.0),
                features=np.zeros(0, np.float32),
                meshes=meshes,
                em_oblique=em_oblique,
            )
            stack.geometry()
        except OSError:
            if not attempts_left:
                raise
        else:
            return


def _version(stack: ViewStack) -> int:
    """The lowest version that can hold the stack."""
    if stack.em_extent_nm is not None:
        return _VERSIONS[-1]
    return 1 if stack.em_oblique is None and stack.geometry_from == _LABELS else 2


def _names(header: dict[str, Any]) -> list[str]:
    """Names of the arrays that a container must hold, in order."""
    names = [n for n in _LAYOUT if n != _OPTIONAL]
    if header["version"] > 1 and len(header["arrays"]) > len(names):
        names.append(_OPTIONAL)
    return names


def _extent(given: str | float) -> float:
    extent = float(given)
    if not (math.isfinite(extent) and extent > 0):
        raise _damaged(f"its extent is {extent} nm")
    return extent


def _em_extent(header: dict[str, Any]) -> float | None:
    return _extent(header["em_extent_nm"]) if header["version"] >= _VERSIONS[-1] else None


def _geometry_from(header: dict[str, Any]) -> str:
    source = header["geometry_from"] if header["version"] > 1 else _LABELS
    if source not in (_LABELS, _MESHES):
        raise _damaged(f"its geometry is from {source!r}")
    return str(source)


def _arrays(stack: ViewStack) -> dict[str, NDArray[Any]]:
    """Canonical arrays in their order on disk: little endian, C order, checked shapes."""
    given: dict[str, NDArray[Any]] = {
        "depth_nm": stack.hits.depth_nm,
        "normal_i8": stack.hits.normal_i8,
        "em": stack.em,
        "features": stack.features,
    }
    if stack.em_oblique is not None:
        given[_OPTIONAL] = stack.em_oblique
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
    if header.get("version") not in _VERSIONS:
        raise LabelError(
            f"Kept views of version {header.get('version')!r} cannot be read; this program knows "
            f"versions 1 to {_VERSIONS[-1]}. Update cb2-assist, or propose the site again."
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
