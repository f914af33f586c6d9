"""The one table of what the network's input channels mean, in order.

Views are written and weights are read in this order. Order and meaning of the geometry and EM
channels follow ConnectomeBench2's public tensors (arXiv 2606.21116), so that its checkpoints and
our exports fit each other.
"""

from __future__ import annotations

from enum import IntEnum

VIEW_SIZE_PX = 224
"""Rows and columns of every view."""


class GeometryView(IntEnum):
    """Position along a stack's view axis: orthographic cameras of ConnectomeBench2.

    ==== ===== ========== === ============ =========
    view looks from       up  image right  image up
    ==== ===== ========== === ============ =========
    FRONT +x   -x side    +z  -y           +z
    SIDE  +y   -y side    +z  +x           +z
    TOP   -z   +z side    +y  +x           +y
    ==== ===== ========== === ============ =========
    """

    FRONT, SIDE, TOP = range(3)


class GeometryChannel(IntEnum):
    """Position along a geometry view's channel axis."""

    SILHOUETTE, DEPTH, NORMAL_X, NORMAL_Y, NORMAL_Z, MASK_A, MASK_B = range(7)


class EmView(IntEnum):
    """Cardinal EM planes through the site: rows the first letter's axis, columns the second's."""

    XY, XZ, YZ = range(3)


class EmChannel(IntEnum):
    """Position along an EM view's channel axis: grey, segment A, segment B."""

    EM, MASK_A, MASK_B = range(3)


VIEW_NAMES: tuple[str, ...] = ("front", "side", "top", "em_xy", "em_xz", "em_yz")
"""Names of a decision's views, geometry first, in the order in which the network reads them."""
