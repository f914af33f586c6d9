"""Which file system a path lies on, and how to make a write there last."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

# SQLite's write-ahead log shares memory between processes through a mapped file, which network
# and pass-through file systems do not keep coherent (https://www.sqlite.org/wal.html, section 1;
# https://www.sqlite.org/useovernet.html).
# Every FUSE type counts (sshfs, rclone, s3fs …); ``fuseblk`` is a local disk.
_SHARED_OVER_A_NETWORK = re.compile(
    r"9p|afpfs|afs|autofs|beegfs|ceph|cifs|coda|davfs|drvfs|fakeowner|fuse\.|gfs|glusterfs|gpfs|"
    r"grpcfuse|lustre|ncpfs|nfs|ocfs|orangefs|osxfs|panfs|prl_fs|pvfs|quobyte|remote|smb|vboxsf|"
    r"virtiofs|vmhgfs|webdav|wekafs"
)


def file_system_of(path: Path) -> str:
    """Type of the file system that holds an existing path, e.g. ``ext4`` or ``nfs4``.

    Returns:
        The system's own name in lower case, ``remote`` for a Windows network drive, and an empty
        string when it cannot be told.
    """
    if sys.platform == "win32":
        return _windows_type(path)
    mounts = _mac_mounts() if sys.platform == "darwin" else _linux_mounts()
    return _longest_mount(path, mounts)


def is_wal_safe(file_system: str) -> bool:
    """Whether SQLite's write-ahead log may be used there; a file system that is not known is."""
    return _SHARED_OVER_A_NETWORK.match(file_system) is None


def sync_folder(folder: Path) -> None:
    """Make new names in a folder last through a power cut; Windows does so by itself."""
    if sys.platform != "win32":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def make_private_folder(folder: Path) -> None:
    """Create a folder and its missing parents with mode 0700, durably; existing ones stay as is."""
    if folder.is_dir():
        return
    make_private_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def _longest_mount(path: Path, mounts: list[tuple[str, str]]) -> str:
    """Type of the innermost mount; of two at one place the later hides the earlier."""
    target = path.resolve()
    best, found = -1, ""
    for place, kind in mounts:
        if target.is_relative_to(place) and len(place) >= best:
            best, found = len(place), kind.lower()
    return found


def _linux_mounts() -> list[tuple[str, str]]:
    try:
        lines = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    fields = [line.split(" ") for line in lines]
    return [(_unescape(f[1]), f[2]) for f in fields if len(f) > 2]


def _unescape(place: str) -> str:
    r"""Blanks and backslashes in a mount point are written as octal, e.g. ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), place)


def _mac_mounts() -> list[tuple[str, str]]:
    try:
        out = subprocess.run(
            ["/sbin/mount"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in out.splitlines():  # "/dev/disk3s1 on /System/Volumes/Data (apfs, local, ...)"
        head, _, options = line.rpartition(" (")
        _, on, place = head.partition(" on ")
        if on:
            found.append((place, options.split(",")[0].rstrip(")")))
    return found


def _windows_type(path: Path) -> str:
    anchor = path.resolve().anchor
    if anchor.startswith("\\\\"):
        return "remote"
    import ctypes

    drive_remote = 4
    kind = ctypes.windll.kernel32.GetDriveTypeW(anchor)  # type: ignore[attr-defined,unused-ignore]
    return "remote" if kind == drive_remote else ""
