"""Failures on purpose, as clients see them, and what they leave behind."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import requests
from people import EDITOR, READER, SECOND

from cb2_assist.core.errors import BadRequestError
from cb2_assist.standin.faults import KINDS, Fault
from cb2_assist.standin.server import StandIn

TABLE = "/segmentation/api/v1/table/mini"
MERGE = [[0, 98 * 8, 70 * 8, 1200], [0, 102 * 8, 70 * 8, 1200]]


def _ask(cave: StandIn, path: str, token: str = EDITOR.token, **how: Any) -> requests.Response:
    method = how.pop("method", "POST" if "json" in how or "data" in how else "GET")
    headers = {"Authorization": f"Bearer {token}"}
    return requests.request(method, f"{cave.url}{path}", headers=headers, timeout=20, **how)


def _supervoxels(cave: StandIn) -> list[int]:
    base = cave.deployment.graph.ids.base(1, (1, 1, 1))
    return [base | 1, base | 2]


def _merge(cave: StandIn, token: str = EDITOR.token) -> requests.Response:
    rows = [[str(v), *row[1:]] for v, row in zip(_supervoxels(cave), MERGE, strict=True)]
    return _ask(cave, f"{TABLE}/merge", token, json=rows)


def _roots(cave: StandIn) -> list[int]:
    data = np.array(_supervoxels(cave), "<u8").tobytes()
    answer = _ask(cave, f"{TABLE}/roots_binary", data=data)
    return np.frombuffer(answer.content, "<u8").tolist()


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503, 504])
def test_a_refused_request_is_not_carried_out(cave: StandIn, status: int) -> None:
    before = _roots(cave)
    cave.faults.add(Fault("refused", path="/merge", status=status, times=1, seconds=3))
    refused = _merge(cave)
    assert refused.status_code == status
    assert refused.headers.get("Retry-After") == ("3" if status == 429 else None)
    if status in (401, 403):
        assert refused.json()["error"] == {401: "invalid_token", 403: "missing_tos"}[status]
    assert _roots(cave) == before
    assert _merge(cave).status_code == 200


def test_an_answer_is_lost_after_the_edit_was_made(cave: StandIn) -> None:
    cave.faults.add(Fault("lost", path="/merge", status=504, times=1))
    assert _merge(cave).status_code == 504
    assert len(set(_roots(cave))) == 1
    again = _merge(cave)
    assert (again.status_code, again.json()["message"]) == (
        400,
        "[400]: Supervoxels must belong to different objects.",
    )
    assert list(cave.deployment.editor.operations) == [1]


def test_a_body_breaks_off(cave: StandIn) -> None:
    cave.faults.add(Fault("truncated", path="/info$", times=1, share=0.5))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _ask(cave, "/segmentation/table/mini/info")
    assert _ask(cave, "/segmentation/table/mini/info").json()["graph"]["n_layers"] == 4
    assert [s.status for s in cave.faults.requests()] == [0, 200]


def test_stale_answers_do_not_see_the_latest_edits(cave: StandIn) -> None:
    before = _roots(cave)
    merged = _merge(cave).json()["new_root_ids"]
    cave.faults.add(Fault("stale", path="roots"))
    assert _roots(cave) == before
    latest = _ask(cave, f"{TABLE}/is_latest_roots", json={"node_ids": [before[0], merged[0]]})
    assert latest.json() == {"is_latest": [True, False]}
    cave.faults.clear()
    assert _roots(cave) == merged * 2


def test_meshes_of_new_nodes_come_late(cave: StandIn) -> None:
    root = _merge(cave).json()["new_root_ids"][0]
    cave.faults.add(Fault("late_meshes", path="/manifest/", times=1))
    ask = f"/meshing/api/v1/table/mini/manifest/{root}:0?verify=1"
    late, whole = (_ask(cave, ask).json()["fragments"] for _ in range(2))
    assert 0 < len(late) < len(whole)
    assert all(f.startswith("~2/") for f in late)
    assert sum(not f.startswith("~") for f in whole) == len(whole) - len(late)


def test_rows_of_some_level_2_nodes_are_missing(cave: StandIn) -> None:
    root = _roots(cave)[1]
    nodes = _ask(cave, f"{TABLE}/node/{root}/leaves?stop_layer=2").json()["leaf_ids"]
    ask = "/l2cache/api/v1/table/mini/attributes?attribute_names=size_nm3"
    whole = _ask(cave, ask, json={"l2_ids": nodes}).json()
    assert all(row["size_nm3"] > 0 for row in whole.values())
    cave.faults.add(Fault("missing_rows", share=1.0))
    assert set(map(str, _ask(cave, ask, json={"l2_ids": nodes}).json().values())) == {"{}"}


def test_latency_delays_what_it_names_and_nothing_else(cave: StandIn) -> None:
    cave.faults.add(Fault("latency", path="/version$", seconds=0.3))
    started = time.monotonic()
    _ask(cave, "/info/version")
    assert time.monotonic() - started >= 0.3
    (seen,) = cave.faults.requests()
    assert seen.ms >= 300
    assert seen.faults == ("latency",)


def test_faults_are_set_over_http_and_counted(cave: StandIn) -> None:
    fault = {"kind": "refused", "path": "/merge", "status": 503, "skip": 1, "times": 1}
    assert _ask(cave, "/standin/faults", json=[fault]).json()[0]["seen"] == 0
    assert [_merge(cave).status_code for _ in range(3)] == [200, 503, 400]
    assert _ask(cave, "/standin/faults").json()[0]["seen"] == 3
    log = _ask(cave, "/standin/requests").json()
    assert [r["status"] for r in log] == [200, 503, 400]
    assert _ask(cave, "/standin/faults", method="DELETE").json() == []
    assert _ask(cave, "/standin/faults", token="f" * 32).status_code == 401


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"path": "x"},
        {"kind": "fire"},
        {"kind": "lost", "status": 200},
        {"kind": "latency", "seconds": "1"},
        {"kind": "latency", "times": 1.5},
        {"kind": "latency", "path": "("},
        {"kind": "latency", "colour": "red"},
    ],
)
def test_what_is_no_fault_is_refused(document: object) -> None:
    with pytest.raises(BadRequestError, match=r"fault|regular expression"):
        Fault.of(document)


def test_every_kind_of_fault_can_be_read() -> None:
    assert [Fault.of({"kind": k}).kind for k in KINDS] == list(KINDS)


def test_two_people_merge_the_same_place_and_one_edit_is_made(cave: StandIn) -> None:
    done: list[int] = []
    people = [EDITOR.token, SECOND.token] * 4
    threads = [
        threading.Thread(target=lambda t=token: done.append(_merge(cave, t).status_code))
        for token in people
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [200, *[400] * 7]
    assert len(cave.deployment.editor.operations) == 1


def test_who_may_only_look_edits_nothing(cave: StandIn) -> None:
    assert _merge(cave, READER.token).status_code == 403
    assert _ask(cave, f"{TABLE}/oldest_timestamp", READER.token).status_code == 500


@pytest.mark.parametrize(
    ("path", "how", "status"),
    [
        (f"{TABLE}/roots", {"data": b"{"}, 400),
        (f"{TABLE}/roots", {"json": {"ids": [1]}}, 400),
        (f"{TABLE}/roots", {"json": {"node_ids": ["one"]}}, 400),
        (f"{TABLE}/merge", {"json": [[1, 2]]}, 400),
        (f"{TABLE}/split", {"json": {"sources": []}}, 400),
        (f"{TABLE}/node/1/leaves?bounds=1-2", {}, 400),
        (f"{TABLE}/node/1/root?timestamp=now", {}, 400),
        (f"{TABLE}/merge", {"method": "GET"}, 405),
        (f"{TABLE}/nothing", {}, 404),
        ("/data/ws/../../etc/passwd", {}, 404),
        ("/data/ws/graphene_meshes/dynamic/5:0:0-1_0-1_0-1", {}, 404),
    ],
)
def test_nonsense_is_refused_without_a_traceback(
    cave: StandIn, path: str, how: dict[str, Any], status: int
) -> None:
    answer = _ask(cave, path, **how)
    assert answer.status_code == status
    assert "Traceback" not in answer.text


def test_pages_of_other_origins_may_ask_and_are_not_sent_to_a_login(cave: StandIn) -> None:
    info = f"{cave.url}/segmentation/table/mini/info"
    before = requests.options(info, headers={"Origin": "http://localhost:1"}, timeout=20)
    assert "Authorization" in before.headers["Access-Control-Allow-Headers"]
    refused = requests.get(info, headers={"Origin": "http://localhost:1"}, timeout=20)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith('Bearer realm="')
    assert refused.headers["Access-Control-Allow-Origin"] == "*"
    plain = requests.get(info, timeout=20, allow_redirects=False)
    assert (plain.status_code, "/sticky_auth/" in plain.headers["Location"]) == (302, True)
