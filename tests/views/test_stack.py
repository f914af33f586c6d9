"""The container: exact, deterministic, small, and it notices damage."""

import hashlib
import json
import struct
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
from scenes import STATISTICS, random_blobs, window_of

from cb2_assist.core.errors import BadRequestError, LabelError
from cb2_assist.views import stack as stack_module
from cb2_assist.views.encode import encode
from cb2_assist.views.hitmap import HitMap
from cb2_assist.views.stack import (
    ViewStack,
    content_sha256,
    from_bytes,
    render,
    to_bytes,
    warm_up,
)

FEATURES = np.array([0.5, -3, np.inf, 1e-30], np.float32)


@pytest.fixture(scope="module", params=["clean", "cb2"])
def stack(request):
    rng = np.random.default_rng(1)
    shape = (65, 65, 65)
    window = window_of(random_blobs(rng, shape), em=rng.integers(0, 256, shape).astype(np.uint8))
    return render(
        window,
        extent_nm=320.0,
        profile=request.param,
        statistics=STATISTICS,
        features=FEATURES,
    )


@pytest.fixture(scope="module", params=["oblique", "meshes", "both"])
def second(request, stack):
    """A stack that only version 2 can hold."""
    rng = np.random.default_rng(2)
    plane = rng.integers(0, 256, (3, 224, 224)).astype(np.uint8)
    return replace(
        stack,
        em_oblique=None if request.param == "meshes" else plane,
        geometry_from="labels" if request.param == "oblique" else "meshes",
    )


def arrays(stack):
    return (stack.hits.depth_nm, stack.hits.normal_i8, stack.em, stack.features)


def header_of(data):
    (length,) = struct.unpack("<I", data[8:12])
    return json.loads(data[12 : 12 + length])


def rebuilt(data, change):
    """The container with its header changed."""
    (length,) = struct.unpack("<I", data[8:12])
    header = header_of(data)
    change(header)
    text = json.dumps(header).encode()
    return data[:8] + struct.pack("<I", len(text)) + text + data[12 + length :]


def test_a_round_trip_keeps_every_bit(stack):
    back = from_bytes(to_bytes(stack))
    for got, expected in zip(arrays(back), arrays(stack), strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    assert (back.extent_nm, back.profile) == (stack.extent_nm, stack.profile)
    np.testing.assert_array_equal(back.geometry(), stack.geometry())


def test_geometry_is_the_encoding_that_the_profile_names(stack):
    expected = encode(stack.profile, stack.hits, 320.0)
    np.testing.assert_array_equal(stack.geometry(), expected)


def test_equal_stacks_give_equal_bytes(stack):
    copies = [np.asfortranarray(a) if a.ndim > 1 else a.copy() for a in arrays(stack)]
    same = ViewStack(HitMap(*copies[:2]), *copies[2:], stack.extent_nm, stack.profile)
    assert to_bytes(same) == to_bytes(stack)
    assert to_bytes(from_bytes(to_bytes(stack))) == to_bytes(stack)


def test_the_content_address_covers_everything_that_matters(stack):
    depth, normal, em, features = arrays(stack)
    other = em.copy()
    other[2, 1, 100, 100] ^= 1
    variants = [
        stack,
        ViewStack(stack.hits, other, features, stack.extent_nm, stack.profile),
        ViewStack(stack.hits, em, features[:-1], stack.extent_nm, stack.profile),
        ViewStack(stack.hits, em, features, 321.0, stack.profile),
        ViewStack(HitMap(depth, -normal), em, features, stack.extent_nm, stack.profile),
        ViewStack(stack.hits, em, features, stack.extent_nm, "other"),
    ]
    addresses = {content_sha256(v) for v in variants}
    assert len(addresses) == len(variants)
    assert all(len(a) == 64 for a in addresses)


def test_the_content_address_is_pinned():
    zeros = HitMap(np.zeros((3, 2, 224, 224), np.int16), np.zeros((3, 2, 3, 224, 224), np.int8))
    em = np.zeros((3, 3, 224, 224), np.uint8)
    stack = ViewStack(zeros, em, np.zeros(2, np.float32), 640.0, "clean")
    digest = hashlib.sha256()
    for name, dtype, shape, size in (
        ("depth_nm", "<i2", (3, 2, 224, 224), 2),
        ("normal_i8", "|i1", (3, 2, 3, 224, 224), 1),
        ("em", "|u1", (3, 3, 224, 224), 1),
        ("features", "<f4", (2,), 4),
    ):
        digest.update(f"{name} {dtype} {shape}\n".encode())
        digest.update(bytes(int(np.prod(shape)) * size))
    digest.update(b"clean 640.0")
    assert content_sha256(stack) == digest.hexdigest()


def test_the_container_reads_as_its_docstring_says(stack):
    data = to_bytes(stack)
    assert data[:8] == b"CB2VIEWS"
    (length,) = struct.unpack("<I", data[8:12])
    header = json.loads(data[12 : 12 + length])
    assert header["profile"] == stack.profile
    assert header["sha256"] == content_sha256(stack)
    at = 12 + length
    for entry, expected in zip(header["arrays"], arrays(stack), strict=True):
        raw = zlib.decompress(data[at : at + entry["bytes"]])
        at += entry["bytes"]
        dtype, shape = np.dtype(entry["dtype"]), entry["shape"]
        if entry["filter"] == "none":
            got = np.frombuffer(raw, dtype).reshape(shape)
        else:
            planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, *shape)
            items = sum(p.astype(np.int64) << (8 * i) for i, p in enumerate(planes))
            items = items.cumsum(-1).cumsum(-2).astype(f"u{dtype.itemsize}")
            got = items.view(dtype)
        np.testing.assert_array_equal(got, expected)
    assert at == len(data)


