"""Where a text leads in a dataset, and links to what is on screen."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import quote, unquote

import pytest
from page_fakes import BASE, INFO, RESOLUTION, ToySource, toy_list

from cb2_assist.core.errors import BadRequestError, OutOfBoundsError, SegmentNotFoundError
from cb2_assist.core.geometry import PointNm
from cb2_assist.datasets.source import ViewerLayers
from cb2_assist.review.screen import Screen
from cb2_assist.review.travel import arrive, share_neuroglancer, share_own

CENTRE = BASE + 13
AT = PointNm(480, 480, 480)
LOCAL = ToySource(ViewerLayers("toy/em", "toy/seg", RESOLUTION, {"toy": None}))
PUBLIC = ToySource(ViewerLayers("precomputed://gs://b/em", "precomputed://gs://b/seg", RESOLUTION))


def link(segments, position=(48.0, 48.0, 48.0)) -> str:
    state = {
        "dimensions": {n: [1e-8, "m"] for n in "xyz"},
        "position": list(position),
        "layers": [{"type": "segmentation", "segments": [str(s) for s in segments], "name": "s"}],
    }
    return "https://x/#!" + quote(json.dumps(state))


def go(text: str):
    return arrive(text, LOCAL, INFO)


def screen(selected: int | None = 0) -> Screen:
    found = toy_list(CENTRE, PointNm(485.5, 480, 480))
    chosen = None if selected is None else found.suggestions[selected].id
    return Screen(list=found, selected=chosen)


def test_a_segment_alone_is_looked_for() -> None:
    arrival = go(str(CENTRE))
    assert (arrival.at, arrival.segment) == (AT, CENTRE)
    with pytest.raises(SegmentNotFoundError, match=f"{BASE + 99} was not found in toy"):
        go(str(BASE + 99))


def test_a_place_alone_asks_the_person_to_point() -> None:
    arrival = go("48 48 48")
    assert arrival.cursor is None
    assert arrival.text.endswith("Point at a segment and press p.")


def test_of_several_segments_the_one_at_the_place_counts() -> None:
    arrival = go(link([BASE, CENTRE, BASE + 1]))
    assert arrival.segment == CENTRE
    assert "3 segments are selected" in arrival.text


def test_with_none_of_them_at_the_place_nothing_is_proposed() -> None:
    arrival = go(link([BASE, BASE + 1]))
    assert (arrival.at, arrival.segment) == (AT, None)
    assert "None of the 2 segments" in arrival.text


def test_a_link_into_another_volume_is_told() -> None:
    with pytest.raises(OutOfBoundsError, match="place of a Neuroglancer link"):
        go(link([CENTRE], (1e6, 1e6, 1e6)))


@pytest.mark.parametrize("selected", range(4))
@pytest.mark.parametrize("make", [share_own, share_neuroglancer])
def test_links_lead_back_to_the_row(make, selected) -> None:
    shown = screen(selected)
    if make is share_own:
        text = share_own(shown, INFO, "http://127.0.0.1:8123", None).link
    else:
        text = share_neuroglancer(shown, LOCAL, "http://127.0.0.1:8123", None).link
    arrival = go(text)
    assert tuple(arrival.at) == pytest.approx(tuple(shown.list.at), abs=1e-9)
    assert (arrival.segment, arrival.site) == (CENTRE, shown.selected)


def test_a_link_to_a_list_without_a_selection() -> None:
    for text in (
        share_own(screen(None), INFO, "http://h", None).link,
        share_neuroglancer(screen(None), LOCAL, "http://h", None).link,
    ):
        arrival = go(text)
        assert (arrival.segment, arrival.site) == (CENTRE, None)


def test_without_a_list_the_camera_is_what_is_linked_to() -> None:
    for text in (
        share_own(Screen(), INFO, "http://h", AT).link,
        share_neuroglancer(Screen(), LOCAL, "http://h", AT).link,
    ):
        assert (go(text).at, go(text).segment) == (AT, None)
    with pytest.raises(BadRequestError, match="nothing on screen"):
        share_own(Screen(), INFO, "http://h", None)


def test_sources_are_public_ones_or_our_own_port() -> None:
    ours = share_neuroglancer(screen(), LOCAL, "http://127.0.0.1:8123", None)
    assert "precomputed://http://127.0.0.1:8123/data/toy/seg" in unquote(ours.link)
    assert "only here" in ours.text
    public = share_neuroglancer(screen(), PUBLIC, "http://127.0.0.1:8123", None)
    assert "precomputed://gs://b/seg" in unquote(public.link)
    assert "127.0.0.1" not in public.link
    assert "everybody who may see the data" in public.text


def test_both_segments_are_selected_in_their_colours() -> None:
    chosen = screen(0).list.suggestions[0].site
    state = json.loads(
        unquote(share_neuroglancer(screen(0), PUBLIC, "http://h", None).link.split("#!")[1])
    )
    layer = next(v for v in state["layers"] if v["name"] == "segments")
    assert layer["segments"] == [str(chosen.segment), str(chosen.partner)]
    assert list(layer["segmentColors"].values()) == ["#ff8c00", "#1e90ff"]
    assert state["position"] == [v / 10 for v in chosen.point]


def test_a_link_of_another_dataset_is_told() -> None:
    other = replace(INFO, name="other")
    with pytest.raises(BadRequestError, match="about the dataset 'other'"):
        go(share_own(screen(), other, "http://h", None).link)
