"""`examples/large_root.py`: its parts, apart from the minutes that the whole takes."""

from __future__ import annotations

import large_root
import numpy as np
import pytest


def test_routes_are_counted_by_what_is_asked() -> None:
    asked = "/segmentation/api/v1/table/large/node/72057594037927937/subgraph"
    again = "/segmentation/api/v1/table/large/node/72057594037927999/subgraph"

    assert large_root._route(asked) == large_root._route(again)
    assert large_root._route(asked) == "subgraph"
    assert large_root._route("/data/em/64_64_64/0-8_0-8_0-8") == "em"


def test_the_arbour_has_a_trunk_and_its_branches_have_numbers_of_their_own() -> None:
    middle = large_root.at_chunk(32)
    x, y, z = (np.array([int(v // large_root.VOXEL_NM)]) for v in middle)

    assert large_root._tube(x, y, z).all()
    assert not large_root._tube(x, y + 4 * large_root.CHUNK_VX, z + 3).all()


@pytest.mark.parametrize("axis", range(3))
def test_the_volume_is_whole_chunks(axis: int) -> None:
    assert large_root.SHAPE_VX[axis] % large_root.CHUNK_VX == 0
