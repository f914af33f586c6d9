"""Compile a function with numba, on machines where its cache cannot be written too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile on first call, release the GIL while running, keep machine code for the next start.

    numba keeps the machine code beside the source file, else in the user's cache folder, or where
    NUMBA_CACHE_DIR says. Without any writable place it refuses to decorate; then the function is
    compiled anew in each process, which costs seconds, not answers.
    """
    try:
        return cast("F", numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # "cannot cache function: no locator available"
        return cast("F", numba.njit(nogil=True)(function))


def cache_folder() -> Path | None:
    """Where compiled code is kept between starts; None when no place can be written."""
    try:
        cached = numba.njit(cache=True)(_nothing)
    except RuntimeError:
        return None
    return Path(str(cached.stats.cache_path))


def _nothing() -> None:
    pass
