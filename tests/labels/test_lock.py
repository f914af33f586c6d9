"""One server a label file."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cb2_assist.core.errors import LabelError, LabelFileLockedError
from cb2_assist.labels import lock
from cb2_assist.labels.lock import acquire_server_lock, server_lock_path

URL = "http://127.0.0.1:8080"
HOLDER = """
import sys
from pathlib import Path
from cb2_assist.labels.lock import acquire_server_lock
held = acquire_server_lock(Path(sys.argv[1]), {"url": sys.argv[2]})
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "labels.sqlite"


def test_a_second_server_is_told_pid_and_url(file: Path) -> None:
    with (
        acquire_server_lock(file, {"url": URL}),
        pytest.raises(LabelFileLockedError, match=f"process {os.getpid()} at {URL}") as e,
    ):
        acquire_server_lock(file, {"url": "http://127.0.0.1:9"})
    assert e.value.http_status == 423
    with acquire_server_lock(file, {}):
        pass


def test_another_name_of_the_file_is_the_same_file(file: Path, tmp_path: Path) -> None:
    file.touch()
    link = tmp_path / "link.sqlite"
    link.symlink_to(file)
    with acquire_server_lock(file, {}), pytest.raises(LabelFileLockedError):
        acquire_server_lock(link, {})


def test_the_url_can_be_told_later(file: Path) -> None:
    with acquire_server_lock(file, {}) as held:
        held.update({"url": URL})
        with pytest.raises(LabelFileLockedError, match=URL):
            acquire_server_lock(file, {})
    held.update({"url": "after release, nothing"})
    assert server_lock_path(file).read_bytes() == b""


def test_a_lock_on_another_machine_names_it(file: Path) -> None:
    with (
        acquire_server_lock(file, {"host": "microscope-2"}),
        pytest.raises(LabelFileLockedError, match="on microscope-2"),
    ):
        acquire_server_lock(file, {})


def test_a_lock_without_a_readable_holder_still_holds(file: Path, monkeypatch) -> None:
    monkeypatch.setattr(lock, "_INFO_WAIT_S", 0.0)
    with acquire_server_lock(file, {}) as held:
        os.ftruncate(held._fd, 0)
        with pytest.raises(LabelFileLockedError, match="process unknown"):
            acquire_server_lock(file, {})


def test_a_killed_server_leaves_no_lock(file: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file), URL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(LabelFileLockedError, match=f"process {child.pid} at {URL}"):
        acquire_server_lock(file, {})
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    with acquire_server_lock(file, {}):
        assert stat.S_IMODE(server_lock_path(file).stat().st_mode) == 0o600


def test_a_lock_file_that_cannot_be_made_is_told(file: Path) -> None:
    server_lock_path(file).mkdir()
    with pytest.raises(LabelError, match="The server was not started"):
        acquire_server_lock(file, {})


def test_a_system_without_locks_is_told(file: Path, monkeypatch) -> None:
    def no_locks(_fd: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock, "_lock", no_locks)
    monkeypatch.setattr(lock, "_INFO_WAIT_S", 0.0)
    with pytest.raises(LabelError, match="No locks available"):
        acquire_server_lock(file, {})
