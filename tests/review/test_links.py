"""Links: ours and Neuroglancer's, as they are found in the wild."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

import pytest

from cb2_assist.core.errors import AssistError, BadRequestError
from cb2_assist.core.geometry import BoxVx, PointNm, PointVoxel, Resolution
from cb2_assist.review.goto import Extent, read_target
from cb2_assist.review.links import OwnLink, own_link, read_own_link
from cb2_assist.review.neuroglancer_links import Shown, write_link, write_state

VOXEL = Resolution(4, 4, 40)
EXTENT = Extent(
    "minnie", VOXEL, Resolution(8, 8, 40),
    BoxVx(PointVoxel(0, 0, 0), PointVoxel(224000, 185000, 28000)),
)  # fmt: skip
ROOT, OTHER = 864691135341362885, 864691135341362886
AT = [240_002.0, 207_874.0, 851_620.0]
DIMENSIONS = {"x": [4e-9, "m"], "y": [4e-9, "m"], "z": [4e-8, "m"]}
POSITION = [60000.5, 51968.5, 21290.5]
EM = {"type": "image", "source": "precomputed://gs://bucket/em", "name": "img"}


def seg(segments, **fields) -> dict:
    return {"type": "segmentation", "source": "x", "segments": segments, "name": "seg", **fields}


def state(**fields) -> dict:
    return {
        "dimensions": DIMENSIONS,
        "position": POSITION,
        "layers": [EM, seg([str(ROOT)])],
        "layout": "4panel",
        **fields,
    }


def link(state: dict, host: str = "https://neuroglancer-demo.appspot.com/") -> str:
    return f"{host}#!{quote(json.dumps(state))}"


def read(text: str):
    return read_target(text, EXTENT)


# -- Neuroglancer's


@pytest.mark.parametrize(
    "text",
    [
        link(state()),
        link(state(), "https://spelunker.cave-explorer.org/"),
        link(state(), "http://localhost:8080/v/abc/"),
        "https://ngl.microns-explorer.org/#!" + json.dumps(state()),
        "#!" + quote(json.dumps(state()), safe="~@#$&()*!+=:;,.?/'"),
        link(state()).replace("%", "%25"),
        json.dumps(state(), indent=2),
        f"<{link(state())}>",
        link(state(dimensions={"x": [4, "nm"], "y": [4, "nm"], "z": [0.04, "um"]})),
        link(
            state(
                dimensions={"z": [4e-8, "m"], "y": [4e-9, "m"], "x": [4e-9, "m"]},
                position=POSITION[::-1],
            )
        ),
        link(state(dimensions={**DIMENSIONS, "t": [0.001, "s"]}, position=[*POSITION, 3])),
        link(state(dimensions={**DIMENSIONS, "c^": [1, ""]})),
        link(
            state(
                dimensions={"x": [8e-9, "m"], "y": [8e-9, "m"], "z": [4e-8, "m"]},
                position=[30000.25, 25984.25, 21290.5],
            )
        ),
        link(state(dimensions=None)),
        link(state(layers=[EM, seg([ROOT])])),
        link(state(layers=[EM, seg([str(ROOT), f"!{OTHER}"])])),
        link(state(layers=[EM, {**seg([str(ROOT)]), "type": "segmentation_with_graph"}])),
        link(state(layers=[seg([str(OTHER)], visible=False), seg([str(ROOT)])])),
        link(state(layers=[seg([str(OTHER)], archived=True), seg([str(ROOT)])])),
        link(state(layers=[seg([]), seg([str(ROOT)])])),
        link(
            state(
                layers=[seg([str(OTHER)], name="old"), seg([str(ROOT)], name="new")],
                selectedLayer={"visible": True, "layer": "new"},
            )
        ),
        # as links were before 2019: quotes, commas and the position have another form
        "https://neuroglancer-demo.appspot.com/#!{'layers':{'seg':{'type':'segmentation'_'source':"
        f"'precomputed://gs://a_b/c'_'segments':['{ROOT}']}}}}_'navigation':{{'pose':{{'position':"
        "{'voxelSize':[4_4_40]_'voxelCoordinates':[60000.5_51968.5_21290.5]}}_'zoomFactor':30.0}}",
    ],
)
def test_links_to_one_segment_at_one_place(text: str) -> None:
    target = read(text)
    assert list(target.point) == pytest.approx(AT)
    assert target.segments == (ROOT,)
    assert target.words.startswith("a Neuroglancer link")


def test_a_link_without_segments_is_a_place() -> None:
    target = read(link(state(layers=[EM])))
    assert list(target.point) == pytest.approx(AT)
    assert target.segments == ()


def test_a_link_without_a_position_is_its_segment() -> None:
    target = read(link({"layers": [seg([str(ROOT)])]}))
    assert (target.point, target.segments) == (None, (ROOT,))


def test_several_segments_are_kept_for_the_session_to_choose_from() -> None:
    assert read(link(state(layers=[seg([str(ROOT), str(OTHER)])]))).segments == (ROOT, OTHER)


def test_a_position_without_voxel_sizes_is_said_to_be_a_guess() -> None:
    assert "voxels of this viewer" in read(link(state(dimensions=None))).words


@pytest.mark.parametrize(
    "text",
    [
        "https://spelunker.cave-explorer.org/#!middleauth+https://global.daf-apis.com/nglstate/1",
        "https://neuroglancer-demo.appspot.com/#!gs://flyem-views/hemibrain.json",
        "https://ngl.cave-explorer.org/?json_url=https://global.daf-apis.com/nglstate/api/v1/5",
        "https://neuroglancer.neuvue.io/?json_url=https%3A%2F%2Fglobal.daf-apis.com%2Fnglstate%2F5",
    ],
)
def test_a_state_on_a_server_is_not_asked_for(text: str) -> None:
    with pytest.raises(BadRequestError, match="keeps its state on a server") as told:
        read(text)
    assert "does not ask" in str(told.value)


@pytest.mark.parametrize(
    "text",
    [
        link(state())[:-40],
        "https://x/#!{",
        "https://x/#!{}",
        "https://x/#![1,2]",
        "https://x/#!null",
        "https://x/#!" + '{"a":' * 20_000,
        link(state(position=[1, 2])),
        link(state(position="here")),
        link(state(position=[1, 2, {"a": 1}])),
        link(state(position=None, layers=[seg([str(ROOT), str(OTHER)])])),
        link(state(dimensions={"x": [4e-9, "m"], "y": [4e-9, "m"], "z": [1, "s"]})),
        link(state(dimensions={"x": [4e-9, "m"], "y": [4e-9, "m"], "z": [0, "m"]})),
        link(state(dimensions={"x": 3, "y": 4, "z": 5})),
        link(state(dimensions={"u": [1, "m"], "v": [1, "m"], "w": [1, "m"]}, layers=[])),
        link(state(layers=[seg(["12x"])])),
        link(state(layers=[seg([1.5])])),
        link(state(layers=[seg([str(2**64)])])),
        link(state(position=[1e300, 1e300, 1e300])),
        "https://x/#!" + json.dumps(state()).replace("60000.5", "NaN"),
        "https://x/#!" + json.dumps(state()).replace("60000.5", "1e999"),
        json.dumps({"layers": 5, "position": 7}),
        link(state(selectedLayer="seg")),
        link(state(position=None, navigation=["x"])),
        link(state(position=None, navigation={"pose": 5})),
        link(state(layers=[{"name": "cb2-assist", "annotations": ["x"]}])),
        link(state(layers=[{"name": "cb2-assist", "annotations": {"a": 1}}])),
        link(state(dimensions={"x": [4e-9, 5], "y": [1, "m"], "z": [1, "m"]})),
        link(state(dimensions={"x": [4e-9, None], "y": [1, "m"], "z": [1, "m"]})),
        "https://x/#!{'position':[1_2_3]_'layers':{'a",
    ],
)
def test_a_damaged_link_is_refused_in_a_few_words(text: str) -> None:
    with pytest.raises(AssistError) as told:
        read(text)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("piece", ["\\'", "'", '"', '\\"', "\\", "_", "'\\", "['", "{"])
def test_a_long_hostile_text_takes_time_in_proportion_to_its_length(piece: str) -> None:
    """The whole server waits meanwhile."""

    def seconds(n: int) -> float:
        text = '{"layers":' + piece * (n // len(piece))
        begun = time.process_time()
        with pytest.raises(AssistError):
            read(text)
        return time.process_time() - begun

    assert seconds(32_000) < 0.05 + 12 * seconds(4_000)


# -- what we write for Neuroglancer


SHOWN = Shown(
    em="precomputed://gs://bucket/em",
    seg="precomputed://gs://bucket/seg",
    voxel=VOXEL,
    at=PointNm.of(AT),
    colours={ROOT: "#ff8c00", OTHER: "#1e90ff"},
    asked=PointNm(240_123.7, 207_000.1, 851_333.3),
    site=("0123456789abcdef", "join of …362885 with …362886: contact"),
)


def test_our_neuroglancer_link_leads_back_to_the_same_site() -> None:
    target = read(write_link(SHOWN))
    assert tuple(target.point) == pytest.approx(tuple(SHOWN.asked), abs=1e-9)
    assert target.segments == (ROOT,)
    assert target.site == "0123456789abcdef"


def test_ids_in_our_link_are_text() -> None:
    layer = write_state(SHOWN)["layers"][1]
    assert layer["segments"] == [str(ROOT), str(OTHER)]
    assert layer["segmentColors"] == {str(ROOT): "#ff8c00", str(OTHER): "#1e90ff"}


def test_neuroglancer_itself_reads_our_link() -> None:
    from neuroglancer.url_state import parse_url

    got = parse_url(write_link(SHOWN))
    assert list(got.position) == pytest.approx(POSITION)
    assert [v * 1e9 for v in got.dimensions.scales] == pytest.approx([4, 4, 40])
    assert set(got.layers["segments"].segments) == {ROOT, OTHER}
    assert got.layers["em"].source[0].url == SHOWN.em
    assert [a.id for a in got.layers["cb2-assist"].annotations] == ["asked", "0123456789abcdef"]


# -- ours


def test_our_own_link_leads_back() -> None:
    given = OwnLink(PointNm(1 / 3, 207_874.0, 851_620.25), ROOT, "0123456789abcdef", "minnie")
    text = own_link("http://127.0.0.1:8123", given)
    assert text.startswith("http://127.0.0.1:8123/#at=0.333")
    assert read_own_link(text) == given
    assert read_own_link(text[text.index("#") :]) == given
    assert read(text).site == given.site


def test_our_link_to_another_dataset_is_refused() -> None:
    with pytest.raises(BadRequestError, match="about the dataset 'other'"):
        read("http://127.0.0.1:1/#at=1,2,3&dataset=other")


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:1/#at=1,2",
        "http://127.0.0.1:1/#at=1,2,nan",
        "http://127.0.0.1:1/#at=a,b,c",
        "http://127.0.0.1:1/#at=1,2,3&segment=x",
        "http://127.0.0.1:1/#at=1,2,3&at=4,5,6",
        "http://127.0.0.1:1/#at=1,2,3&site=../x",
        "#site=0123456789abcdef",
        "#segment=",
    ],
)
def test_a_damaged_link_of_ours_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        read(text)
