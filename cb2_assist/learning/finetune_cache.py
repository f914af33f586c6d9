"""What the frozen part of a network says of labels and base data, kept on disk as it is computed.

Running the image encoder is what takes time; a run that was stopped goes on after the last chunk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import DatasetError
from cb2_assist.core.records import Kind
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning.examples import pure_bodies
from cb2_assist.learning.finetune_labels import Collected, Harvest, Reader, digest
from cb2_assist.learning.finetune_tokens import Tokens, joined, tokens_of_inputs, tokens_of_part
from cb2_assist.learning.prepare import (
    Part,
    grey_statistics,
    load_volume,
    open_part,
    prepare,
    volume_examples,
)
from cb2_assist.model.checkpoint import Model
from cb2_assist.model.network import N_TOKENS, N_VIEWS, MultiTaskViT
from cb2_assist.model.ood.appearance import PICTURE_WIDTH

Say = Callable[[str], None]

_CHUNK = 128
_MOST_REPLAY = 2000
"""Base decisions of each question; more are drawn from."""
_MERGES = 200
"""Synthetic merges, for cuts from a dataset with truth."""
_KINDS = list(Kind)


def label_tokens(
    harvest: Harvest, model: Model, net: MultiTaskViT, folder: Path, say: Say
) -> tuple[list[Collected], Tokens]:
    """Tokens of all labels whose views can be read, and those labels."""
    reader = Reader(harvest, model.views, graph=net.graph is not None)
    kept: list[Collected] = []
    parts: list[Tokens] = []
    for start in range(0, len(harvest.rows), _CHUNK):
        rows = harvest.rows[start : start + _CHUNK]
        path = folder / f"labels-{digest(rows, model.sha256)[:20]}.npz"
        known = _load(path)
        if known is None:
            known = _tokens_of(rows, reader, net)
            if len(known[0]) == len(rows):
                # what cannot be seen is told again by a run that goes on
                _save(path, *known)
        readable, tokens = known
        kept += [rows[i] for i in readable]
        parts.append(tokens)
        if start:
            say(f"{start + len(rows)} of {len(harvest.rows)} labels seen")
    if not kept:
        return [], _none(net)
    return kept, joined([p for p in parts if len(p)])


def _tokens_of(
    rows: Sequence[Collected], reader: Reader, net: MultiTaskViT
) -> tuple[NDArray[np.int64], Tokens]:
    seen = [(i, reader.read(r)) for i, r in enumerate(rows)]
    good = [(i, s) for i, s in seen if s is not None]
    if not good:
        return np.zeros(0, np.int64), _none(net)
    parts = []
    for at in range(0, len(good), 16):
        some = good[at : at + 16]
        parts.append(
            tokens_of_inputs(
                net,
                [x for _, (x, _) in some],
                np.stack([there for _, (_, there) in some]),
                np.array([_KINDS.index(rows[i].kind) for i, _ in some], np.int64),
                np.array([rows[i].answer for i, _ in some], bool),
            )
        )
    return np.array([i for i, _ in good], np.int64), joined(parts)


def _none(net: MultiTaskViT) -> Tokens:
    width = int(net.task_query.shape[1])
    values = 0 if net.graph is None else int(net.graph.value_mean.shape[0])
    features = int(net.feature_mean.shape[0])
    return Tokens(
        np.zeros((0, N_VIEWS, width), np.float32),
        np.zeros((0, features), np.float32),
        np.zeros((0, values), np.float32),
        np.zeros((0, N_TOKENS), bool),
        np.zeros(0, np.int64),
        np.zeros(0, bool),
        np.zeros((0, features + PICTURE_WIDTH), np.float32),
    )


def replay_tokens(
    given: Sequence[Path],
    below_z: int | None,
    model: Model,
    net: MultiTaskViT,
    folder: Path,
    *,
    seed: int,
    say: Say,
) -> tuple[Tokens, NDArray[np.int64]]:
    """Tokens of base data, at most `_MOST_REPLAY` of each question, and their groups.

    Raises:
        DatasetError: A folder holds none, or decisions that the model does not see.
    """
    tokens, groups = [], []
    for path in given:
        for place in _part_folders(path, below_z, model, folder, seed, say):
            part = open_part(place)
            _check_part(place, part, model)
            rows = np.sort(np.random.default_rng(seed).permutation(len(part))[:_MOST_REPLAY])
            found = []
            for start in range(0, len(rows), _CHUNK):
                some = rows[start : start + _CHUNK]
                which = f"{seed} {start} {len(some)}"
                name = digest((), model.sha256, str(place.resolve()), _stamp(place), which)
                kept = folder / f"base-{name[:20]}.npz"
                known = _load(kept)
                if known is None:
                    known = some, tokens_of_part(net, _take(part, some))
                    _save(kept, *known)
                found.append(known[1])
            say(f"base data: {len(rows)} of {len(part)} decisions of {part.name}")
            tokens.append(joined(found))
            groups.append(part.group[rows])
    group = np.unique(np.concatenate(groups), return_inverse=True)[1]
    return joined(tokens), group.astype(np.int64)


def _stamp(place: Path) -> str:
    stat = (place / "rows.npz").stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def _part_folders(
    path: Path, below_z: int | None, model: Model, folder: Path, seed: int, say: Say
) -> list[Path]:
    file = path / "dataset.toml" if path.is_dir() else path
    if file.is_file() and file.suffix == ".toml":
        return _rendered(file, below_z, model, folder, seed, say)
    if (path / "part.json").is_file():
        return [path]
    inside = sorted((path / "parts" if (path / "parts").is_dir() else path).glob("*/part.json"))
    found = [p.parent for p in inside if not p.parent.name.endswith("-validation")]
    if not found:
        raise DatasetError(
            f"{path} holds no base data. --replay takes a folder of prepared decisions (OUT or "
            "OUT/parts of cb2-assist train), or a dataset.toml with truth."
        )
    return found


def _rendered(
    file: Path, below_z: int | None, model: Model, folder: Path, seed: int, say: Say
) -> list[Path]:
    """Decisions of a dataset with truth, rendered once for each question."""
    source = open_dataset_file(file)
    try:
        volume = load_volume(source)
    finally:
        source.close()
    if below_z is not None:
        volume = volume.below_z(below_z)
    out = []
    for kind in Kind:
        name = f"{volume.name}-{kind.value}"
        place = folder / f"base-{name}-{below_z or 'all'}"
        views = model.views
        examples = volume_examples(
            volume, views, kinds=(kind,), z_range=(0, 1 << 30), seed=seed, merges=_MERGES
        )
        try:
            prepare(
                examples, place, name, views, grey_statistics(volume), say=say,
                bodies=pure_bodies(volume),
            )  # fmt: skip
        except DatasetError:
            if kind is Kind.JOIN:
                raise
            continue  # too small a volume for synthetic cuts
        out.append(place)
    return out


def _check_part(place: Path, part: Part, model: Model) -> None:
    meta = json.loads((place / "part.json").read_text())
    views = model.views
    seen = (meta["profile"], meta["extent_nm"], part.em.shape[-1])
    wanted = (views.profile, views.extent_nm, views.image_px)
    if seen != wanted:
        raise DatasetError(
            f"{place} holds {seen[0]} views of {seen[1]:g} nm at {seen[2]} px; {model.name} sees "
            f"{wanted[0]} views of {wanted[1]:g} nm at {wanted[2]} px. Give base data that was "
            "prepared for this model, or the dataset itself."
        )


def _take(part: Part, rows: NDArray[np.int64]) -> Part:
    columns = {f.name: getattr(part, f.name) for f in fields(part)}
    return Part(**{k: v if k == "name" else v[rows] for k, v in columns.items()})


def _save(path: Path, rows: NDArray[np.int64], tokens: Tokens) -> None:
    columns = {f.name: getattr(tokens, f.name) for f in fields(tokens)}
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, rows=rows, **columns)
    temporary.replace(path)


def _load(path: Path) -> tuple[NDArray[np.int64], Tokens] | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as kept:
        return kept["rows"], Tokens(*(kept[f.name] for f in fields(Tokens)))
