"""`cb2-assist shifts`: a model on shifted data, and whether its distances say so.

Each cell is kept in a file of its own: the same command again goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cb2_assist import __version__
from cb2_assist.core.errors import AssistError, DatasetError, ModelError, UsageError
from cb2_assist.core.records import Kind
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning.examples import PairTable, Volume, touching_pairs
from cb2_assist.learning.prepare import load_volume
from cb2_assist.learning.shift_cells import Seen, draw_pairs, kept, see
from cb2_assist.learning.shift_figures import Analysis
from cb2_assist.learning.shift_report import PLOTS, plots, report
from cb2_assist.learning.shifts import SHIPPED, Cell, read_shifts

if TYPE_CHECKING:
    from cb2_assist.model.predictor import Predictor

Say = Callable[[str], None]
METRICS, REPORT, CELLS = "shifts.json", "report.md", "cells"
DECISIONS = 200
"""Joins of each cell, half of them true."""
DRAWS = 300


@dataclass(frozen=True, slots=True)
class Request:
    """What to run.

    Attributes:
        data: Dataset file with truth.
        others: Dataset files of the other volumes, found by their names.
        z: Only contacts of ``data`` with lo <= z < hi, absolute voxels; nothing from hi on is read.
        n: Joins of each cell at most.
        shifts: File of shifts.
        draws: Resamples behind the intervals.
    """

    data: Path
    model: Path
    out: Path
    others: tuple[Path, ...] = ()
    z: tuple[int, int] | None = None
    n: int = DECISIONS
    shifts: Path = SHIPPED
    device: str = "auto"
    draws: int = DRAWS
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    """A volume and the joins that are drawn from it."""

    volume: Volume
    version: str
    species: str
    table: PairTable


def run_shifts(request: Request, say: Say) -> dict[str, Any]:
    """Judge every cell that is not there yet, and write figures, report and plots.

    Returns:
        What is in ``shifts.json``.

    Raises:
        DatasetError: A dataset cannot be read, has no truth, or no joins of both answers.
        ModelError: The model cannot be used, or has no reference for joins.
        UsageError: The file of shifts cannot be used, or two datasets have one name.
        AssistError: The results cannot be written.
    """
    from cb2_assist.model.predictor import Predictor
    from cb2_assist.suggestions.calibration import calibrator_from_card

    shifts = read_shifts(request.shifts)
    others = _names(request.others)
    try:
        (request.out / CELLS).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise AssistError(
            f"The folder {request.out} cannot be made: {e.strerror or e}. Name another with --out."
        ) from e
    predictor = Predictor.open(request.model, request.device)
    try:
        reference = predictor.model.ood
        if reference is None or Kind.JOIN not in reference.tasks:
            raise ModelError(
                f"{predictor.model.name} does not say where its training joins lie, so nothing can "
                "be said of what is far from them. Give a model that train has made."
            )
        calibrator = calibrator_from_card(predictor.model.card)
        usual, found, missing = _all_cells(request, shifts.cells, others, predictor, say)
        say("figures")
        analysis = Analysis(
            usual,
            found,
            reference,
            lambda z: calibrator.score(Kind.JOIN, z),
            draws=request.draws,
            seed=request.seed,
        )
        result = {
            "model": {"name": predictor.model.name, "sha256": predictor.model.sha256},
            "data": request.data.resolve().parent.name,
            "z_vx": None if request.z is None else list(request.z),
            "shifts_version": shifts.version,
            "interval": {
                "level": 0.95,
                "draws": request.draws,
                "method": "percentiles of a bootstrap of truth bodies within each cell; "
                "ci95_families resamples whole families of shift instead",
            },
            "not_run": missing,
            **analysis.result(),
        }
    finally:
        predictor.close()
    _write(request.out, result)
    return result


def _names(files: tuple[Path, ...]) -> dict[str, Path]:
    out: dict[str, Path] = {}
    for path in files:
        source = open_dataset_file(path)
        name = source.info.name
        source.close()
        if name in out:
            raise UsageError(f"{out[name]} and {path} are both named {name}: give one of them.")
        out[name] = path
    return out


def _all_cells(
    request: Request,
    cells: tuple[Cell, ...],
    others: dict[str, Path],
    predictor: Predictor,
    say: Say,
) -> tuple[Seen, list[tuple[Cell, Seen]], list[dict[str, str]]]:
    own = _load(request.data, request, request.z, None)
    say(f"{len(own.table)} joins of {own.volume.name}, {int(own.table.same.sum())} of them true")
    usual = _one(request, own, None, predictor, say)
    found: list[tuple[Cell, Seen]] = []
    missing: list[dict[str, str]] = []
    for cell in cells:
        name = cell.dataset
        if name is None:
            found.append((cell, _one(request, own, cell, predictor, say)))
        elif name not in others:
            missing.append({"cell": cell.name, "why": f"needs --other for the dataset {name}"})
        else:
            data = _load(others[name], request, None, cell)
            found.append((cell, _one(request, data, cell, predictor, say)))
    return usual, found, missing


def _load(path: Path, request: Request, z: tuple[int, int] | None, cell: Cell | None) -> _Data:
    source = open_dataset_file(path)
    try:
        volume = load_volume(source)
        info = source.info
    finally:
        source.close()
    if z is not None:
        volume = volume.below_z(z[1])
    if cell is not None:
        volume = cell.prepare(volume)
    table = touching_pairs(volume)
    if z is not None:
        table = table.take((table.contact_z >= z[0]) & (table.contact_z < z[1]))
    table = draw_pairs(table, request.n, request.seed)
    if table.same.all() or not table.same.any():
        raise DatasetError(
            f"{path} has no touching pairs of both answers in the part asked for: nothing to "
            "measure. Give a larger part, or another segmentation."
        )
    return _Data(volume, info.version, info.species, table)


def _one(request: Request, data: _Data, cell: Cell | None, predictor: Predictor, say: Say) -> Seen:
    name = "unshifted" if cell is None else cell.name
    asked = {
        "made_by": __version__,
        "model": predictor.model.sha256,
        "data": [data.volume.name, data.version],
        "z": request.z,
        "n": request.n,
        "seed": request.seed,
        "does": None if cell is None else [cell.does, dict(cell.parameters), list(cell.absent)],
    }
    seen, was_there = kept(
        request.out / CELLS / f"{name}.npz",
        asked,
        lambda: see(data.volume, data.table, predictor, data.species, cell),
    )
    say(f"{name}: {int(seen.judged.sum())} of {len(seen)} judged{' before' if was_there else ''}")
    return seen


def _write(out: Path, result: dict[str, Any]) -> None:
    text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False)
    try:
        (out / METRICS).write_text(text + "\n", encoding="utf-8")
        for name, picture in zip(PLOTS, plots(result), strict=True):
            (out / name).write_text(picture, encoding="utf-8")
        (out / REPORT).write_text(report(result), encoding="utf-8")
    except OSError as e:
        raise AssistError(
            f"The results cannot be written to {out}: {e.strerror or e}. Free some space or name "
            "another folder with --out."
        ) from e
