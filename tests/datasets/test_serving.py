"""Files below /data/PREFIX/: found as stored, never outside the root."""

from __future__ import annotations

import pytest

from cb2_assist.datasets.serving import resolve, source_url


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "8_8_8").mkdir(parents=True)
    (root / "mesh").mkdir()
    (root / "info").write_text("{}")
    (root / "8_8_8" / "0-64_0-64_0-64.gz").write_bytes(b"zipped")
    (root / "8_8_8" / "plain").write_bytes(b"plain")
    (root / "mesh" / "12:0").write_text("{}")
    (root / "mesh" / "12:0:0.gz").write_bytes(b"zipped")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "root-too").mkdir()
    (tmp_path / "root-too" / "file").write_text("secret")
    return root


@pytest.mark.parametrize(
    ("asked", "stored", "kind", "encoding"),
    [
        ("info", "info", "application/json", None),
        ("8_8_8/0-64_0-64_0-64", "8_8_8/0-64_0-64_0-64.gz", "application/octet-stream", "gzip"),
        ("8_8_8/plain", "8_8_8/plain", "application/octet-stream", None),
        ("mesh/12:0", "mesh/12:0", "application/json", None),
        ("mesh/12:0:0", "mesh/12:0:0.gz", "application/octet-stream", "gzip"),
    ],
)
def test_file_is_found_with_its_type_and_encoding(root, asked, stored, kind, encoding):
    found = resolve(root, asked)
    assert found is not None
    assert found.path == root / stored
    assert (found.content_type, found.content_encoding) == (kind, encoding)


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "/",
        "mesh",
        "mesh/",
        "none",
        "/info",
        "//info",
        "./info",
        "../secret",
        "mesh/../../secret",
        "mesh/../info",
        "..",
        "../root-too/file",
        "..\\secret",
        "mesh\\..\\info",
        "info\0",
        "info/x",
        "x" * 5000,
    ],
)
def test_nothing_else_is_found(root, asked):
    assert resolve(root, asked) is None


def test_absolute_path_of_a_real_file_is_not_found(root):
    assert resolve(root, str(root / "info")) is None


def test_links_that_leave_the_root_are_not_followed(root, tmp_path):
    (root / "file").symlink_to(tmp_path / "secret")
    (root / "packed.gz").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path / "root-too")
    assert [resolve(root, p) for p in ("file", "packed", "folder/file")] == [None] * 3


def test_links_inside_the_root_and_a_linked_root_work(root, tmp_path):
    (root / "again").symlink_to(root / "info")
    (tmp_path / "alias").symlink_to(root)
    assert resolve(root, "again").path == root / "info"
    assert resolve(tmp_path / "alias", "info").path == root / "info"


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("fib/em", "precomputed://https://name:9000/data/fib/em"),
        ("/fib/em/", "precomputed://https://name:9000/data/fib/em"),
        ("precomputed://https://host/em", "precomputed://https://host/em"),
        ("graphene://middleauth+https://host/t", "graphene://middleauth+https://host/t"),
        ("graphene:///graph/x/table/t", "graphene://https://name:9000/graph/x/table/t"),
    ],
)
def test_local_volumes_are_named_by_the_browsers_own_address(path: str, wanted: str) -> None:
    assert source_url(path, "https://name:9000") == wanted
