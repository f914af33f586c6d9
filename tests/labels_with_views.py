"""A label file whose labels have views with numbers that tell the answer, for fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fixtures_model import EXTENT_NM
from label_makers import decision, suggestion

from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, Verdict, segment_id
from cb2_assist.labels.store import NewEvent, open_store
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.views.features import FEATURE_NAMES
from cb2_assist.views.hitmap import HitMap
from cb2_assist.views.stack import ViewStack, content_sha256, to_bytes
from cb2_assist.views.surroundings import SHAPE


def stack(seed: int, *, is_true: bool, extent_nm: float = EXTENT_NM) -> ViewStack:
    """Empty images; the first 20 features say whether it is true."""
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 1, len(FEATURE_NAMES) + int(np.prod(SHAPE))).astype(np.float32)
    features[:20] += 3.0 if is_true else -3.0
    views, px = 3, 224
    hits = HitMap(np.full((views, 2, px, px), -1, np.int16), np.zeros((views, 2, 3, px, px), "i1"))
    em = np.full((3, 3, px, px), 128, np.uint8)
    return ViewStack(hits, em, features, extent_nm, "clean")


def write_labels(
    path: Path,
    n: int,
    *,
    kind: Kind = Kind.JOIN,
    accepted: float = 0.5,
    extent_nm: float = EXTENT_NM,
    **changes: Any,
) -> str:
    """n labels on pairs of their own; returns the URL."""
    url = f"sqlite:///{path}"
    with open_store(url) as store:
        views = ViewsStore(store.views_folder)
        for k in range(n):
            is_true = k % 10 < 10 * accepted
            seen = stack(k, is_true=is_true, extent_nm=extent_nm)
            address = content_sha256(seen)
            views.put(to_bytes(seen), address)
            made = suggestion(0, kind)
            site = replace(
                made.site,
                segment=segment_id(1000 + 2 * k),
                partner=segment_id(1001 + 2 * k) if kind is Kind.JOIN else None,
                point=PointNm(1000.0 * k, 0.0, 0.0),
            )
            made = replace(made, site=site, id=site.key("demo", "v1"))
            answer = Verdict.ACCEPT if is_true else Verdict.REJECT
            given = decision(k, answer, key=f"{kind.value}-{k}", kind=kind)
            given = replace(given, suggestion=made, views_sha256=address, **changes)
            store.append(NewEvent.of(given))
    return url
