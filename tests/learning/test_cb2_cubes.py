"""Which part of ConnectomeBench2 a place is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from cb2_assist.core.errors import UsageError
from cb2_assist.learning.cb2_cubes import NO_CUBES, read_cubes

HEADER = "dataset,x0_nm,y0_nm,z0_nm,x1_nm,y1_nm,z1_nm,split\n"


def table(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "cubes.csv"
    path.write_text(header + "".join(f"{line}\n" for line in lines))
    return path


def test_a_cube_has_its_first_corner_and_not_its_second(tmp_path) -> None:
    cubes = read_cubes(
        table(tmp_path, "demo,0,0,0,100,100,100,test", "", "demo,100,0,0,200,1,1,val")
    )
    assert cubes.n == 2
    assert cubes.split_of("demo", [0, 0, 0]) == "test"
    assert cubes.split_of("demo", (99.9, 50, 50)) == "test"
    assert cubes.split_of("demo", (100, 0, 0)) == "val"
    assert cubes.split_of("demo", (100, 50, 50)) == "unknown"


def test_another_dataset_of_the_same_place_is_unknown(tmp_path) -> None:
    cubes = read_cubes(table(tmp_path, "minnie65,0,0,0,9,9,9,test"))
    assert cubes.split_of("fib25", (1, 1, 1)) == "unknown"
    assert NO_CUBES.split_of("minnie65", (1, 1, 1)) == "unknown"


def test_where_cubes_overlap_nothing_that_may_be_tested_on_is_let_out(tmp_path) -> None:
    cubes = read_cubes(table(tmp_path, "d,0,0,0,9,9,9,train", "d,5,0,0,20,9,9,test"))
    assert [cubes.split_of("d", (x, 1, 1)) for x in (1, 6)] == ["train", "test"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("demo,0,0,0,1,1,1,dev", "train, val or test"),
        ("demo,0,0,0,1,1,test", "a cube is"),
        ("demo,0,0,zero,1,1,1,test", "a cube is"),
        ("demo,0,0,nan,1,1,1,test", "a cube is"),
        (",0,0,0,1,1,1,test", "a cube is"),
        ("demo,5,0,0,1,1,1,test", "beyond the first"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, why) -> None:
    with pytest.raises(UsageError, match=f"line 3: .*{why}"):
        read_cubes(table(tmp_path, "demo,0,0,0,1,1,1,val", line))


def test_another_kind_of_file_is_told(tmp_path) -> None:
    with pytest.raises(UsageError, match="begins with dataset,x0_nm"):
        read_cubes(table(tmp_path, header="x,y,z\n"))
    with pytest.raises(UsageError, match="has no cubes"):
        read_cubes(table(tmp_path))
    with pytest.raises(UsageError, match="cannot be read"):
        read_cubes(tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        read_cubes(tmp_path / "binary.csv")