def test_version_2_keeps_the_oblique_plane_and_where_geometry_came_from(second):
    data = to_bytes(second)
    assert header_of(data)["version"] == 2
    back = from_bytes(data)
    for got, expected in zip(arrays(back), arrays(second), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert back.geometry_from == second.geometry_from
    if second.em_oblique is None:
        assert back.em_oblique is None
    else:
        assert back.em_oblique.dtype == np.uint8
        np.testing.assert_array_equal(back.em_oblique, second.em_oblique)
    assert to_bytes(back) == data
    assert content_sha256(back) == content_sha256(second)


def test_the_content_address_covers_what_version_2_adds(stack):
    plane = np.zeros((3, 224, 224), np.uint8)
    other = plane.copy()
    other[2, 100, 100] = 1
    variants = [
        stack,
        replace(stack, em_oblique=plane),
        replace(stack, em_oblique=other),
        replace(stack, geometry_from="meshes"),
        replace(stack, em_oblique=plane, geometry_from="meshes"),
    ]
    assert len({content_sha256(v) for v in variants}) == len(variants)


@pytest.mark.parametrize("geometry_from", ["labels", "meshes"])
def test_version_3_keeps_the_width_of_em_planes(stack, geometry_from):
    third = replace(stack, em_extent_nm=97.5, geometry_from=geometry_from)
    data = to_bytes(third)
    back = from_bytes(data)

    assert header_of(data)["version"] == 3
    assert (back.em_extent_nm, back.geometry_from) == (97.5, geometry_from)
    assert back.em_half_nm == 97.5
    assert stack.em_half_nm == stack.extent_nm
    addresses = {content_sha256(s) for s in (third, stack, replace(third, em_extent_nm=98.0))}
    assert len(addresses) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.pop("em_extent_nm"),
        lambda h: h.update(em_extent_nm=None),
        lambda h: h.update(em_extent_nm=0),
        lambda h: h.update(em_extent_nm=1e999),
        lambda h: h.update(em_extent_nm=98.0),
        lambda h: h.update(version=2),
    ],
)
def test_a_wrong_header_of_version_3_is_refused(stack, change):
    data = to_bytes(replace(stack, em_extent_nm=97.5))
    with pytest.raises(LabelError):
        from_bytes(rebuilt(data, change))


def test_em_planes_of_their_own_width_show_what_planes_of_that_width_show():
    window = window_of(random_blobs(np.random.default_rng(3), (65, 65, 65)))
    how = {"profile": "cb2", "statistics": STATISTICS, "features": FEATURES, "em_oblique": True}
    wide = render(window, extent_nm=320.0, **how)
    narrow = render(window, extent_nm=160.0, **how)
    both = render(window, extent_nm=320.0, em_extent_nm=160.0, **how)

    np.testing.assert_array_equal(both.hits.depth_nm, wide.hits.depth_nm)
    np.testing.assert_array_equal(both.em, narrow.em)
    np.testing.assert_array_equal(both.em_oblique, narrow.em_oblique)
    assert (both.em != wide.em).any()
    assert render(window, extent_nm=320.0, em_extent_nm=320.0, **how).em_extent_nm is None


def test_damage_to_version_2_is_refused(second):
    data = bytearray(to_bytes(second))
    rng = np.random.default_rng(0)
    for at in [*range(12), *rng.integers(12, len(data), 40)]:
        broken = data.copy()
        broken[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(LabelError, match="cannot be read"):
            from_bytes(bytes(broken))
    for keep in (100, 5000, len(data) - 1):
        with pytest.raises(LabelError, match="cannot be read"):
            from_bytes(bytes(data[:keep]))


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(version=1),
        lambda h: h.update(version=3),
        lambda h: h.update(geometry_from="guesses"),
        lambda h: h.pop("geometry_from"),
        lambda h: h["arrays"].append(h["arrays"][0]),
        lambda h: h["arrays"].pop(),
        lambda h: h["arrays"][-1].update(name="em"),
    ],
)
def test_a_wrong_header_of_version_2_is_refused(second, change):
    with pytest.raises(LabelError, match="cannot be read"):
        from_bytes(rebuilt(to_bytes(second), change))


@pytest.mark.parametrize("keep", [0, 5, 10, 50, 300, 5000, -1000, -1])
def test_a_truncated_container_is_refused(stack, keep):
    with pytest.raises(LabelError, match="cannot be read"):
        from_bytes(to_bytes(stack)[:keep])


