"""How PyChunkedGraph packs layer, chunk and number of a node into 64 bits.

From the highest bit: 8 bits of layer, then x, y and z of the chunk with as many bits each as the
layer has, then the number within the chunk. Layer 1 holds supervoxels, layer 2 their connected
parts within one chunk; each further layer doubles the chunk's edge, and the last one holds roots.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LAYER_BITS = 8
SUPERVOXEL, LEVEL2 = 1, 2
_CHUNK_BITS = 10
"""Bits of a chunk's coordinate in layers 1 and 2, as in the public graphs."""

Chunk = tuple[int, int, int]
Ids = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class NodeIds:
    """Packs and unpacks ids of one graph.

    Attributes:
        layers: Number of layers; the last one holds roots.
        bits: Bits of one coordinate of a chunk, per layer.
    """

    layers: int
    bits: dict[int, int]

    @classmethod
    def for_chunks(cls, counts: Sequence[int]) -> NodeIds:
        """Layout for a volume of so many chunks along x, y, z.

        Raises:
            ValueError: There are more than 1024 along an axis.
        """
        if max(counts) > 2**_CHUNK_BITS:
            raise ValueError(f"at most {2**_CHUNK_BITS} chunks along an axis, got {tuple(counts)}")
        layers = math.ceil(math.log2(max(1, *counts))) + 2
        layers = max(layers, 3)
        upper = {n: max(1, layers - n) for n in range(3, layers + 1)}
        return cls(layers, {SUPERVOXEL: _CHUNK_BITS, LEVEL2: _CHUNK_BITS, **upper})

    def layer(self, node: int) -> int:
        """Layer of a node; 0 and more than `layers` occur in nonsense."""
        return node >> (64 - LAYER_BITS)

    def chunk(self, node: int) -> Chunk:
        """Chunk of a node, counted in chunks of its layer.

        Raises:
            KeyError: No such layer.
        """
        bits = self.bits[self.layer(node)]
        top, mask = 64 - LAYER_BITS, (1 << bits) - 1
        x, y, z = ((node >> (top - k * bits)) & mask for k in (1, 2, 3))
        return x, y, z

    def base(self, layer: int, chunk: Chunk) -> int:
        """Id of a chunk: that of its nodes with number 0."""
        bits, top = self.bits[layer], 64 - LAYER_BITS
        x, y, z = chunk
        return layer << top | x << (top - bits) | y << (top - 2 * bits) | z << (top - 3 * bits)

    def number(self, node: int) -> int:
        """Number of a node within its chunk."""
        return node & ((1 << self.number_bits(self.layer(node))) - 1)

    def number_bits(self, layer: int) -> int:
        """Bits that are left for the number within a chunk."""
        return 64 - LAYER_BITS - 3 * self.bits[layer]

    def chunks(self, nodes: Ids) -> NDArray[np.int64]:
        """Chunks of many supervoxels or level-2 nodes, shape (n, 3)."""
        bits, top = _CHUNK_BITS, 64 - LAYER_BITS
        mask = np.uint64((1 << bits) - 1)
        columns = [(nodes >> np.uint64(top - k * bits)) & mask for k in (1, 2, 3)]
        return np.stack(columns, axis=1).astype(np.int64)

    def bases(self, layer: int, chunks: NDArray[np.int64]) -> Ids:
        """`base` of many chunks of one layer, shape (n, 3)."""
        bits, top = self.bits[layer], 64 - LAYER_BITS
        c = chunks.astype(np.uint64)
        out: Ids = np.uint64(layer << top) | (
            (c[:, 0] << np.uint64(top - bits))
            | (c[:, 1] << np.uint64(top - 2 * bits))
            | (c[:, 2] << np.uint64(top - 3 * bits))
        )
        return out
