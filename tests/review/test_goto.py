"""What a person may type or paste into the go box, and what it is taken as."""

from __future__ import annotations

import pytest

from cb2_assist.core.errors import AssistError, BadIdError, BadRequestError, OutOfBoundsError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.review.goto import MAX_CHARS, Extent, read_target, viewer_point

MINNIE = Extent(
    "minnie", Resolution(4, 4, 40), Resolution(8, 8, 40),
    BoxVx(PointVoxel(13000, 14000, 14000), PointVoxel(224000, 185000, 28000)),
)  # fmt: skip
"""The viewer shows 4 x 4 x 40 nm, the segmentation has 8 x 8 x 40, and it starts off the origin."""
ROOT = 864691135341362885
AT = PointNm(240_002.0, 207_874.0, 851_620.0)
"""Centre of the viewer's voxel 60000, 51968, 21290."""


@pytest.mark.parametrize(
    "text",
    [
        "60000, 51968, 21290",
        "60000 51968 21290",
        "60000,51968,21290",
        "60000\t51968\t21290",
        "  60000;51968;21290 \n",
        "[60000, 51968, 21290]",
        "(60000, 51968, 21290)",
        "[60000. 51968. 21290.]",
        "array([60000, 51968, 21290])",
        "{x: 60000, y: 51968, z: 21290}",
        '{"x": 60000, "y": 51968, "z": 21290}',
        "x 60000, y 51968, z 21290",
        "x=60000 y=51968 z=21290",
        "X: 60000 Y: 51968 Z: 21290",
        "z 21290, y 51968, x 60000",
        "x (4nm) 60000 y (4nm) 51968 z (40nm) 21290",
        "x(4nm)60000y(4nm)51968z(40nm)21290",
        "x 60000 4nm y 51968 4nm z 21290 40nm",
        "60000, 51968, 21290 voxels",
        "60000 vx 51968 vx 21290 vx",
        "position: 60000, 51968, 21290",
        "6e4, 51968, 21290",
        "60000.5, 51968.5, 21290.5",
        "240002, 207874, 851620 nm",
        "240002nm, 207874nm, 851620nm",
        "240.002, 207.874, 851.620 µm",
        "240.002 207.874 851.620 um",
        "`60000, 51968, 21290`",
        "６００００, 51968, 21290",
        "60000\u00a051968\u202f21290",
    ],
)
def test_forms_of_one_place(text: str) -> None:
    target = read_target(text, MINNIE)
    assert tuple(target.point) == pytest.approx(tuple(AT), abs=1e-6)
    assert (target.segments, target.site) == ((), None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("60000, 51968, 21290", "voxels of 4 × 4 × 40 nm"),
        ("x (8nm) 30000 y (8nm) 25984 z (40nm) 21290", "voxels of 8 × 8 × 40 nm"),
        ("240002, 207874, 851620 nm", "nm"),
        ("240.002, 207.874, 851.620 microns", "µm"),
        (str(ROOT), f"segment {ROOT}"),
        (f"60000, 51968, 21290 {ROOT}", f"voxels of 4 × 4 × 40 nm, segment {ROOT}"),
    ],
)
def test_what_it_was_taken_as_is_said(text: str, words: str) -> None:
    assert read_target(text, MINNIE).words == words


@pytest.mark.parametrize(
    "text",
    [
        str(ROOT),
        f" {ROOT}\n",
        f"[{ROOT}]",
        f"'{ROOT}'",
        f"segment {ROOT}",
        f"root id: {ROOT}",
        f"seg={ROOT}",
        f"#{ROOT}",
    ],
)
def test_a_segment_alone(text: str) -> None:
    target = read_target(text, MINNIE)
    assert (target.point, target.segments) == (None, (ROOT,))


