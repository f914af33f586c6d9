"""`--dataset demo`: generated neuropil, unpacked once into the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from cb2_assist.core.errors import DatasetError
from cb2_assist.datasets.dataset_file import FILE_NAME
from cb2_assist.datasets.source import Source
from cb2_assist.resources import CACHE_VARIABLE, cache_folder

PACK = Path(__file__).parent / "demo_data" / "demo.zip"

LAYOUT = 1
"""Raised whenever the same pack is unpacked to other files, so that old copies are left alone."""

_LISTING = "files.json"


def open_demo() -> Source:
    """Open the demo; the first time it is unpacked, which takes some seconds.

    Raises:
        DatasetError: The shipped data is missing, or the cache folder cannot be written.
    """
    from cb2_assist.datasets.local import open_dataset_file

    return open_dataset_file(unpacked_demo(cache_folder()))


def unpacked_demo(cache: Path, pack: Path = PACK) -> Path:
    """The demo's dataset.toml below a cache folder; unpacks it when it is absent or damaged.

    Several processes may do this at once: each works in a folder of its own, and the first one
    that finishes puts it in place.

    Args:
        cache: Folder for unpacked data, made when needed.
        pack: The shipped file.

    Raises:
        DatasetError: The shipped data is missing, or the cache folder cannot be written.
    """
    target = cache / f"demo-{_version(pack)}"
    if not _is_whole(target):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            _unpack_to(pack, target)
        except OSError as e:
            raise DatasetError(
                f"Cannot unpack the demo into {cache}: {e.strerror or e}. Make room (200 MB) or "
                f"set {CACHE_VARIABLE} to a folder that can be written."
            ) from e
    return target / FILE_NAME


def unpacked_already(cache: Path, pack: Path = PACK) -> Path | None:
    """The demo's dataset.toml below a cache folder; None when it is absent or damaged.

    Raises:
        DatasetError: The shipped data is missing.
    """
    target = cache / f"demo-{_version(pack)}"
    return target / FILE_NAME if _is_whole(target) else None


def _version(pack: Path) -> str:
    from cb2_assist.datasets.demo_unpack import read_manifest

    text = json.dumps([LAYOUT, read_manifest(pack)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file below a folder, but of the listing itself."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            found[path.relative_to(folder).as_posix()] = path.stat().st_size
    found.pop(_LISTING, None)
    return found


def _is_whole(folder: Path) -> bool:
    """Whether every file that was unpacked is there at its size."""
    try:
        listed = json.loads((folder / _LISTING).read_text())
        return bool(listed) and _sizes(folder) == listed
    except (OSError, ValueError):
        return False


def _unpack_to(pack: Path, target: Path) -> None:
    """Unpack beside ``target``, then put it there in one step."""
    from cb2_assist.datasets.demo_unpack import unpack

    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        unpack(pack, work / "new")
        (work / "new" / _LISTING).write_text(json.dumps(_sizes(work / "new")))
        if target.exists() and not _is_whole(target):
            target.rename(work / "damaged")
        try:
            (work / "new").rename(target)
        except OSError:
            # another process was first; only its whole copy will do
            if not _is_whole(target):
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