def test_a_container_with_any_damaged_byte_is_refused(stack):
    data = bytearray(to_bytes(stack))
    rng = np.random.default_rng(0)
    for at in [*range(12), *rng.integers(12, len(data), 60)]:
        broken = data.copy()
        broken[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(LabelError, match="cannot be read"):
            from_bytes(bytes(broken))


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update(version=2),
        lambda h: h.update(version=2, geometry_from="labels"),
        lambda h: h.update(version=9),
        lambda h: h.update(profile="raw"),
        lambda h: h.update(profile="cb2" if h["profile"] == "clean" else "clean"),
        lambda h: h.update(extent_nm=float("nan")),
        lambda h: h.update(extent_nm="wide"),
        lambda h: h.update(arrays=None),
        lambda h: h.pop("arrays"),
        lambda h: h["arrays"].pop(),
        lambda h: h["arrays"][0].update(shape=[3, 2, 224, 1 << 40]),
        lambda h: h["arrays"][3].update(shape=[-1]),
        lambda h: h["arrays"][3].update(shape=[1 << 40]),
        lambda h: h["arrays"][1].update(dtype="|O"),
        lambda h: h["arrays"][1].update(bytes=-4),
        lambda h: h["arrays"][1].update(bytes=1.5),
        lambda h: h["arrays"].__setitem__(2, "em"),
        lambda h: h.update(sha256=""),
    ],
)
def test_a_container_with_a_wrong_header_is_refused(stack, change):
    with pytest.raises(LabelError, match="cannot be read"):
        from_bytes(rebuilt(to_bytes(stack), change))


@pytest.mark.parametrize("text", [b"[" * 60_000, b"[1]", b"\xff\xfe", b"{}", b""])
def test_a_container_with_a_senseless_header_is_refused(text):
    with pytest.raises(LabelError, match="cannot be read"):
        from_bytes(b"CB2VIEWS" + struct.pack("<I", len(text)) + text)


def test_something_after_the_last_array_is_refused(stack):
    with pytest.raises(LabelError, match="1 bytes follow"):
        from_bytes(to_bytes(stack) + b"x")


def test_a_stack_of_another_shape_is_not_written(stack):
    small = ViewStack(stack.hits, stack.em[:2], stack.features, 320.0, stack.profile)
    with pytest.raises(ValueError, match="em has shape"):
        to_bytes(small)


def test_an_unknown_profile_is_refused_before_any_work():
    with pytest.raises(BadRequestError, match="'raw'"):
        render(None, extent_nm=1.0, profile="raw", statistics=STATISTICS, features=FEATURES)


def test_warming_up_leaves_nothing_to_compile():
    code = """
import numpy as np
from numba.core import event
from cb2_assist.core.geometry import *
from cb2_assist.core.records import *
from cb2_assist.datasets.source import EmStatistics, Mesh
from cb2_assist.views.encode import encode
from cb2_assist.views.hitmap import HitMap
from cb2_assist.views.site import SiteWindow
from cb2_assist.views.stack import render, warm_up
warm_up(meshes=True, em_oblique=True)
ramp = Mesh(100.0 * np.array([[0, 0, 0], [3, 0, 1], [0, 3, 2]]), np.array([[0, 1, 2]]))
big = np.zeros((80, 80, 80), np.uint8, order="F")
for label in (big[5:38, 2:35, 7:40], np.ones((33, 33, 33), np.uint8)):
    label.flags.writeable = False
    site = Site(Kind.JOIN, SegmentId(1), SegmentId(2), PointNm(165, 165, 165))
    box = BoxVx(PointVoxel(0, 0, 0), PointVoxel(33, 33, 33))
    window = SiteWindow(site, Resolution(10, 10, 10), box, 160.0, label, label, label)
    with event.install_recorder("numba:compile") as compiled:
        for profile in ("clean", "cb2"):
            for meshes in (None, (ramp, None)):
                stack = render(window, extent_nm=160.0, profile=profile, meshes=meshes,
                               statistics=EmStatistics(1, 2), features=np.zeros(3, np.float32),
                               em_oblique=True)
                stack.geometry()
            hits = HitMap(stack.hits.depth_nm[..., ::2, ::2], stack.hits.normal_i8[..., ::2, ::2])
            encode(profile, hits, 160.0)
    print(len(compiled.buffer))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["0", "0"]


def test_warming_up_survives_a_cache_that_cannot_be_written(monkeypatch):
    failures = iter([OSError(28, "No space left on device")] * 3)
    real = stack_module.render

    def render_once_the_disk_is_ignored(*args, **kwargs):
        for failure in failures:
            raise failure
        return real(*args, **kwargs)

    monkeypatch.setattr(stack_module, "render", render_once_the_disk_is_ignored)
    warm_up()
    assert next(failures, None) is None


def test_warming_up_does_not_hide_an_error_that_stays(monkeypatch):
    def broken(*_args, **_kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(stack_module, "render", broken)
    with pytest.raises(OSError, match="Input/output"):
        warm_up()