@pytest.mark.parametrize(
    "text",
    [
        f"60000, 51968, 21290 {ROOT}",
        f"60000, 51968, 21290, {ROOT}",
        f"{ROOT} 60000 51968 21290",
        f"60000, 51968, 21290; segment {ROOT}",
        f"segment {ROOT} at 60000, 51968, 21290",
        f"{ROOT} @ 60000, 51968, 21290",
        f"{ROOT} at 240002, 207874, 851620 nm",
        f"(60000, 51968, 21290) id={ROOT}",
        f"{ROOT}\t60000\t51968\t21290",
    ],
)
def test_a_place_and_a_segment(text: str) -> None:
    target = read_target(text, MINNIE)
    assert target.segments == (ROOT,)
    assert tuple(target.point) == pytest.approx(tuple(AT))


@pytest.mark.parametrize("text", ["17 at 60000, 51968, 21290", "60000, 51968, 21290 segment 17"])
def test_a_small_id_needs_a_word(text: str) -> None:
    assert read_target(text, MINNIE).segments == (17,)
    with pytest.raises(BadRequestError, match="Mark the segment"):
        read_target("60000, 51968, 21290, 17", MINNIE)


def test_the_largest_id_is_exact() -> None:
    assert read_target(str(2**64 - 1), MINNIE).segments == (2**64 - 1,)
    for text in (str(2**64), "9" * 400, f"segment {2**64}"):
        with pytest.raises(BadIdError):
            read_target(text, MINNIE)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("240002, 207874, 851620", "As nm it lies inside: write `240002, 207874, 851620 nm`"),
        ("60000, 51968, 21290 nm", "As voxel it lies inside: write `60000, 51968, 21290 voxel`"),
    ],
)
def test_a_place_inside_only_in_the_other_unit_is_told(text: str, hint: str) -> None:
    with pytest.raises(OutOfBoundsError) as told:
        read_target(text, MINNIE)
    assert hint in str(told.value)
    written = str(told.value).partition("`")[2].partition("`")[0]
    assert read_target(written, MINNIE).point is not None


def test_a_place_outside_in_every_unit_says_where_the_volume_is() -> None:
    with pytest.raises(OutOfBoundsError) as told:
        read_target("1, 2, 3", MINNIE)
    assert "26000, 28000, 14000" in str(told.value)
    assert "inside" not in str(told.value)
    with pytest.raises(OutOfBoundsError, match=r"104000, 112000, 560000\) to .* nm"):
        read_target("-1, -2, -3 nm", MINNIE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "''",
        "hello",
        "1 2",
        "1, 2, 3, 4, 5",
        "1,2,3 4,5,6",
        "nan, nan, nan",
        "inf 1 2",
        "1e999, 1, 1",
        "60000, 51968, 21290 nm voxel",
        "60000 nm 51968 voxel 21290 nm",
        "60000 parsec 51968 21290",
        "x 1 y 2",
        "x 1 x 2 x 3",
        "x 1 y 2 z 3 4",
        "10x20x30",
        "0",
        "segment 0",
        "segment 1 segment 2",
        "12.5",
        "17 nm",
        "-864691135341362885",
        "1, 2, 3 🙂",
        "https://example.org/",
        "https://example.org/#section",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "SELECT * FROM labels",
        "../../etc/passwd",
        "\x00",
        "[" * 50_000,
        "1" * 5000,
        "1." + "0" * 100_000,
        "x" * (MAX_CHARS + 1),
    ],
)
def test_garbage_is_refused_in_a_few_words(text: str) -> None:
    with pytest.raises(AssistError) as told:
        read_target(text, MINNIE)
    assert 10 < len(str(told.value)) < 400


def test_whole_numbers_mean_a_voxels_centre_and_fractions_a_position() -> None:
    voxel = Resolution(4, 4, 40)
    assert viewer_point((10, 20, 3), voxel) == PointNm(42, 82, 140)
    assert viewer_point((10.5, 20.5, 3.5), voxel) == PointNm(42, 82, 140)
    assert viewer_point((10.25, 20.0, 3.0), voxel) == PointNm(41, 80, 120)
