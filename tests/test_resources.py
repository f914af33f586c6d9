"""Shipped folders are found, and their absence is told."""

import pytest

from cb2_assist import resources
from cb2_assist.core.errors import AssistError
from cb2_assist.resources import resource_dir


def test_the_page_is_found():
    assert (resource_dir("static") / "index.html").is_file()


def test_the_package_comes_before_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "cb2_assist"
    for folder in (package / "static", tmp_path / "static"):
        folder.mkdir(parents=True)
        (folder / "index.html").touch()
    monkeypatch.setattr(resources, "_PACKAGE", package)

    assert resource_dir("static") == package / "static"


def test_an_empty_folder_does_not_hide_the_checkout(tmp_path, monkeypatch):
    (tmp_path / "cb2_assist" / "models").mkdir(parents=True)
    (tmp_path / "models" / "one").mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "cb2_assist")

    assert resource_dir("models") == tmp_path / "models"


def test_an_incomplete_installation_is_told_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "cb2_assist")
    with pytest.raises(AssistError, match=r"'models' is missing.*Install cb2-assist again"):
        resource_dir("models")
