"""The views that the model saw, kept beside the label file under the name of their content.

``FOLDER/ab/abcd….cb2v`` holds the bytes as they were put, then 4 bytes ``cb2v`` and the SHA-256 of
those bytes, so that a damaged file is found without knowing what is in it. The name is the caller's
content address, e.g. of the uncompressed arrays.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock

from cb2_assist.core.errors import LabelError
from cb2_assist.labels.failures import label_error
from cb2_assist.labels.filesystem import make_private_folder, sync_folder

_SUFFIX = ".cb2v"
_MAGIC = b"cb2v"
_TRAILER_BYTES = len(_MAGIC) + hashlib.sha256().digest_size
_LEFTOVER_AGE_S = 3600.0


class ViewsStore:
    """Files by content address. Every method may be called from any thread and process."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made until the first `put`."""
        self.folder = folder
        self._lock = Lock()
        self._is_swept = False

    def put(self, data: bytes, sha256: str) -> None:
        """Keep bytes; on return they survive a kill and a power cut. Kept ones are left alone.

        Args:
            data: Any bytes.
            sha256: 64 lower-case hex digits; the same address always means the same content.

        Raises:
            LabelFileReadOnlyError: Read-only or full; nothing was kept.
            LabelError: Any other failure; nothing was kept.
        """
        path = self._path(sha256)
        size = len(data) + _TRAILER_BYTES
        with self._lock:
            try:
                make_private_folder(path.parent)
                self._sweep()
                # a file that was cut short by a failing disk is written again
                if path.is_file() and path.stat().st_size == size:
                    return
                _write_durably(path, (data, _MAGIC, hashlib.sha256(data).digest()))
            except OSError as e:
                raise label_error(path, e, "The views were not kept.") from e

    def get(self, sha256: str) -> bytes:
        """The bytes that were put.

        Raises:
            LabelError: They were never kept, were removed, or are damaged.
        """
        path = self._path(sha256)
        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            raise LabelError(
                f"The views {sha256[:12]}… are not in {self.folder}: they were not kept "
                "(--keep-views off) or were removed. Restore the folder from a backup."
            ) from None
        except OSError as e:
            raise label_error(path, e) from e
        data, trailer = stored[:-_TRAILER_BYTES], stored[-_TRAILER_BYTES:]
        if trailer != _MAGIC + hashlib.sha256(data).digest():
            raise LabelError(f"{path} is damaged. Restore it from a backup.")
        return data

    def has(self, sha256: str) -> bool:
        """Whether bytes are kept under this address."""
        return self._path(sha256).is_file()

    def addresses(self) -> Iterator[str]:
        """Every address that is kept, sorted."""
        for path in self._files():
            if re.fullmatch(r"[0-9a-f]{64}", path.stem):
                yield path.stem

    def verify(self) -> list[str]:
        """What is wrong with the kept files, in words; reads all of them."""
        problems = []
        for address in self.addresses():
            try:
                self.get(address)
            except LabelError as e:
                problems.append(str(e))
        return problems

    def _path(self, sha256: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise LabelError(f"A content address has 64 lower-case hex digits, got {sha256!r}.")
        return self.folder / sha256[:2] / f"{sha256}{_SUFFIX}"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"??/*{_SUFFIX}"))

    def _sweep(self) -> None:
        """Once: remove files that a killed process left half-written."""
        if self._is_swept:
            return
        self._is_swept = True
        oldest = time.time() - _LEFTOVER_AGE_S
        for path in self.folder.glob("??/*.part"):
            with suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _write_durably(path: Path, parts: tuple[bytes, ...]) -> None:
    """Whole or not at all: a temporary file, synced, renamed, and the folder synced."""
    fd, name = tempfile.mkstemp(suffix=".part", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as out:
            out.writelines(parts)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def copy_views(kept: ViewsStore, folder: Path) -> None:
    """Copy all that is kept into another folder, as it is; on return it is on disk.

    Raises:
        OSError: It cannot be read or written.
    """
    for address in kept.addresses():
        source = kept.folder / address[:2] / f"{address}{_SUFFIX}"
        target = folder / address[:2] / source.name
        if target.exists():
            continue
        make_private_folder(target.parent)
        shutil.copyfile(source, target)
        target.chmod(0o600)
        with target.open("rb+") as f:
            os.fsync(f.fileno())
    for made in sorted(folder.glob("??")):
        sync_folder(made)
