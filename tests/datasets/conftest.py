"""The shipped demo, opened once in a fresh cache, and a small one made from its recipe."""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cb2_assist.datasets.demo import PACK, unpacked_demo
from cb2_assist.datasets.demo_make import SHIPPED, DemoVolume, Recipe, make, prepare
from cb2_assist.datasets.demo_pack import write_pack
from cb2_assist.datasets.local import LocalSource, open_dataset_file

SMALL_DEMO = Recipe(shape=(192, 192, 16), dendrites=1, seed=11)


class OpenDemo:
    """A demo with its whole volumes at hand, axes z, y, x."""

    def __init__(self, source: LocalSource) -> None:
        self.source = source

    @functools.cached_property
    def _both(self):
        return self.source.cutout(self.source.bounds)

    def em(self):
        return self._both.em.T

    def seg(self):
        return self._both.seg.T

    @functools.cache  # noqa: B019 - one instance a session
    def truth(self):
        return self.source.truth_cutout(self.source.bounds).T


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo-cache")


@pytest.fixture(scope="session")
def shipped_demo(demo_cache) -> OpenDemo:
    return OpenDemo(open_dataset_file(unpacked_demo(demo_cache)))


@pytest.fixture(scope="session")
def shipped_levels():
    def read(index: int) -> np.ndarray:
        with zipfile.ZipFile(PACK) as pack:
            picture = Image.open(io.BytesIO(pack.read(f"em/{index:03d}.webp")))
            return np.asarray(picture)[..., 0]

    return read


@pytest.fixture(scope="session")
def shipped_tissue():
    """Scene and sections from which the shipped demo was rendered."""
    return prepare(SHIPPED)


@pytest.fixture(scope="session")
def small_demo() -> DemoVolume:
    return make(SMALL_DEMO)


@pytest.fixture(scope="session")
def small_pack(small_demo, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("demo-pack") / "small.zip"
    write_pack(path, small_demo, SMALL_DEMO)
    return path
