from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from cb2_assist.core.errors import ModelError
from cb2_assist.suggestions.in_use import ModelsInUse, Opened


class Shelf:
    """Opens models by name, and knows which were let go of."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def open(self, folder: Path) -> Opened:
        name = folder.name
        if name == "broken":
            raise ModelError("The card lacks something.")
        if name == "gone":
            raise FileNotFoundError(2, "No such file")
        pipeline = SimpleNamespace(
            facts=SimpleNamespace(name=name, sha256=f"sha-{name}"),
            calibrator=SimpleNamespace(id=f"cal-{name}"),
        )
        return Opened(folder, pipeline, lambda: self.closed.append(name))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def models(shelf: Shelf) -> ModelsInUse:
    return ModelsInUse(shelf.open(Path("one")), shelf.open)


def test_the_one_before_is_kept_for_what_is_on_screen_and_the_one_before_that_let_go(models, shelf):
    models.use(Path("two"))
    assert [p.facts.name for p in models.pipelines] == ["two", "one"]
    assert shelf.closed == []
    models.use(Path("three"))
    assert [p.facts.name for p in models.pipelines] == ["three", "two"]
    assert shelf.closed == ["one"]
    models.close()
    assert sorted(shelf.closed) == ["one", "three", "two"]


def test_a_question_under_way_is_finished_by_the_model_it_was_put_to(models, shelf):
    with models.asking() as mine:
        models.use(Path("two"))
        models.use(Path("three"))
        assert mine.facts.name == "one"
        assert shelf.closed == []
        with models.asking() as other:
            assert other.facts.name == "three"
    assert shelf.closed == ["one"]


@pytest.mark.parametrize("name", ["broken", "gone"])
def test_a_model_that_does_not_open_changes_nothing(models, shelf, name):
    with pytest.raises(ModelError):
        models.use(Path(name))
    assert models.pipeline.facts.name == "one"
    assert [m["name"] for m in models.known()] == ["one"]
    assert shelf.closed == []


def test_every_model_that_has_answered_is_known_and_one_of_them_is_in_use(models):
    told = models.use(Path("two"))
    assert (told["name"], told["sha256"], told["in_use"]) == ("two", "sha-two", True)
    models.use(Path("one"))
    assert [(m["folder"], m["in_use"]) for m in models.known()] == [("one", True), ("two", False)]


def test_changes_from_several_threads_leave_one_model_in_use_and_all_others_closed(models, shelf):
    def change(name: str) -> None:
        for _ in range(20):
            models.use(Path(name))
            with models.asking():
                pass

    threads = [threading.Thread(target=change, args=(f"m{k}",)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sum(m["in_use"] for m in models.known()) == 1
    models.close()
    assert len(shelf.closed) == 81
