"""Kernels where numba's cache cannot be written."""

import os
import subprocess
import sys

from cb2_assist.views.jit import kernel


def test_a_function_that_cannot_be_cached_is_compiled_all_the_same():
    namespace = {}
    exec("def twice(x):\n    return 2 * x", namespace)  # no source file, so no place for a cache
    assert kernel(namespace["twice"])(21) == 42


def test_an_unusable_cache_folder_does_not_break_the_program():
    code = """
import os
import numba.core.caching as caching
from cb2_assist.views.jit import kernel
def refuse(*_):
    raise OSError(30, "Read-only file system")
caching._CacheLocator.ensure_cache_path = refuse
from cb2_assist.views.hitmap import _first_hits
import numpy as np
print(_first_hits(np.ones((5, 5, 5), np.uint8), 2)[0].tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "NUMBA_CACHE_DIR": "/dev/null/nowhere"},
    )
    assert done.stdout.strip() == "[[[0]], [[-1]]]"
