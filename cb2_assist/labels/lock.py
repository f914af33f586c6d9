"""One server a label file: a lock that the system takes back when the process dies."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from cb2_assist.core.closing import Closing
from cb2_assist.core.errors import LabelFileLockedError
from cb2_assist.labels.failures import label_error
from cb2_assist.labels.filesystem import make_private_folder

# Windows locks are mandatory: locking a byte that is never written leaves the text readable
_LOCKED_BYTE = 1 << 30
_INFO_WAIT_S = 0.5
_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def server_lock_path(label_file: Path) -> Path:
    """The lock file beside a label file; two names of one file share it."""
    resolved = label_file.resolve()
    return resolved.with_name(f"{resolved.name}.server.lock")


class ServerLock(Closing):
    """Held for as long as a server uses a label file. Readers and fillers need none."""

    def __init__(self, label_file: Path, info: dict[str, Any]) -> None:
        """Take the lock; see `acquire_server_lock`."""
        self.path = server_lock_path(label_file)
        try:
            make_private_folder(self.path.parent)
            self._fd: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as e:
            raise label_error(self.path, e, "The server was not started.") from e
        try:
            _lock(self._fd)
        except OSError as e:
            holder = _read_info(self._fd)
            os.close(self._fd)
            self._fd = None
            if e.errno not in _HELD_BY_ANOTHER:
                raise label_error(self.path, e, "The server was not started.") from e
            raise LabelFileLockedError(_locked_text(label_file, holder)) from None
        self.update(info)

    def update(self, info: dict[str, Any]) -> None:
        """Say anew who holds the lock, e.g. once the port is known; pid and host are added."""
        if self._fd is None:
            return
        holder = {"pid": os.getpid(), "host": socket.gethostname(), **info}
        data = json.dumps(holder).encode()
        try:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.write(self._fd, data)
        except OSError as e:
            self.close()
            raise label_error(self.path, e, "The server was not started.") from e

    def close(self) -> None:
        """Let go; the empty lock file stays, since removing it would race with the next server."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)


def acquire_server_lock(label_file: Path, info: dict[str, Any]) -> ServerLock:
    """Make this process the one server of a label file.

    Args:
        label_file: Need not exist yet.
        info: ``url`` of the page, without its token, for the message that a second server gets.

    Raises:
        LabelFileLockedError: Another server has it; names its pid and URL.
        LabelError: The lock file cannot be made.
    """
    return ServerLock(label_file, info)


def holder_of(label_file: Path) -> dict[str, Any] | None:
    """Who serves a label file: ``pid``, ``host`` and ``url`` as far as known; None when nobody.

    The lock is taken for a moment and given back; a file that cannot be looked at counts as free.
    """
    try:
        fd = os.open(server_lock_path(label_file), os.O_RDWR)
    except OSError:
        return None
    try:
        _lock(fd)
    except OSError as e:
        return _read_info(fd) if e.errno in _HELD_BY_ANOTHER else None
    finally:
        os.close(fd)
    return None


def _locked_text(label_file: Path, holder: dict[str, Any]) -> str:
    who = f"process {holder.get('pid', 'unknown')}"
    if holder.get("host") not in (None, socket.gethostname()):
        who += f" on {holder['host']}"
    what = "script" if holder.get("what") == "script" else "server"
    url = holder.get("url")
    where = f" at {url}" if url else ""
    return (
        f"The label file {label_file} is in use by another cb2-assist {what} ({who}{where}). "
        f"Use that page, stop that {what}, or name another file with --labels sqlite:///PATH."
    )


def _read_info(fd: int) -> dict[str, Any]:
    """Who holds the lock; waits a moment for a holder that has only just taken it."""
    deadline = time.monotonic() + _INFO_WAIT_S
    while True:
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            got = json.loads(os.read(fd, 65536))
            if isinstance(got, dict):
                return got
        except (OSError, ValueError):
            pass
        if time.monotonic() > deadline:
            return {}
        time.sleep(0.02)


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
