"""Views from meshes and tilted planes, asked for by the dataset file and by the model's card."""

import json
import shutil

import numpy as np
import pytest
from neurites import DUMBBELL, PARTNER, neurite_dataset

from cb2_assist.app import DatasetChoice, build_assistant
from cb2_assist.core.channels import GeometryChannel, GeometryView
from cb2_assist.core.errors import DatasetError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind
from cb2_assist.views.hitmap import EMPTY
from cb2_assist.views.stack import from_bytes

AT = PointNm(485, 365, 625)


@pytest.fixture(scope="module")
def from_labels(tmp_path_factory):
    return neurite_dataset(tmp_path_factory.mktemp("labels") / "n")


@pytest.fixture(scope="module")
def from_meshes(tmp_path_factory):
    path = neurite_dataset(tmp_path_factory.mktemp("meshes") / "n")
    path.write_text(path.read_text() + 'geometry = "meshes"\n')
    return path


def model_with(folder, tmp_path, **views):
    """The same weights with another views block on the card."""
    out = tmp_path / "model"
    shutil.copytree(folder, out)
    card = json.loads((out / "card.json").read_text())
    card["views"].update(views)
    (out / "card.json").write_text(json.dumps(card))
    return out


@pytest.fixture
def views_of(tiny_model_folder, tmp_path, monkeypatch):
    """Kept views of the first join and the first cut at `AT`."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data-home"))
    opened = []

    def look(dataset, **views):
        model = model_with(tiny_model_folder, tmp_path / f"m{len(opened)}", **views)
        assistant = build_assistant(DatasetChoice(file=dataset), model=model, device="cpu")
        opened.append(assistant)
        found = assistant.suggest(AT).suggestions
        first = {k: next(s for s in found if s.site.kind is k) for k in Kind}
        return {k: from_bytes(assistant.views_of(s.id)[1]) for k, s in first.items()}

    yield look
    for assistant in opened:
        assistant.close()


def test_joins_are_drawn_from_meshes_where_the_dataset_asks_and_cuts_from_labels(
    views_of, from_labels, from_meshes
):
    plain, drawn = views_of(from_labels), views_of(from_meshes)
    assert {k: s.geometry_from for k, s in plain.items()} == dict.fromkeys(Kind, "labels")
    assert drawn[Kind.JOIN].geometry_from == "meshes"
    assert drawn[Kind.CUT].geometry_from == "labels"
    np.testing.assert_array_equal(drawn[Kind.CUT].hits.depth_nm, plain[Kind.CUT].hits.depth_nm)
    np.testing.assert_array_equal(drawn[Kind.JOIN].em, plain[Kind.JOIN].em)
    a, b = (s[Kind.JOIN].hits.depth_nm != EMPTY for s in (plain, drawn))
    assert (a & b).sum() / (a | b).sum() > 0.9
    assert (plain[Kind.JOIN].hits.depth_nm != drawn[Kind.JOIN].hits.depth_nm).any()


def test_by_default_there_is_no_tilted_plane(views_of, from_labels):
    assert all(s.em_oblique is None for s in views_of(from_labels).values())


@pytest.mark.parametrize("profile", ["clean", "cb2"])
def test_a_card_can_ask_for_the_tilted_plane_of_joins_and_a_cut_never_gets_it(
    views_of, from_labels, profile
):
    seen = views_of(from_labels, em_oblique=True, profile=profile)
    assert seen[Kind.JOIN].em_oblique.shape == (3, 224, 224)
    assert seen[Kind.JOIN].em_oblique[1:].any((1, 2)).all()
    assert seen[Kind.CUT].em_oblique is None


@pytest.mark.parametrize("dataset", ["from_labels", "from_meshes"])
def test_cb2_shows_the_segment_of_a_cut_as_one(views_of, dataset, request):
    seen = views_of(request.getfixturevalue(dataset), profile="cb2")[Kind.CUT]
    geometry = seen.geometry()
    assert seen.geometry_from == dataset.removeprefix("from_")
    assert geometry[:, GeometryChannel.MASK_A].any((1, 2)).all()
    assert not geometry[:, GeometryChannel.MASK_B].any()
    np.testing.assert_array_equal(
        geometry[:, GeometryChannel.SILHOUETTE], geometry[:, GeometryChannel.MASK_A]
    )
    assert not seen.em[:, 2].any()
    # both balls of the dumbbell are in the one mask
    rows = np.nonzero(geometry[GeometryView.FRONT, GeometryChannel.MASK_A])[0]
    assert np.ptp(rows) > 120


@pytest.mark.parametrize("without", [DUMBBELL, PARTNER])
def test_a_segment_without_a_mesh_is_drawn_from_labels_together_with_its_partner(
    views_of, from_meshes, tmp_path, without
):
    copied = shutil.copytree(from_meshes.parent, tmp_path / "copy")
    (copied / "seg" / "mesh" / f"{without}:0").write_text('{"fragments": []}')
    assert views_of(copied / "dataset.toml")[Kind.JOIN].geometry_from == "labels"


def test_a_damaged_mesh_is_told_in_words(views_of, from_meshes, tmp_path):
    copied = shutil.copytree(from_meshes.parent, tmp_path / "copy")
    for path in (copied / "seg" / "mesh").glob("*:0:0.gz"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r'mesh of segment .*geometry = "labels"'):
        views_of(copied / "dataset.toml")
