"""How long one decision takes to render; run with ``-m benchmark -s`` to see the figures."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scenes import STATISTICS, voxel_centres, window_of
from surfaces import embree

from cb2_assist.datasets.importer import grid_of
from cb2_assist.datasets.meshes import mesh_of
from cb2_assist.datasets.source import Mesh
from cb2_assist.views.em import render_em
from cb2_assist.views.encode import encode_cb2, encode_clean
from cb2_assist.views.hitmap import render_hits
from cb2_assist.views.mesh_hits import mesh_hits
from cb2_assist.views.oblique import render_oblique
from cb2_assist.views.stack import from_bytes, render, to_bytes, warm_up

EXTENT = 640.0


@pytest.fixture(scope="module")
def window():
    """Two bumpy neurites that touch, 129 x 129 x 129 voxels, about half of each view covered."""
    x, y, z = voxel_centres((129, 129, 129))
    rng = np.random.default_rng(0)
    bumps = 60 * np.sin(x / 70) * np.sin(y / 50) * np.sin(z / 60)
    label = np.zeros(x.shape, np.uint8, order="F")
    label[np.hypot(y - 160, z + x / 3) < 220 + bumps] = 1
    label[(np.hypot(y + 240, x) < 190 - bumps) & (label == 0)] = 2
    em = np.asfortranarray(rng.normal(120, 25, x.shape).clip(0, 255).astype(np.uint8))
    warm_up(meshes=True, em_oblique=True)
    return window_of(label, em=em)


def median_ms(call, repeats=15):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return float(np.median(times))


@pytest.mark.benchmark
def test_one_decision_renders_in_tens_of_milliseconds(window):
    stack = render(
        window,
        extent_nm=EXTENT,
        profile="clean",
        statistics=STATISTICS,
        features=np.zeros(24, np.float32),
    )
    data = to_bytes(stack)
    figures = {
        "hit map": median_ms(lambda: render_hits(window, EXTENT)),
        "EM, clean": median_ms(lambda: render_em(window, EXTENT, "clean", STATISTICS)),
        "EM, oblique": median_ms(lambda: render_oblique(window, EXTENT, "clean", STATISTICS)),
        "EM, cb2": median_ms(lambda: render_em(window, EXTENT, "cb2", STATISTICS)),
        "encode, clean": median_ms(lambda: encode_clean(stack.hits, EXTENT)),
        "encode, cb2": median_ms(lambda: encode_cb2(stack.hits)),
        "to_bytes": median_ms(lambda: to_bytes(stack)),
        "from_bytes": median_ms(lambda: from_bytes(data)),
    }
    with ThreadPoolExecutor(2) as pool:

        def sixteen():
            list(pool.map(lambda _: render_hits(window, EXTENT), range(16)))

        figures["16 hit maps, 2 threads"] = median_ms(sixteen, 3)
    for name, ms in figures.items():
        print(f"{name:24s} {ms:7.1f} ms")
    print(f"{'container':24s} {len(data) / 1e3:7.1f} kB")
    total = figures["hit map"] + figures["EM, clean"] + figures["encode, clean"]
    print(f"{'one decision':24s} {total:7.1f} ms")
    assert total < 200  # ten times the aim: shared machines are noisy
    assert len(data) < 400_000


@pytest.mark.benchmark
def test_the_mesh_path_is_not_slower_than_embree(window):
    """One join, both segments, three views; meshes are at hand in memory for all."""
    label, whole = np.asarray(window.label), (slice(0, 129),) * 3
    meshes = []
    for value in (1, 2):
        size = int((label == value).sum())
        meshes.append(Mesh(*mesh_of(label, value, whole, size, grid_of((10.0, 10.0, 10.0)))))
    anchor = np.array(tuple(window.site.point))
    lists = [(m.vertices - anchor, m.faces) for m in meshes]

    def by_embree():
        for vertices, faces in lists:
            embree(vertices, faces, EXTENT)

    figures = {
        "labels": median_ms(lambda: render_hits(window, EXTENT)),
        "meshes": median_ms(lambda: mesh_hits(tuple(meshes), window.site.point, EXTENT, "clean")),
        "Embree, numpy shading": median_ms(by_embree, 5),
    }
    faces = sum(len(m.faces) for m in meshes)
    print(f"\n{faces} triangles, {label.size / 1e6:.1f} million voxels")
    for name, ms in figures.items():
        print(f"{name:24s} {ms:7.1f} ms  {ms / figures['labels']:6.1f} x labels")
    assert figures["meshes"] < 1.5 * figures["Embree, numpy shading"]
