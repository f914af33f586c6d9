"""`cb2-assist evaluate`: a model on decisions with truth, and figures that can be checked.

Decisions come from a dataset with truth (`judge_volume`) or from parquet with labels
(`judge_rows`): our cb2-v1 export or a public ConnectomeBench2 release.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cb2_assist.core.errors import AssistError, DatasetError, UsageError
from cb2_assist.datasets.dataset_file import FILE_NAME
from cb2_assist.datasets.local import open_dataset_file
from cb2_assist.learning.compare import NOTE, compare
from cb2_assist.learning.contract_figures import DRAWS, contract_figures
from cb2_assist.learning.evaluation_plots import write_plots
from cb2_assist.learning.evaluation_report import report
from cb2_assist.learning.examples import PairTable, Volume, touching_pairs
from cb2_assist.learning.judge_volume import SIMPLE_FEATURES, VolumeJudge, fit_baseline
from cb2_assist.learning.judged import Judged
from cb2_assist.learning.prepare import load_volume
from cb2_assist.learning.published import published
from cb2_assist.model.card import check_card
from cb2_assist.model.shipped import shipped_for, shipped_model

if TYPE_CHECKING:
    from cb2_assist.model.predictor import Predictor
    from cb2_assist.suggestions.calibration import Calibrator

Say = Callable[[str], None]
METRICS, REPORT = "metrics.json", "report.md"
UNFILTERED = "mixed segments too, each by the body that most of it is"
"""Subset with the pairs that are left out of the figures since their answer can be doubted."""


_CB2_VOXEL_NM = (8.0, 8.0, 40.0)
"""About what MICrONS', FlyWire's, H01's and Fish1's segmentations have; all are serial sections."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to evaluate.

    Attributes:
        data: Dataset file with truth or its folder, folder of parquet shards, or one such file.
        from_z: Of a dataset: only contacts with z at or above this voxel index.
        training: The dataset file that the model learnt from, for the baseline and for the parts
            that share no segment and no truth body with training.
        below_z: Training used contacts below this plane.
        merges: Of a dataset: synthetic merges for the cut task; 0 leaves it out.
        split: Of parquet: ``train``, ``val``, ``test`` or ``all``; None is `find_shards`' choice.
        any_profile: Of parquet: also show views in another encoding than the card's.
        draws: Resamples behind the intervals.
        compare: Another model, asked the same.
    """

    data: Path
    model: Path
    out: Path
    from_z: int = 0
    training: Path | None = None
    below_z: int = 0
    merges: int = 0
    device: str = "auto"
    backend: str = "auto"
    split: str | None = None
    any_profile: bool = False
    draws: int = DRAWS
    compare: Path | None = None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One model on the data.

    Attributes:
        model: Name, hash and calibrator.
        sets: One a task.
        about: More of ``metrics.json``: what was read and left out.
        subsets: More of a task's entry, by task.
    """

    model: dict[str, str]
    sets: list[Judged]
    about: dict[str, Any]
    subsets: dict[str, Any] = field(default_factory=dict)


def evaluate(request: Request, say: Say) -> dict[str, Any]:
    """Write ``metrics.json``, ``report.md`` and plots into the request's folder.

    Returns:
        What is in ``metrics.json``.

    Raises:
        DatasetError: The data cannot be read, or has no answers.
        ModelError: The model cannot be used, or not on this data.
        UsageError: Options that do not go with the data, or ``out`` is a file.
        AssistError: The results cannot be written.
    """
    # before hours of work, not after
    _make(request.out)
    if request.compare is not None:
        check_card(request.compare)
    found = judge(request, request.model, say)
    tasks = {j.kind.value: j.task(request.draws) for j in found.sets}
    for name, more in found.subsets.items():
        tasks[name]["subsets"] = more
    result = {
        "model": found.model,
        "data": _name(request.data),
        "n": sum(t["n"] for t in tasks.values()),
        "n_scored": sum(t["n_scored"] for t in tasks.values()),
        **found.about,
        "tasks": tasks,
        "published": published(),
    }
    if request.compare is not None:
        other = judge(request, request.compare, say)
        result["compare"] = {
            "first": found.model,
            "second": other.model,
            "note": NOTE,
            "skipped": other.about.get("skipped", {}),
            "unscored": other.about.get("unscored", {}),
            "mismatches": other.about.get("mismatches", {}),
            "tasks": compare(found.sets, other.sets, request.draws),
        }
    _write(request.out, result, found)
    return result


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"--out names a folder, but {out} is a file.") from None
    except OSError as e:
        raise AssistError(
            f"The folder {out} cannot be made: {e.strerror or e}. Name another with --out."
        ) from e


