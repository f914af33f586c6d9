"""Draws how each decision looks in one step, and makes it look so.

Drawing and making are apart: a draw is a few numbers from a random stream that belongs to one
decision of one step, so every process of a distributed run knows the draws of the whole batch, and
makes only its own images. No label takes part in a draw.

A mirrored or turned geometry image is the image of a mirrored or turned scene: its normals, which
are in world axes, are mirrored and turned with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.channels import EmChannel, EmView, GeometryChannel, GeometryView
from cb2_assist.learning.recipe import Recipe
from cb2_assist.views.hitmap import CAMERAS

Image = NDArray[np.float32]

_A, _B = GeometryChannel.MASK_A, GeometryChannel.MASK_B
_NORMAL = int(GeometryChannel.NORMAL_X)
_SECTIONS = (GeometryView.TOP, EmView.XY)
"""Images that look along z, in which a turn mixes no thick sections with fine pixels."""


@dataclass(frozen=True, slots=True)
class Move:
    """One of the eight symmetries of a square: a turn about the falling diagonal, then mirrors."""

    transpose: bool
    mirror_columns: bool
    mirror_rows: bool


@dataclass(frozen=True, slots=True)
class GeometryDraw:
    """One geometry image."""

    view: GeometryView
    move: Move
    hide: bool
    """Show the two sides as one segment; the mask head learns to tell them apart."""


@dataclass(frozen=True, slots=True)
class EmDraw:
    """One EM image: grey becomes ``grey * gain + offset`` plus noise."""

    view: EmView
    move: Move
    gain: float
    offset: float
    noise: float
    noise_seed: int


@dataclass(frozen=True, slots=True)
class Draw:
    """How one decision looks in one step.

    Attributes:
        swap: Which of the two segments is called A, in all its images.
        geometry, em: Empty when the decision shows no image in this step.
    """

    swap: bool
    geometry: tuple[GeometryDraw, ...]
    em: tuple[EmDraw, ...]


def draw(recipe: Recipe, rng: np.random.Generator) -> Draw:
    """Draw one decision's looks; the same generator state gives the same looks."""
    if rng.random() < recipe.drop_images:
        return Draw(False, (), ())
    half = max(1, recipe.views_per_decision // 2)
    swap = bool(rng.random() < 0.5)
    geometry = tuple(
        GeometryDraw(view, _move(view, recipe, rng), bool(rng.random() < recipe.hide_partner))
        for view in (GeometryView(int(v)) for v in rng.permutation(len(GeometryView))[:half])
    )
    em = tuple(
        EmDraw(
            view,
            _move(view, recipe, rng),
            gain=float(rng.uniform(0.75, 1.3)),
            offset=float(rng.uniform(-0.35, 0.35)),
            noise=float(rng.uniform(0, 0.25)),
            noise_seed=int(rng.integers(2**62)),
        )
        for view in (EmView(int(v)) for v in rng.permutation(len(EmView))[:half])
    )
    return Draw(swap, geometry, em)


def _move(view: GeometryView | EmView, recipe: Recipe, rng: np.random.Generator) -> Move:
    turns = recipe.turns == "all" or (
        recipe.turns == "sections" and any(view is section for section in _SECTIONS)
    )
    transpose, columns, rows = (bool(r < 0.5) for r in rng.random(3))
    return Move(transpose and turns, columns, rows)


def geometry_image(stack: NDArray[np.float16], how: GeometryDraw, swap: bool) -> Image:
    """One image of a decision's geometry, float32, (7, px, px), before anything is hidden.

    Args:
        stack: The decision's geometry, (3, 7, px, px).
        how: Which view, and how it is moved.
        swap: Whether A and B change places.
    """
    image = move_geometry(stack[how.view].astype(np.float32), how.view, how.move)
    if swap:
        image[[_A, _B]] = image[[_B, _A]]
    return image


def hide_sides(image: Image) -> Image:
    """The same image with both segments as one, A; B is empty."""
    out = image.copy()
    out[_A] = np.maximum(image[_A], image[_B])
    out[_B] = 0
    return out


def move_geometry(image: Image, view: GeometryView, move: Move) -> Image:
    """Mirror and turn a geometry image, its world normals with it; a copy."""
    camera = CAMERAS[view]
    right, up = _NORMAL + camera.right_axis, _NORMAL + camera.up_axis
    image = image.copy()
    if move.transpose:
        # columns become rows: what pointed right points down, what pointed down points right
        image = np.ascontiguousarray(image.transpose(0, 2, 1))
        was_right, was_up = image[right] * camera.right_sign, image[up].copy()
        image[right], image[up] = -was_up * camera.right_sign, -was_right
    if move.mirror_columns:
        image = np.ascontiguousarray(image[:, :, ::-1])
        image[right] *= -1
    if move.mirror_rows:
        image = np.ascontiguousarray(image[:, ::-1])
        image[up] *= -1
    return image


def em_image(stack: Image, how: EmDraw, swap: bool) -> Image:
    """One EM image of a decision, float32, (3, px, px).

    Args:
        stack: The decision's EM planes, scaled, (3, 3, px, px).
        how: Which plane, how it is moved, and its grey values.
        swap: Whether A and B change places.
    """
    image: Image = stack[how.view]
    if how.move.transpose:
        image = image.transpose(0, 2, 1)
    if how.move.mirror_columns:
        image = image[:, :, ::-1]
    if how.move.mirror_rows:
        image = image[:, ::-1]
    image = image.copy()
    a, b = EmChannel.MASK_A, EmChannel.MASK_B
    if swap:
        image[[a, b]] = image[[b, a]]
    grey = image[EmChannel.EM]
    noise = np.random.default_rng(how.noise_seed).normal(0, how.noise, grey.shape)
    image[EmChannel.EM] = grey * how.gain + how.offset + noise
    return image
