"""Views beside the label file."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cb2_assist.core.errors import LabelError, LabelFileReadOnlyError
from cb2_assist.labels import views_store
from cb2_assist.labels.views_store import ViewsStore


def address(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


@pytest.fixture
def views(tmp_path: Path) -> ViewsStore:
    return ViewsStore(tmp_path / "labels.sqlite.views")


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000], ids=len)
def test_bytes_come_back(views: ViewsStore, data: bytes) -> None:
    assert not views.has(address(1))
    views.put(data, address(1))
    assert views.has(address(1))
    assert views.get(address(1)) == data
    assert ViewsStore(views.folder).get(address(1)) == data
    assert list(views.addresses()) == [address(1)]


def test_nothing_is_made_before_the_first_put(views: ViewsStore) -> None:
    assert views.verify() == []
    assert not views.folder.exists()


def test_the_first_bytes_at_an_address_stay(views: ViewsStore) -> None:
    views.put(b"one", address(1))
    before = views._path(address(1)).stat()
    views.put(b"one", address(1))
    assert views._path(address(1)).stat() == before


def test_files_lie_by_prefix_and_only_the_owner_reads_them(views: ViewsStore) -> None:
    views.put(b"x", address(1))
    path = views.folder / address(1)[:2] / f"{address(1)}.cb2v"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(views.folder.stat().st_mode) == 0o700


def test_damage_is_found(views: ViewsStore) -> None:
    for n in range(3):
        views.put(b"data", address(n))
    path = views._path(address(1))
    path.write_bytes(b"dada" + path.read_bytes()[4:])
    views._path(address(2)).write_bytes(b"cb")
    with pytest.raises(LabelError, match="is damaged"):
        views.get(address(1))
    assert len(views.verify()) == 2


def test_a_file_that_was_cut_short_is_written_again(views: ViewsStore) -> None:
    views.put(b"data", address(1))
    views._path(address(1)).write_bytes(b"da")
    views.put(b"data", address(1))
    assert views.get(address(1)) == b"data"


def test_missing_views_are_told(views: ViewsStore) -> None:
    with pytest.raises(LabelError, match="--keep-views off"):
        views.get(address(1))


@pytest.mark.parametrize("name", ["", "abc", "../" * 21 + "x", address(1).upper(), address(1)[:-1]])
def test_only_addresses_are_names(views: ViewsStore, name: str) -> None:
    with pytest.raises(LabelError, match="64 lower-case hex digits"):
        views.put(b"x", name)


def test_a_full_disk_leaves_no_trace(views: ViewsStore, monkeypatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(views_store.os, "fsync", full)
    with pytest.raises(LabelFileReadOnlyError, match=r"disk is full.*views were not kept"):
        views.put(b"x", address(1))
    monkeypatch.undo()
    assert [p for p in views.folder.rglob("*") if p.is_file()] == []
    views.put(b"x", address(1))


def test_old_leftovers_of_a_killed_process_are_swept(views: ViewsStore) -> None:
    views.put(b"x", address(1))
    old, new = (views._path(address(1)).with_name(n) for n in ("a.part", "b.part"))
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    assert views.verify() == []
    ViewsStore(views.folder).put(b"x", address(2))
    assert not old.exists()
    assert new.exists()


def test_many_threads_may_put_the_same(views: ViewsStore) -> None:
    data = os.urandom(50_000)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: views.put(data, address(n % 3)), range(60)))
    assert views.verify() == []
    assert len(list(views.addresses())) == 3