def _write(out: Path, result: dict[str, Any], found: Evaluated) -> None:
    # NaN is no JSON: what has no value is null
    text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False)
    try:
        (out / METRICS).write_text(text + "\n", encoding="utf-8")
        plots = write_plots(found.sets, found.model["name"], out)
        (out / REPORT).write_text(report(result, plots), encoding="utf-8")
    except OSError as e:
        raise AssistError(
            f"The results cannot be written to {out}: {e.strerror or e}. Free some space or name "
            "another folder with --out."
        ) from e


def model_for(data: Path) -> Path:
    """Folder of the shipped model for data to evaluate.

    Rows of our exports name the weights and the dataset that their decisions were given to. Others
    are taken for ConnectomeBench2's, all of whose volumes are of thick sections.

    Raises:
        DatasetError: The data cannot be read.
    """
    from cb2_assist.learning.cb2_decisions import origins
    from cb2_assist.learning.cb2_schema import find_shards, is_decision_folder

    file = data if data.is_file() else data / FILE_NAME
    if is_decision_folder(data):
        found = origins(find_shards(data, None)[0][0])
        names = Counter(o.dataset for o in found if o.dataset)
        if not names:
            return shipped_model(_CB2_VOXEL_NM)
        return shipped_for(names.most_common(1)[0][0], (o.model_sha256 for o in found))
    if not file.is_file():
        return shipped_model()
    source = open_dataset_file(file)
    try:
        return shipped_model(source.resolution)
    finally:
        source.close()


def judge(request: Request, model: Path, say: Say) -> Evaluated:
    """Score every decision of the data by one model."""
    from cb2_assist.learning.cb2_schema import is_decision_folder
    from cb2_assist.model.predictor import Predictor
    from cb2_assist.suggestions.calibration import calibrator_from_card

    is_rows = is_decision_folder(request.data)
    _check(request, is_rows)
    predictor = Predictor.open(model, request.device, backend=request.backend)
    try:
        calibrator = calibrator_from_card(predictor.model.card)
        run = _judge_rows if is_rows else _judge_volume
        return run(request, predictor, calibrator, say)
    finally:
        predictor.close()


def _check(request: Request, is_rows: bool) -> None:
    if not request.data.exists():
        raise DatasetError(
            f"There is no {request.data}. --data takes a dataset.toml with truth, a folder of "
            "parquet shards, or one parquet file."
        )
    of_volume = {
        "--from-z": request.from_z,
        "--training": request.training,
        "--merges": request.merges,
    }
    of_rows = {"--split": request.split, "--any-profile": request.any_profile}
    wrong = [name for name, value in (of_volume if is_rows else of_rows).items() if value]
    if wrong:
        what = "parquet rows" if is_rows else "a dataset with truth"
        raise UsageError(f"{', '.join(wrong)} does not go with {what}, which {request.data} is.")


def _name(data: Path) -> str:
    return data.resolve().parent.name if data.suffix == ".toml" else data.resolve().name


def _model(predictor: Predictor, calibrator: Calibrator) -> dict[str, str]:
    model = predictor.model
    return {
        "name": model.name,
        "sha256": model.sha256,
        "calibrator": calibrator.id,
        "profile": model.views.profile,
    }


def _judge_rows(
    request: Request, predictor: Predictor, calibrator: Calibrator, say: Say
) -> Evaluated:
    from cb2_assist.learning.cb2_schema import find_shards, release_of
    from cb2_assist.learning.judge_rows import judge_rows

    files, splits = find_shards(request.data, request.split)
    release = release_of(files)
    say(f"{len(files)} shards with the columns of ConnectomeBench2 {release.name}")
    sets, tally = judge_rows(
        files, release, predictor, calibrator, any_profile=request.any_profile, say=say
    )
    about = {
        "format": f"ConnectomeBench2 {release.name}",
        "splits": splits,
        "rows": tally.rows,
        "skipped": dict(tally.skipped),
        "unscored": dict(tally.unscored),
        "mismatches": dict(tally.mismatches),
        "interval": _interval(request, tally.clusters, release.block_nm),
    }
    return Evaluated(_model(predictor, calibrator), sets, about)


