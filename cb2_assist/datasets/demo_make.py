"""Makes the demo's volumes: tissue, micrographs, true bodies, automatic segmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.datasets.demo_bodies import connected_bodies
from cb2_assist.datasets.demo_format import VOXEL
from cb2_assist.datasets.demo_grain import micrographs
from cb2_assist.datasets.demo_micrograph import Sections, cut_sections, expose
from cb2_assist.datasets.demo_render import Scene, make_scene, render_section
from cb2_assist.datasets.demo_segment import segment
from cb2_assist.datasets.demo_tissue import grow


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides every bit of a demo.

    Attributes:
        shape: Voxels along x, y, z.
        dendrites: How many dendrites run through the volume.
        seed: Random seed.
    """

    shape: tuple[int, int, int]
    dendrites: int
    seed: int

    @property
    def size_nm(self) -> tuple[float, float, float]:
        """Extent of the volume."""
        return (
            self.shape[0] * VOXEL[0],
            self.shape[1] * VOXEL[1],
            self.shape[2] * VOXEL[2],
        )


SHIPPED = Recipe(shape=(768, 768, 100), dendrites=7, seed=7)
"""The demo of `--dataset demo`: 6.1 x 6.1 x 4 um."""


@dataclass(frozen=True, slots=True)
class DemoVolume:
    """A made demo; all arrays ``[z, y, x]``.

    Attributes:
        levels: uint8 stored grey levels, from which `micrographs` makes the EM.
        truth: int32 bodies from 1.
        seg: int32 segments from 1.
    """

    levels: NDArray[np.uint8]
    truth: NDArray[np.int32]
    seg: NDArray[np.int32]


def prepare(recipe: Recipe) -> tuple[Scene, Sections]:
    """Grow the tissue and draw the fate of its sections."""
    tissue = grow(recipe.size_nm, recipe.seed, recipe.dendrites, limit=4000)
    sections = cut_sections(recipe.shape[2], recipe.size_nm, recipe.seed)
    return make_scene(tissue, recipe.seed, sections.shifts, sections.fold), sections


def image_section(
    scene: Scene, sections: Sections, recipe: Recipe, index: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Labels and stored levels ``[y, x]`` of one whole section."""
    nx, ny, _ = recipe.shape
    labels, grey = render_section(scene, index, (0, nx), (0, ny))
    padded = np.pad(grey, 1, mode="edge")
    return labels, expose(padded, index, (0, 0), sections, scene.table)


def make(recipe: Recipe) -> DemoVolume:
    """Make everything; about ten minutes of one core for `SHIPPED`."""
    scene, sections = prepare(recipe)
    made = [image_section(scene, sections, recipe, k) for k in range(recipe.shape[2])]
    levels = np.stack([m[1] for m in made])
    truth = connected_bodies(np.stack([m[0] for m in made]))
    seg = segment(micrographs(levels, recipe.seed))
    return DemoVolume(levels, truth, seg)
