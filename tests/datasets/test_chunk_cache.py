"""The chunk cache: bounded, shared between threads, honest about failures."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cb2_assist.datasets.chunk_cache import ChunkCache, ChunkKey


def key(i: int) -> ChunkKey:
    return ChunkKey("seg", i, 0, 0)


class Loader:
    """Counts loads; chunks of 1 kB."""

    def __init__(self) -> None:
        self.loads: list[int] = []
        self.fail = False

    def __call__(self, k: ChunkKey):
        self.loads.append(k.x)
        if self.fail:
            raise OSError("no disk")
        return np.full(1024, k.x, np.uint8)


def test_oldest_chunks_go_when_the_bound_is_reached():
    load = Loader()
    cache = ChunkCache(load, 3 * 1024)
    for i in (0, 1, 2, 0, 3, 0, 2, 1):
        assert cache.get(key(i))[0] == i
    assert load.loads == [0, 1, 2, 3, 1]


def test_chunk_larger_than_the_bound_is_still_served():
    load = Loader()
    cache = ChunkCache(load, 10)
    assert [int(cache.get(key(i))[0]) for i in (1, 1, 2, 1)] == [1, 1, 2, 1]
    assert load.loads == [1, 2, 1]


def test_chunks_cannot_be_changed():
    chunk = ChunkCache(Loader()).get(key(1))
    with pytest.raises(ValueError, match="read-only"):
        chunk[0] = 9


def test_failure_reaches_everyone_waiting_and_is_not_kept():
    load, asked = Loader(), threading.Event()
    release = threading.Event()

    def stuck(k):
        asked.set()
        assert release.wait(60)
        return load(k)

    cache = ChunkCache(stuck)
    load.fail = True
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, key(1))
        assert asked.wait(60)
        second = pool.submit(cache.get, key(1))
        release.set()
        for waiting in (first, second):
            with pytest.raises(OSError, match="no disk"):
                waiting.result(10)
    load.fail = False
    assert cache.get(key(1))[0] == 1


def test_clear_forgets():
    load = Loader()
    cache = ChunkCache(load)
    cache.get(key(1))
    cache.clear()
    cache.get(key(1))
    assert load.loads == [1, 1]