def _interval(request: Request, clusters: dict[str, int], block_nm: float) -> dict[str, Any]:
    return {
        "level": 0.95,
        "draws": request.draws,
        "method": "percentiles of a bootstrap that resamples whole clusters",
        "clusters": dict(clusters),
        "body": "the root id that the row names as proofread (ours: the segment asked about)",
        "block": f"cubes of {block_nm / 1000:g} µm, for rows that name none",
        "volume": "the archive, for rows without either",
    }


def _judge_volume(
    request: Request, predictor: Predictor, calibrator: Calibrator, say: Say
) -> Evaluated:
    data = request.data if request.data.is_file() else request.data / FILE_NAME
    volume, species = _load(data)
    on = VolumeJudge(volume, species, predictor, calibrator, say)
    if request.merges:
        on.check_cuts()
    table = touching_pairs(volume)
    known = (table.truth_a > 0) & (table.truth_b > 0)
    every = table.take(known & (table.contact_z >= request.from_z))
    pure = every.pure()
    part = every.take(pure)
    baseline = None
    if request.training is not None:
        learnt = _load(request.training)[0].below_z(request.below_z)
        taught = touching_pairs(learnt)
        taught = taught.take(taught.pure() & (taught.contact_z < request.below_z))
        baseline = fit_baseline(learnt, taught, predictor.model.views_for(species).site_nm)
        say(f"baseline: boosted trees on {len(SIMPLE_FEATURES)} features of {len(taught)} joins")
    all_joins, all_simple = on.joins(every, baseline)
    joins = all_joins.take(pure)
    simple = None if all_simple is None else all_simple[pure]
    subsets = {"all": np.ones(len(part), bool)}
    if request.training == request.data:
        seen = table.take(table.pure() & (table.contact_z < request.below_z))
        subsets["no segment shared with training"] = _apart(part, seen, ("a", "b"))
        subsets["no truth body shared with training"] = _apart(part, seen, ("truth_a", "truth_b"))
    sets = [joins] if len(joins) else []
    if request.merges:
        above = table.take(table.contact_z >= request.from_z)
        cuts = on.cuts(above, merges=request.merges)
        sets += [cuts] if len(cuts) else []
    if not sets:
        raise DatasetError(
            f"{data} has no touching pair with a clear answer at z >= {request.from_z}: nothing to "
            "evaluate."
        )
    about = {
        "format": "dataset with truth",
        "from_z_vx": request.from_z,
        "interval": {
            "level": 0.95,
            "draws": request.draws,
            "method": "percentiles of a bootstrap that resamples whole clusters",
            "clusters": {"body": sum(map(len, sets))},
            "body": "the truth body of the smaller segment",
        },
    }
    more = _subset_figures(joins, simple, subsets, request.draws) if len(joins) else None
    if more is not None and not pure.all():
        # what a proofreader meets: nobody has taken the mixed segments out there
        whole = {UNFILTERED: np.ones(len(every), bool)}
        more |= _subset_figures(all_joins, all_simple, whole, request.draws)
    return Evaluated(
        _model(predictor, calibrator), sets, about, {} if more is None else {"join": more}
    )


def _subset_figures(
    joins: Judged,
    simple: NDArray[np.float64] | None,
    subsets: dict[str, NDArray[np.bool_]],
    draws: int,
) -> dict[str, Any]:
    """Model and baseline on parts of the joins where both answers occur."""
    out: dict[str, Any] = {}
    for name, rows in subsets.items():
        answer, cluster = joins.answer[rows], joins.cluster[rows]
        if not answer.any() or answer.all():
            continue
        out[name] = {"model": contract_figures(answer, joins.score[rows], cluster, draws=draws)}
        if simple is not None:
            out[name]["baseline"] = contract_figures(answer, simple[rows], cluster, draws=draws)
    return out


def _load(path: Path) -> tuple[Volume, str]:
    source = open_dataset_file(path)
    try:
        return load_volume(source), source.info.species
    finally:
        source.close()


def _apart(part: PairTable, known: PairTable, columns: Sequence[str]) -> NDArray[np.bool_]:
    """Rows neither of whose two sides occurs in the training table."""
    seen = np.unique(np.concatenate([getattr(known, c) for c in columns]))
    out: NDArray[np.bool_] = ~np.isin(getattr(part, columns[0]), seen)
    return out & ~np.isin(getattr(part, columns[1]), seen)
