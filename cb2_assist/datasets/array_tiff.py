"""TIFF stacks, and folders of sections (TIFF or PNG), read section by section."""

from __future__ import annotations

import contextlib
import logging
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cb2_assist.core.errors import BadVolumeError, UsageError
from cb2_assist.datasets.stored import AnyArray, Hints, Index, RawArray, StoredArray
from cb2_assist.datasets.units import UNITS_NM, nm_of

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

SECTION_ENDINGS: tuple[str, ...] = (".tif", ".tiff", ".png")


def open_tiff(path: Path, key: str | None) -> StoredArray:
    """Open a series of a TIFF file, the first one when no number is given; OME, ImageJ, BigTIFF.

    Raises:
        UsageError: There is no such series.
        BadVolumeError: The file is cut short or laid out in a way that cannot be read in parts.
    """
    import tifffile

    with contextlib.ExitStack() as stack:
        with _complaints_raised():
            file = stack.enter_context(tifffile.TiffFile(path))
            n = len(file.series)
        if key is not None and not (key.isdigit() and int(key) < n):
            raise UsageError(f"There is no series {key!r} in {path}; it has {n}, counted from 0.")
        series = file.series[int(key or 0)]
        hints = _hints(file, series)
        if series.dataoffset is None:
            paged = _of_pages(file, series, hints)
            stack.pop_all()
            return paged
        dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
        raw_file = stack.enter_context(path.open("rb"))
        raw = RawArray(raw_file, series.dataoffset, tuple(series.shape), dtype, hints)
        raw.check_length()
        stack.pop_all()
        file.close()
        return raw


def open_sections(paths: list[Path]) -> StoredArray:
    """Open 2-D pictures as one volume, in the natural order of their names (2 before 10).

    Raises:
        BadVolumeError: A picture cannot be read, or has more than one channel.
    """
    ordered = sorted(paths, key=_natural)
    first, last = _picture(ordered[0]), _picture(ordered[-1])
    if first.ndim != 2:
        raise BadVolumeError(
            f"{ordered[0]} has shape {first.shape}; a section is 2-D with one channel."
        )
    _check_like(ordered[-1], last, first.shape, first.dtype)

    def read(k: int) -> AnyArray:
        picture = _picture(ordered[k])
        _check_like(ordered[k], picture, first.shape, first.dtype)
        return picture

    return _PagedArray(read, (len(ordered), *first.shape), first.dtype, 1, Hints(), lambda: None)


def _of_pages(file: TiffFile, series: TiffPageSeries, hints: Hints) -> StoredArray:
    pages = [p for p in series.pages if p is not None]
    if not pages or len(pages) != len(series.pages):
        raise BadVolumeError("it lacks pages")
    page_shape = tuple(pages[0].shape)
    lead = series.shape[: len(series.shape) - len(page_shape)]
    if math.prod(lead) != len(pages) or series.shape[len(lead) :] != page_shape:
        raise BadVolumeError(
            f"its {len(pages)} pages of shape {page_shape} do not make up {series.shape}"
        )

    def read(k: int) -> AnyArray:
        got: AnyArray = np.asarray(pages[k].asarray())
        return got

    return _PagedArray(read, series.shape, np.dtype(series.dtype), len(lead), hints, file.close)


class _PagedArray:
    """An array of pages, each of which is decoded as a whole."""

    def __init__(
        self,
        page: Callable[[int], AnyArray],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        lead: int,
        hints: Hints,
        close: Callable[[], None],
    ) -> None:
        self.shape, self.dtype, self.hints = shape, dtype, hints
        self.chunk = (*(1,) * lead, *shape[lead:])
        self._page, self._lead, self._close = page, lead, close

    def read(self, lo: Index, hi: Index) -> AnyArray:
        """Values of the box."""
        out = np.empty([b - a for a, b in zip(lo, hi, strict=True)], self.dtype)
        inner = tuple(slice(a, b) for a, b in zip(lo, hi, strict=True))[self._lead :]
        lead_shape = self.shape[: self._lead]
        for index in np.ndindex(out.shape[: self._lead]):
            at = tuple(i + a for i, a in zip(index, lo, strict=False))
            k = int(np.ravel_multi_index(at, lead_shape)) if at else 0
            out[index] = self._page(k)[inner]
        return out

    def close(self) -> None:
        """Let go of the files."""
        self._close()


class _Complaints(logging.Handler):
    """Keeps the first error that is logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.first = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or record.getMessage()


@contextlib.contextmanager
def _complaints_raised() -> Iterator[None]:
    """What tifffile only logs, e.g. that pages are missing at the end, is an error here.

    Raises:
        BadVolumeError: Something was logged as an error.
    """
    logger, heard = logging.getLogger("tifffile"), _Complaints()
    logger.addHandler(heard)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.propagate = propagated
        logger.removeHandler(heard)
    if heard.first:
        raise BadVolumeError(f"is cut short ({heard.first.split('> ')[-1]})")


def _picture(path: Path) -> AnyArray:
    if path.suffix.lower() == ".png":
        from PIL import Image

        try:
            with Image.open(path) as picture:
                return np.asarray(picture)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
            raise BadVolumeError(f"{path} is damaged or not a PNG file ({e}).") from e
    import tifffile

    try:
        with _complaints_raised():
            got: AnyArray = np.asarray(tifffile.imread(path))
    except Exception as e:
        # on damaged files its parsers fail in many ways
        raise BadVolumeError(f"{path} is damaged or not a TIFF file ({e}).") from e
    return got


def _check_like(
    path: Path, picture: AnyArray, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    if picture.shape != shape or picture.dtype != dtype:
        raise BadVolumeError(
            f"The section {path} is {picture.shape} {picture.dtype}, the first one is {shape} "
            f"{dtype}; all must be alike."
        )


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]


def _hints(file: TiffFile, series: TiffPageSeries) -> Hints:
    axes = str(series.axes).lower()
    # I, Q and the like mean pages of unknown order
    named = axes if set("zyx") <= set(axes) else None
    if file.is_ome and file.ome_metadata:
        sizes = {}
        for letter in "XYZ":
            size = re.search(rf'\bPhysicalSize{letter}="([^"]+)"', file.ome_metadata)
            unit = re.search(rf'\bPhysicalSize{letter}Unit="([^"]+)"', file.ome_metadata)
            nm = nm_of(size.group(1), unit.group(1) if unit else "µm") if size else None
            sizes[letter.lower()] = nm
        return Hints(named, _per_axis(axes, sizes), "OME metadata")
    if file.is_imagej and file.imagej_metadata:
        return Hints(named, _per_axis(axes, _imagej_sizes(file)), "ImageJ metadata")
    return Hints(named, None, "its series" if named else "")


def _per_axis(axes: str, sizes: dict[str, float | None]) -> tuple[float | None, ...] | None:
    found = tuple(sizes.get(a) for a in axes)
    return found if any(found) else None


def _imagej_sizes(file: TiffFile) -> dict[str, float | None]:
    meta = file.imagej_metadata or {}
    unit = str(meta.get("unit", "")).replace("\\u00B5", "µ")
    if unit.lower() not in UNITS_NM:
        return {}
    sizes: dict[str, float | None] = {"z": nm_of(meta.get("spacing"), unit)}
    for letter, tag in (("x", "XResolution"), ("y", "YResolution")):
        value = file.pages[0].tags.get(tag)  # type: ignore[union-attr]
        try:
            per_pixel, of = value.value  # type: ignore[union-attr]
            sizes[letter] = nm_of(of / per_pixel, unit)
        except (AttributeError, TypeError, ValueError, ZeroDivisionError):
            sizes[letter] = None
    return sizes
