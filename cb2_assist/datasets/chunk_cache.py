"""A bounded store of decoded chunks that loads each chunk once, whoever asks first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from numpy.typing import NDArray

DEFAULT_BYTES = 1 << 30

Chunk = NDArray[Any]


class ChunkKey(NamedTuple):
    """One cell of one layer's chunk grid."""

    layer: str
    x: int
    y: int
    z: int


class ChunkCache:
    """Least recently used chunks, up to a number of bytes. Safe to use from several threads.

    Args:
        load: Reads one chunk. Called without the lock; never twice at once for one key.
        max_bytes: Oldest chunks go while the sum is larger; the newest always stays.
    """

    def __init__(self, load: Callable[[ChunkKey], Chunk], max_bytes: int = DEFAULT_BYTES) -> None:
        self._load = load
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._chunks: OrderedDict[ChunkKey, Chunk] = OrderedDict()
        self._loading: dict[ChunkKey, Future[Chunk]] = {}
        self._bytes = 0

    def get(self, key: ChunkKey) -> Chunk:
        """The chunk, read-only; loaded now unless it is here or somebody is loading it.

        Raises:
            Exception: Whatever `load` raised; a later call tries again.
        """
        with self._lock:
            chunk = self._chunks.get(key)
            if chunk is not None:
                self._chunks.move_to_end(key)
                return chunk
            future = self._loading.get(key)
            mine = future is None
            if future is None:
                future = self._loading[key] = Future()
        if mine:
            self._fill(key, future)
        return future.result()

    def clear(self) -> None:
        """Forget all chunks."""
        with self._lock:
            self._chunks.clear()
            self._bytes = 0

    def _fill(self, key: ChunkKey, future: Future[Chunk]) -> None:
        try:
            chunk = self._load(key)
            chunk.flags.writeable = False
        except BaseException as e:
            with self._lock:
                del self._loading[key]
            future.set_exception(e)
            raise
        with self._lock:
            del self._loading[key]
            self._chunks[key] = chunk
            self._bytes += chunk.nbytes
            while self._bytes > self._max_bytes and len(self._chunks) > 1:
                _, old = self._chunks.popitem(last=False)
                self._bytes -= old.nbytes
        future.set_result(chunk)
