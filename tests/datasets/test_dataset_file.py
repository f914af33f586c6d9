"""dataset.toml: round trip and every way to get it wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cb2_assist.core.errors import DatasetError
from cb2_assist.datasets.dataset_file import (
    CaveTable,
    DatasetFile,
    local_folder,
    read_dataset_file,
    write_dataset_file,
)
from cb2_assist.datasets.source import EmStatistics

GOOD = 'name = "a"\nem = "precomputed://file://em"\nsegmentation = "precomputed://file://seg"\n'


def write(folder, body: str, head: str = "[dataset]\n"):
    path = folder / "dataset.toml"
    path.write_text(head + body)
    return path


def test_what_is_written_is_read_back(tmp_path):
    dataset = DatasetFile(
        name="a.b-c_1",
        em=f"precomputed://file://{tmp_path}/em",
        segmentation="precomputed://gs://bucket/seg",
        truth=f"precomputed://file://{tmp_path}/truth",
        species="fly",
        licence='CC "BY" 3.0 \\ US',
        citation="Müller & 神経 2020, doi:10.1/x; 𝔸",
        version="0123456789ab",
        em_statistics=EmStatistics(120.25, 33.125),
        complete=True,
        geometry="meshes",
        mip=2,
    )
    write_dataset_file(tmp_path / "dataset.toml", dataset)
    assert read_dataset_file(tmp_path / "dataset.toml") == dataset


def test_relative_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    path = write(tmp_path, GOOD)
    monkeypatch.chdir("/")
    dataset = read_dataset_file(path)
    assert local_folder(dataset.em) == tmp_path / "em"
    assert local_folder(dataset.segmentation) == tmp_path / "seg"
    assert dataset.truth is None
    assert dataset.species == "other"
    assert dataset.licence == "unknown"
    assert dataset.geometry == "labels"


def test_absolute_folders_may_lie_elsewhere(tmp_path):
    path = write(tmp_path, GOOD.replace("file://em", "file:///elsewhere/em"))
    assert str(local_folder(read_dataset_file(path).em)) == "/elsewhere/em"


def test_public_addresses_stay_as_they_are(tmp_path):
    path = write(tmp_path, GOOD.replace("precomputed://file://em", "precomputed://gs://b/em"))
    dataset = read_dataset_file(path)
    assert dataset.em == "precomputed://gs://b/em"
    assert local_folder(dataset.em) is None


CAVE = '[cave]\ndatastack = "mini"\nserver = "https://global.example.com"\n'


def test_a_datastack_needs_no_volumes_and_no_name(tmp_path):
    dataset = read_dataset_file(write(tmp_path, CAVE, ""))
    assert (dataset.name, dataset.em, dataset.segmentation) == ("mini", "", "")
    assert dataset.cave == CaveTable("https://global.example.com", "mini")


@pytest.mark.parametrize(
    "given", ['"2024-06-05T10:10:01Z"', "2024-06-05T10:10:01Z", '"2024-06-05T12:10:01+02:00"']
)
def test_a_state_is_a_time_in_utc(tmp_path, given):
    dataset = read_dataset_file(write(tmp_path, f"{CAVE}timestamp = {given}\n", ""))
    assert dataset.cave.timestamp == datetime(2024, 6, 5, 10, 10, 1, tzinfo=UTC)


def test_a_graph_may_be_named_beside_its_em(tmp_path):
    graph = "graphene://middleauth+https://local.example.com/segmentation/table/t_1"
    dataset = read_dataset_file(write(tmp_path, GOOD.replace("precomputed://file://seg", graph)))
    assert dataset.cave == CaveTable(
        "https://local.example.com",
        graph="graphene://https://local.example.com/segmentation/table/t_1",
    )
    assert local_folder(dataset.em) == tmp_path / "em"


BAD = {
    "no table": ("", "x = 1\n", r"no \[dataset\] table"),
    "table is a number": ("", "dataset = 1\n", r"no \[dataset\] table"),
    "not TOML": ("[dataset\n", GOOD, "not valid TOML"),
    "key twice": ("[dataset]\n", GOOD + GOOD, "not valid TOML"),
    "no name": ("[dataset]\n", GOOD.replace('name = "a"\n', ""), "lacks name"),
    "empty em": ("[dataset]\n", GOOD.replace("precomputed://file://em", ""), "lacks em"),
    "nothing": ("[dataset]\n", "", "lacks name, em, segmentation"),
    "misspelt": ("[dataset]\n", GOOD + 'license = "x"\n', "unknown keys license"),
    "number for text": ("[dataset]\n", GOOD + "licence = 3\n", "licence must be text"),
    "species": ("[dataset]\n", GOOD + 'species = "cat"\n', "Known: mouse, fly, human"),
    "geometry": ("[dataset]\n", GOOD + 'geometry = "voxels"\n', "labels or meshes"),
    "name with slash": ("[dataset]\n", GOOD.replace('"a"', '"../a"'), "letters, digits"),
    "lines in citation": ("[dataset]\n", GOOD + 'citation = "a\\nb"\n', "one line"),
    "escape": ("[dataset]\n", GOOD.replace("file://em", "file://../em"), "leaves the folder"),
    "deep escape": ("[dataset]\n", GOOD.replace("file://em", "file://a/../../em"), "leaves"),
    "truth escapes": ("[dataset]\n", GOOD + 'truth = "precomputed://file://../t"\n', "leaves"),
    "bare path": ("[dataset]\n", GOOD.replace("precomputed://file://em", "em"), "FOLDER"),
    "graphene": (
        "[dataset]\n",
        GOOD.replace("precomputed://file://seg", "graphene://https://x/y"),
        "not a graph's address",
    ),
    "graph as em": (
        "[dataset]\n",
        GOOD.replace("precomputed://file://em", "graphene://https://x/segmentation/table/t"),
        "not a precomputed volume",
    ),
    "token for em": (
        "[dataset]\n",
        GOOD.replace("precomputed://file://em", "precomputed://middleauth+https://x/em"),
        "not a precomputed volume",
    ),
    "cave without server": ('[cave]\ndatastack = "mini"\n', "", r"\[cave\] lacks server"),
    "cave without name": ('[cave]\nserver = "https://x"\n', "", r"\[cave\] lacks datastack"),
    "cave is text": ('cave = "x"\n', "", "must be a table"),
    "cave misspelt": (CAVE + 'stack = "x"\n', "", "unknown keys stack"),
    "cave and volumes": ("[dataset]\n", f"{GOOD}\n{CAVE}", "remove one of the two"),
    "cave server": (CAVE.replace("https://global", "ftp://global"), "", "Write https://HOST"),
    "cave server's page": (CAVE.replace(".com", ".com/a?b"), "", "Write https://HOST"),
    "cave server's user": (CAVE.replace("https://", "https://me:pw@"), "", "Write https://HOST"),
    "cave name": (CAVE.replace('"mini"', '"../mini"'), "", "no datastack"),
    "cave time": (CAVE + 'timestamp = "yesterday"\n', "", "not a time"),
    "mip": ("[dataset]\n", GOOD + "mip = -1\n", "whole number from 0"),
    "half statistics": ("[dataset]\n", GOOD + "em_mean = 1.0\n", "em_mean and em_std"),
    "negative std": ("[dataset]\n", GOOD + "em_mean = 1.0\nem_std = -1\n", "not negative"),
    "nan": ("[dataset]\n", GOOD + "em_mean = nan\nem_std = 1.0\n", "two numbers"),
    "complete": ("[dataset]\n", GOOD + "complete = 1\n", "true or false"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_file_is_explained(tmp_path, case):
    head, body, message = BAD[case]
    path = write(tmp_path, body, head)
    with pytest.raises(DatasetError, match=message) as caught:
        read_dataset_file(path)
    assert str(path) in str(caught.value)


def test_link_that_leads_out_is_an_escape(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "d" / "em").symlink_to(tmp_path / "outside")
    with pytest.raises(DatasetError, match="leaves the folder"):
        read_dataset_file(write(tmp_path / "d", GOOD))


def test_missing_file_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(DatasetError, match="import-volume makes one"):
        read_dataset_file(tmp_path / "none.toml")


@pytest.mark.parametrize("path", ["x" * 300, "~nosuchuser/d.toml", "\udcff.toml"])
def test_a_path_that_cannot_be_looked_at_is_explained(path):
    with pytest.raises(DatasetError, match="cannot be looked at: ") as refused:
        read_dataset_file(Path(path))
    str(refused.value).encode()


def test_folder_instead_of_file_gets_a_hint(tmp_path):
    write(tmp_path, GOOD)
    with pytest.raises(DatasetError, match=r"Did you mean .*dataset\.toml"):
        read_dataset_file(tmp_path)


def test_binary_file_is_explained(tmp_path):
    path = tmp_path / "d.toml"
    path.write_bytes(b"\xff\xfe[dataset]")
    with pytest.raises(DatasetError, match="not valid TOML"):
        read_dataset_file(path)
