"""Datasets by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from dataset_makers import make_dataset, make_volume

from cb2_assist.core.errors import UnknownDatasetError, UsageError
from cb2_assist.datasets.catalogue import PUBLIC, Graph, built_in_hosts, flat_file
from cb2_assist.datasets.cave import opening
from cb2_assist.datasets.cave.opening import stack_of_entry
from cb2_assist.datasets.cave.trust import Trust
from cb2_assist.datasets.dataset_file import SPECIES, check_name, local_folder
from cb2_assist.datasets.registry import DatasetEntry, Registry, known_datasets, open_dataset


def entry(name: str) -> DatasetEntry:
    return DatasetEntry(name, "t", "CC0 1.0", False, None, f"cb2-assist --dataset {name}")


def test_a_name_is_taken_only_once():
    registry = Registry()
    registry.add(entry("a"), lambda: None)
    with pytest.raises(ValueError, match="already a dataset 'a'"):
        registry.add(entry("a"), lambda: None)
    assert [e.name for e in registry.entries()] == ["a"]


def test_known_datasets_say_how_to_open_them():
    known = known_datasets()
    assert "demo" in [e.name for e in known]
    assert len({e.name for e in known}) == len(known)
    for e in known:
        assert e.licence
        assert e.name in e.how_to_open


@pytest.mark.parametrize("entry", PUBLIC, ids=lambda e: e.name)
def test_every_public_dataset_says_what_a_label_and_a_person_need(entry):
    tissue = entry.specimen
    assert tissue.species in SPECIES
    assert all((entry.title, tissue.licence, tissue.citation, tissue.facts, entry.unverified))
    assert check_name(entry.name) == entry.name
    assert 0 <= tissue.mip < 4
    trust = Trust(built_in_hosts(), [])
    if isinstance(entry.where, Graph):
        stack = stack_of_entry(entry)
        assert trust.allows(stack.server)
        assert all(trust.allows(f"https://{host}") for host in entry.where.hosts)
        assert stack.pinned is (entry.name not in ("minnie65-edit", "banc"))
    else:
        dataset = flat_file(entry)
        assert dataset.mip == tissue.mip
        assert local_folder(dataset.em) is local_folder(dataset.segmentation) is None


def test_the_public_datasets_are_all_there():
    names = "minnie65 minnie65-edit minnie65-static flywire flywire-static h01 h01-static fish1 "
    names += "banc v1dd hemibrain manc male-cns"
    assert {e.name for e in PUBLIC} == set(names.split())


def test_a_graph_opens_by_name_with_its_own_settings(monkeypatch):
    seen = []
    monkeypatch.setattr(opening, "open_graph", lambda stack: seen.append(stack) or "open")
    assert open_dataset("minnie65", None) == "open"
    (stack,) = seen
    assert (stack.server, stack.datastack) == ("https://global.daf-apis.com", "minnie65_public")
    assert (stack.species, stack.mip, stack.pinned) == ("mouse", 1, True)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UnknownDatasetError, match=r"no dataset 'nope'. Known: .*demo"):
        open_dataset("nope", None)


def test_exactly_one_of_name_and_file_is_needed(tmp_path):
    with pytest.raises(UsageError, match="neither were given"):
        open_dataset(None, None)
    with pytest.raises(UsageError, match="both were given"):
        open_dataset("demo", tmp_path / "dataset.toml")


def test_dataset_file_is_opened(tmp_path):
    path = make_dataset(tmp_path / "d", make_volume((30, 30, 30)), "mine")
    assert open_dataset(None, path).info.name == "mine"


def test_listing_datasets_loads_no_heavy_package():
    code = (
        "import sys; from cb2_assist.datasets.registry import known_datasets; known_datasets(); "
        "import cb2_assist.datasets.local, cb2_assist.datasets.importer; "
        "print(sorted({'cloudvolume', 'torch', 'scipy', 'skimage'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
