"""Compares answers with recorded ones, whatever numbers new nodes were given.

Supervoxels are the same in both, other nodes must correspond one to one, in their layer and chunk.
Where a list has no order that means anything, nodes that are not yet known to correspond are kept
as sets, and must do so in the end.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

import numpy as np

from cb2_assist.standin.node_ids import NodeIds

_ID = 2**56
"""The least id of layer 1; smaller numbers are no ids."""
_OF_THE_MOMENT = ("timestamp", "duration")


class Correspondence:
    """Which recorded node is which of ours."""

    def __init__(self, ids: NodeIds) -> None:
        self._ids = ids
        self._ours: dict[int, int] = {}
        self._theirs: dict[int, int] = {}
        self._open: list[tuple[frozenset[int], frozenset[int]]] = []

    def translate(self, text: str) -> str:
        """Recorded ids in a text as ours."""
        for theirs, ours in self._ours.items():
            text = text.replace(str(theirs), str(ours))
        return text

    def bind(self, theirs: int, ours: int) -> None:
        """Two ids at the same place."""
        assert self._kind(theirs) == self._kind(ours), (theirs, ours)
        assert self._ours.setdefault(theirs, ours) == ours, (theirs, ours)
        assert self._theirs.setdefault(ours, theirs) == theirs, (theirs, ours)

    def bind_sets(self, theirs: list[int], ours: list[int]) -> None:
        """Two lists of ids without an order."""
        assert len(theirs) == len(ours), (theirs, ours)
        left = Counter(i for i in theirs if i not in self._ours)
        right = Counter(i for i in ours if i not in self._theirs)
        known = Counter(self._ours[i] for i in theirs if i in self._ours)
        assert known == Counter(i for i in ours if i in self._theirs), (theirs, ours)
        for kind in {self._kind(i) for i in left} | {self._kind(i) for i in right}:
            a = sorted(i for i in left if self._kind(i) == kind)
            b = sorted(i for i in right if self._kind(i) == kind)
            assert len(a) == len(b), (theirs, ours)
            if kind[0] == 1:
                assert a == b
            if kind[0] == 1 or len(a) == 1:
                for one, other in zip(a, b, strict=True):
                    self.bind(one, other)
            else:
                self._open.append((frozenset(a), frozenset(b)))

    def settle(self) -> None:
        """Everything that was left open has fallen into place."""
        sets: dict[frozenset[int], frozenset[int]] = {}
        for a, b in self._open:
            assert {self._ours[i] for i in a if i in self._ours} == {
                i for i in b if i in self._theirs
            }
            left = frozenset(i for i in a if i not in self._ours)
            right = frozenset(i for i in b if i not in self._theirs)
            assert sets.setdefault(left, right) == right

    def same(self, theirs: Any, ours: Any, where: str = "") -> None:
        """Fail unless two JSON values say the same."""
        if isinstance(theirs, dict):
            assert isinstance(ours, dict), (where, theirs, ours)
            self._same_dicts(theirs, ours, where)
        elif isinstance(theirs, list):
            assert isinstance(ours, list), (where, theirs, ours)
            self._same_lists(theirs, ours, where)
        elif _is_id(theirs):
            assert type(theirs) is type(ours), (where, theirs, ours)
            self.bind(int(theirs), int(ours))
        elif isinstance(theirs, str) and theirs[:1] == "{":
            self.same(json.loads(theirs), json.loads(ours), where)
        else:
            assert theirs == ours, (where, theirs, ours)

    def _same_dicts(self, theirs: dict[str, Any], ours: dict[str, Any], where: str) -> None:
        if "b64" in theirs:
            a, b = (
                np.frombuffer(base64.b64decode(d["b64"]), "<u8").tolist() for d in (theirs, ours)
            )
            assert len(a) == len(b), where
            for one, other in zip(a, b, strict=True):
                self.bind(one, other)
            return
        if "code" in theirs:
            theirs, ours = (
                {k: v for k, v in d.items() if k not in _OF_THE_MOMENT} for d in (theirs, ours)
            )
        if "affinities" in theirs:
            # three lists that belong together
            theirs, ours = ({"edges": _edges(d)} for d in (theirs, ours))
        if "links" in theirs:
            theirs, ours = ({**d, "nodes": _by_id(d["nodes"])} for d in (theirs, ours))
        theirs = {self.translate(k): v for k, v in theirs.items()}
        assert theirs.keys() == ours.keys(), (where, theirs, ours)
        for key, value in theirs.items():
            self.same(value, ours[key], f"{where}.{key}")

    def _same_lists(self, theirs: list[Any], ours: list[Any], where: str) -> None:
        assert len(theirs) == len(ours), (where, theirs, ours)
        if theirs and all(_is_id(v) for v in theirs):
            assert [type(v) for v in theirs] == [type(v) for v in ours], (where, theirs, ours)
            self.bind_sets([int(v) for v in theirs], [int(v) for v in ours])
        elif where.endswith((".edge_graph", ".edges", ".links")):
            known = json.loads(self.translate(json.dumps(theirs)))
            assert _sorted(known) == _sorted(ours), (where, known, ours)
        else:
            for k, (one, other) in enumerate(zip(theirs, ours, strict=True)):
                self.same(one, other, f"{where}[{k}]")

    def _kind(self, node: int) -> tuple[int, ...]:
        layer = self._ids.layer(node)
        return (layer, *self._ids.chunk(node)) if layer in self._ids.bits else (layer,)


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return value.isdigit() and int(value) >= _ID
    return isinstance(value, int) and not isinstance(value, bool) and value >= _ID


def _edges(d: dict[str, Any]) -> list[list[Any]]:
    rows = zip(d["nodes"], d["affinities"], d["areas"], strict=True)
    return [[pair, affinity, area] for pair, affinity, area in rows]


def _by_id(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    return {str(n["id"]): {k: v for k, v in n.items() if k != "id"} for n in nodes}


def _sorted(rows: list[Any]) -> list[str]:
    return sorted(json.dumps(r) for r in rows)
