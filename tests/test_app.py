"""The composition root: what it wires, and that it lets go."""

import threading

import pytest

from cb2_assist.app import DatasetChoice, build_assistant, warm_up
from cb2_assist.core.errors import AssistError, ModelError, UnknownDatasetError
from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.suggestions.base_rate import SavedState, state_file, write_state

pytestmark = pytest.mark.usefixtures("own_data_home")


def built(neurites_file, model, **options):
    return build_assistant(DatasetChoice(file=neurites_file), model=model, device="cpu", **options)


def test_saved_base_rates_are_in_force(neurites_file, tiny_model_folder, own_data_home):
    path = state_file(own_data_home / "cb2-assist", "neurites")
    write_state(path, SavedState({Kind.JOIN: BaseRate(0.61, "labels", 12)}))
    assistant = built(neurites_file, tiny_model_folder)
    try:
        assert assistant.base_rates[Kind.JOIN] == BaseRate(0.61, "labels", 12)
        assert assistant.base_rates[Kind.CUT].source == "default"
        assert assistant.info.name == "neurites"
    finally:
        assistant.close()


def test_closing_ends_the_threads(neurites_file, tiny_model_folder):
    before = set(threading.enumerate())
    assistant = built(neurites_file, tiny_model_folder, threads=2)
    assistant.suggest(assistant_point())
    assistant.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)

    left = {t.name for t in set(threading.enumerate()) - before}
    assert not {n for n in left if n.startswith(("views", "predict"))}


def assistant_point():
    from cb2_assist.core.geometry import PointNm

    return PointNm(485, 365, 625)


def test_a_damaged_base_rate_names_its_file(neurites_file, tiny_model_folder, own_data_home):
    path = state_file(own_data_home / "cb2-assist", "neurites")
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(AssistError, match=str(path)):
        built(neurites_file, tiny_model_folder)


def test_unknown_dataset_and_model(neurites_file, tmp_path):
    with pytest.raises(UnknownDatasetError, match="demo"):
        build_assistant(DatasetChoice(name="moon"))
    with pytest.raises(ModelError, match="no model at"):
        built(neurites_file, tmp_path / "none")


def test_warm_up_leaves_nothing_to_compile(neurites_file, tiny_model_folder):
    from cb2_assist.views import measures

    def compiled():
        return {n: len(f.signatures) for n, f in vars(measures).items() if hasattr(f, "signatures")}

    assistant = built(neurites_file, tiny_model_folder)
    try:
        warm_up(assistant)
        before = compiled()
        found = assistant.suggest(assistant_point())
        assert all(a.error is None for a in assistant.score([s.site for s in found.suggestions]))
    finally:
        assistant.close()

    assert before["survey"] > 0
    assert compiled() == before
