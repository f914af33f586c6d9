"""Against every recorded exchange of the real PyChunkedGraph 2.21.1, in order."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from recorded import Correspondence

from cb2_assist.standin.deployment import Account
from cb2_assist.standin.served import Served
from cb2_assist.standin.server import StandIn

pytestmark = pytest.mark.shared

TOKEN = "0" * 32
_EDIT_TIMES = (1795398499.421, 1795398500.118, 1795398500.5, 1795398500.789)
"""When the recorded edits took place, as their history says; of the third (an undo) about when."""


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> list[dict[str, Any]]:
    file = shared_data.parent / "fixtures" / "cave_pcg_2.21.1_golden.json"
    exchanges: list[dict[str, Any]] = json.loads(file.read_text())
    return exchanges


@pytest.fixture(scope="module")
def cave(served: Served) -> Iterator[StandIn]:
    account = Account(TOKEN, user_id="0", name="Tester", affiliation="Lab")
    with StandIn(served, accounts=[account], meshes=False) as running:
        yield running


def _ask(cave: StandIn, exchange: dict[str, Any], known: Correspondence) -> requests.Response:
    body = exchange["body"]
    if isinstance(body, dict):
        data = base64.b64decode(body["b64"])
    else:
        data = known.translate(body).encode() if body else None
    path, query = (known.translate(exchange[k]) for k in ("path", "query"))
    return requests.request(
        exchange["method"],
        f"{cave.url}{path}" + (f"?{query}" if query else ""),
        data=data,
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=20,
    )


def test_every_recorded_exchange_is_answered_the_same(
    cave: StandIn, recorded: list[dict[str, Any]]
) -> None:
    times = iter(_EDIT_TIMES)
    cave.deployment.editor.clock = lambda: next(times)
    known = Correspondence(cave.deployment.graph.ids)
    for number, exchange in enumerate(recorded):
        got = _ask(cave, exchange, known)
        where = f"{number} {exchange['method']} {exchange['path']}?{exchange['query']}"
        assert got.status_code == exchange["status"], (where, got.text)
        assert got.headers["Content-Type"] == exchange["content_type"], where
        assert got.headers.get("Used-Bounds") == exchange["used_bounds"], where
        expected = exchange["response"]
        if isinstance(expected, dict) and "b64" in expected:
            ours: Any = {"b64": base64.b64encode(got.content).decode()}
        else:
            ours = got.json()
        if exchange["path"].endswith("/info"):
            # where the recorded server kept its voxels
            assert ours.pop("data_dir") == f"{cave.url}/data/ws"
            expected = {k: v for k, v in expected.items() if k != "data_dir"}
        known.same(expected, ours, where)
    known.settle()
    assert len(recorded) == 77
    assert next(times, None) is None
