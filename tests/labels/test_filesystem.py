"""Which file system a path lies on."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cb2_assist.labels import filesystem
from cb2_assist.labels.filesystem import file_system_of, is_wal_safe, make_private_folder

NETWORK = ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "lustre", "remote"]


@pytest.mark.parametrize("kind", NETWORK)
def test_a_log_is_not_safe_over_a_network(kind: str) -> None:
    assert not is_wal_safe(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "apfs", "zfs", "tmpfs", "fuseblk", ""])
def test_a_log_is_safe_on_a_local_disk(kind: str) -> None:
    assert is_wal_safe(kind)


@pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="Linux")
def test_the_kernel_is_asked() -> None:
    assert file_system_of(Path("/proc/self")) == "proc"


def test_the_innermost_mount_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [("/", "ext4"), ("/home", "autofs"), ("/home", "nfs4"), ("/home/ada x", "CIFS")]
    monkeypatch.setattr(filesystem, "_linux_mounts", lambda: mounts)
    monkeypatch.setattr("sys.platform", "linux")
    assert file_system_of(Path("/homes/f")) == "ext4"
    assert file_system_of(Path("/home/f")) == "nfs4"
    assert file_system_of(Path("/home/ada x/f")) == "cifs"


def test_blanks_in_mount_points_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "disk / ext4 rw 0 0\nserver:/a /mnt/my\\040lab\\134x nfs4 rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda *_a, **_k: text)
    assert filesystem._linux_mounts() == [("/", "ext4"), ("/mnt/my lab\\x", "nfs4")]


def test_an_unknown_system_is_taken_for_local(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_a, **_k):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert filesystem._linux_mounts() == []
    assert filesystem._longest_mount(Path("/x"), []) == ""


def test_mac_mounts_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    out = "/dev/disk3s1 on / (apfs, local)\n//a@b/c on /Volumes/my on (x) (smbfs, nodev)\nodd\n"
    monkeypatch.setattr(
        filesystem.subprocess,
        "run",
        lambda *_a, **_k: filesystem.subprocess.CompletedProcess([], 0, stdout=out),
    )
    mounts = filesystem._mac_mounts()
    assert mounts[0] == ("/", "apfs")
    assert mounts[1][1] == "smbfs"


def test_new_folders_are_private_and_old_ones_stay(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    old = os.umask(0)
    try:
        make_private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(old)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path, tmp_path / "a", tmp_path / "a/b")]
    assert modes == [0o755, 0o700, 0o700]
