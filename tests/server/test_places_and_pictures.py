"""Pictures of the views over HTTP, and places and links over the WebSocket."""

from __future__ import annotations

import io

import pytest
from page_fakes import BASE
from page_harness import Page
from PIL import Image

from cb2_assist.core.channels import VIEW_NAMES
from cb2_assist.server.guard import Secrets

AT = [480.0, 480.0, 480.0]
CENTRE = BASE + 13


def _cookie(served) -> dict[str, str]:
    secrets = Secrets(served.server.token)
    return {"Cookie": f"{secrets.cookie_name}={secrets.cookie_value}"}


@pytest.fixture
def listed(page) -> Page:
    page.ask("propose", at_nm=AT, segment=str(CENTRE))
    if page.snapshot["views_sha256"] is None:
        page.until("snapshot", lambda m: m["snapshot"]["views_sha256"] is not None)
    return page


def test_each_view_is_a_png_that_may_be_kept_for_ever(served, listed) -> None:
    chosen, sha256 = listed.snapshot["selected"], listed.snapshot["views_sha256"]
    for name in VIEW_NAMES:
        path = f"/views/{chosen}/{name}.png?sha256={sha256}"
        status, headers, body = served.ask("GET", path, _cookie(served))
        assert (status, headers["Content-Type"]) == (200, "image/png")
        assert headers["Cache-Control"] == "private, max-age=31536000, immutable"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert Image.open(io.BytesIO(body)).size == (224, 224)
        again = {**_cookie(served), "If-None-Match": headers["Etag"]}
        assert served.ask("GET", path, again)[0] == 304


@pytest.mark.parametrize("query", ["", "?sha256=" + "0" * 64])
def test_without_its_hash_a_picture_is_asked_for_anew(served, listed, query) -> None:
    path = f"/views/{listed.snapshot['selected']}/front.png{query}"
    assert served.ask("GET", path, _cookie(served))[1]["Cache-Control"] == "no-cache"


def test_what_is_no_longer_known_is_said_in_a_line(served, listed) -> None:
    served.assistant.forgotten.add(listed.snapshot["selected"])
    path = f"/views/{listed.snapshot['selected']}/front.png"
    status, _, body = served.ask("GET", path, _cookie(served))
    assert (status, body.count(b"\n")) == (404, 1)
    assert b"Press p on its segment" in body
    status, _, body = served.ask("GET", path.replace("front", "back"), _cookie(served))
    assert status == 404
    assert b"front, side, top" in body


def test_the_page_knows_how_each_view_is_turned(page) -> None:
    assert [c["name"] for c in page.hello["cameras"]] == list(VIEW_NAMES)


# -- places


def test_a_place_is_answered_with_where_it_is(page) -> None:
    ack = page.ask("goto", text="48, 48, 48")
    assert ack["ok"]
    assert ack["text"].startswith("Taken as voxels of 10 × 10 × 10 nm.")
    assert ack["data"] == {"at_nm": [485.0, 485.0, 485.0], "proposes": False}
    assert page.snapshot["list"] is None


@pytest.mark.parametrize("text", [str(BASE + 1), f"48, 16, 16 {BASE + 1}"])
def test_with_a_segment_suggestions_follow(page, text) -> None:
    ack = page.ask("goto", text=text)
    assert ack["ok"], ack
    assert ack["data"]["proposes"]
    if page.snapshot["list"] is None:
        page.until("snapshot", lambda m: m["snapshot"]["list"] is not None)
    assert page.snapshot["list"]["segment"] == str(BASE + 1)
    assert page.snapshot["status"]["text"].startswith("Taken as ")
    assert page.snapshot["status"]["text"].endswith("4 suggestions for …741004.")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("480, 480, 480", "As nm it lies inside: write `480, 480, 480 nm`"),
        ("17", "Segment 17 was not found in toy"),
        ("hello", "not understood"),
        ("https://x/#!middleauth+https://y", "keeps its state on a server"),
        ("#at=480,480,480&dataset=other", "about the dataset 'other'"),
    ],
)
def test_a_place_that_is_none_is_said_and_changes_nothing(page, text, words) -> None:
    before = page.snapshot
    ack = page.ask("goto", text=text)
    assert not ack["ok"]
    assert words in ack["error"]
    assert page.snapshot == before


def test_a_text_that_is_too_long_or_none_is_refused(page) -> None:
    assert "characters" in page.ask("goto", text="1" * 600_000)["error"]
    assert "typed or pasted" in page.ask("goto", text=[1, 2, 3])["error"]


# -- links


@pytest.mark.parametrize("link", ["own", "neuroglancer"])
def test_a_copied_link_leads_back_to_the_same_row(served, listed, link) -> None:
    chosen = listed.snapshot["list"]["suggestions"][2]["id"]
    listed.ask("select", suggestion=chosen)
    shown = listed.snapshot["list"]
    ack = listed.ask("share", link=link)
    copied = ack["data"]["link"]
    assert served.server.token not in copied
    listed.ask("propose", at_nm=AT, segment=str(BASE))
    assert listed.snapshot["list"]["segment"] == str(BASE)
    assert listed.ask("goto", text=copied)["ok"]
    if listed.snapshot["list"]["segment"] == str(BASE):
        listed.until("snapshot", lambda m: m["snapshot"]["list"]["segment"] == str(CENTRE))
    assert listed.snapshot["list"] == shown
    assert listed.snapshot["selected"] == chosen


def test_our_link_names_the_address_that_the_browser_used(served, listed) -> None:
    link = listed.ask("share", link="own")["data"]["link"]
    assert link.startswith(f"http://{served.host}/#at=480,480,480&segment={CENTRE}&site=")


def test_a_neuroglancer_link_to_a_local_dataset_says_that_it_works_here_only(listed) -> None:
    ack = listed.ask("share", link="neuroglancer")
    assert "only here while cb2-assist runs" in ack["text"]


def test_without_a_list_the_camera_is_the_place(page) -> None:
    link = page.ask("share", link="own", camera_nm=[1.5, 2, 3])["data"]["link"]
    assert "#at=1.5,2,3&dataset=toy" in link
    ack = page.ask("share", link="own")
    assert "nothing on screen" in ack["error"]


def test_a_suggestion_that_is_gone_is_said(page) -> None:
    page.ask("goto", text=f"#at=480,480,480&segment={CENTRE}&site=0123456789abcdef")
    if page.snapshot["list"] is None:
        page.until("snapshot", lambda m: m["snapshot"]["list"] is not None)
    assert "not among them" in page.snapshot["status"]["text"]
    assert page.snapshot["selected"] == page.snapshot["list"]["suggestions"][0]["id"]


@pytest.mark.parametrize("link", [None, "other", 5])
def test_an_unknown_link_is_refused(page, link) -> None:
    assert "own or neuroglancer" in page.ask("share", link=link)["error"]
