"""Which shipped model serves where none is named."""

import pytest

from cb2_assist.app import DatasetChoice, build_assistant, model_for
from cb2_assist.model.card import check_card
from cb2_assist.model.shipped import shipped_by, shipped_for, shipped_model, shipped_models

CUBES, SECTIONS = "cb2-vit-tiny", "cb2-vit-tiny-sections"


@pytest.mark.parametrize(
    ("voxel_nm", "name"),
    [
        ((8, 8, 8), CUBES),
        ((10, 10, 12), CUBES),
        ((16, 16, 31), CUBES),
        ((16, 16, 32), SECTIONS),
        ((8, 8, 33), SECTIONS),
        ((40, 8, 8), SECTIONS),
        (None, CUBES),
    ],
)
def test_thick_sections_have_a_model_of_their_own(voxel_nm, name):
    assert shipped_model(voxel_nm).name == name


def test_every_shipped_model_is_whole_and_says_what_voxels_it_learnt_from():
    cards = [check_card(folder) for folder in shipped_models()]
    assert [c.name for c in cards] == [CUBES, SECTIONS]
    assert len({c.sha256 for c in cards}) == 2
    assert cards[1].card["split"]["voxel_nm"] == [8.0, 8.0, 40.0]


def test_a_dataset_is_served_by_the_model_of_its_voxels(neurites_file):
    choice = DatasetChoice(file=neurites_file)
    assistant = build_assistant(choice, network=False)
    try:
        served = assistant.known_models()[0]["name"]
        assert served == shipped_model(assistant.source.resolution).name
    finally:
        assistant.close()
    assert model_for(choice).name == served


@pytest.mark.parametrize(
    ("dataset", "name"), [("demo", SECTIONS), ("minnie65", SECTIONS), ("hemibrain", CUBES)]
)
def test_known_datasets_are_not_opened_for_it(dataset, name):
    assert shipped_for(dataset).name == name
    assert model_for(DatasetChoice(name=dataset)).name == name


def test_answers_tell_which_model_they_were_given_to():
    cubes, sections = (check_card(folder).sha256 for folder in shipped_models())
    assert shipped_by([cubes, sections, sections, "f" * 64]).name == SECTIONS
    assert shipped_by([cubes]).name == CUBES
    assert shipped_by(["f" * 64]) is None
    assert shipped_by([]) is None


def test_a_dataset_that_nobody_knows_is_served_by_what_answered_there():
    cubes, sections = (check_card(folder).sha256 for folder in shipped_models())
    assert shipped_for("mine", [cubes, sections, sections]).name == SECTIONS
    assert shipped_for("mine").name == CUBES
    # the voxels of a known one decide, whatever answered before
    assert shipped_for("demo", [cubes, cubes]).name == SECTIONS
