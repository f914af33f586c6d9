"""Times on FIB-25 (250^3 voxels): import, opening, cutouts, one voxel. Run with -s to see them.

The bounds are several times what two busy cores need; they catch a cache that does not work.
"""

from __future__ import annotations

import time

import pytest
from fixtures_fib25 import fib25

from cb2_assist.core.geometry import BoxVx, PointNm
from cb2_assist.datasets.local import open_dataset_file

CENTRE = PointNm(1255.0, 1255.0, 1255.0)

pytestmark = [pytest.mark.shared, pytest.mark.benchmark]


def timed_ms(label, call, *args):
    start = time.perf_counter()
    got = call(*args)
    ms = 1e3 * (time.perf_counter() - start)
    print(f"{label}: {ms:.2f} ms")
    return got, ms


@pytest.mark.parametrize("which", ["ffn", "ws"])
def test_import_and_reading_are_quick(shared_data, tmp_path, which):
    path, ms = timed_ms(f"\n{which} import", fib25, shared_data, tmp_path / which, which)
    assert ms < 120_000
    files = [f for f in path.parent.rglob("*") if f.is_file()]
    print(f"{which} on disk: {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")
    source, _ = timed_ms(f"{which} open", open_dataset_file, path)
    source.segment_at(CENTRE)  # loads cloud-volume
    box129, box250 = BoxVx.around(CENTRE, 640, source.resolution), source.bounds
    assert box129.shape == (129, 129, 129)
    for name, box, most_ms in (("129^3", box129, 200), ("250^3", box250, 800)):
        fresh = open_dataset_file(path)
        timed_ms(f"{which} {name} cold", fresh.cutout, box)
        best = min(timed_ms(f"{which} {name} warm", fresh.cutout, box)[1] for _ in range(5))
        assert best < most_ms
    start = time.perf_counter()
    for i in range(1000):
        fresh.segment_at(PointNm(2.5 * i, 1000.0, 2.5 * i))
    per_call = time.perf_counter() - start
    print(f"{which} segment_at: {per_call:.3f} ms")
    assert per_call < 5
