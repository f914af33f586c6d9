"""The composition root: the only place that chooses classes and wires them together.

What `serve` needs besides is in `app_server`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cb2_assist.assistant import Assistant
from cb2_assist.core.errors import DatasetError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import BaseRate, Kind
from cb2_assist.datasets.source import Source

if TYPE_CHECKING:
    from cb2_assist.suggestions.in_use import Opened


@dataclass(frozen=True, slots=True)
class DatasetChoice:
    """Which dataset: a known name or a file, exactly one."""

    name: str | None = None
    file: Path | None = None


def dataset_choice(dataset: str | Path) -> DatasetChoice:
    """What a script means: a known name, a dataset.toml, or the folder of one."""
    path = Path(dataset)
    is_file = isinstance(dataset, Path) or path.suffix == ".toml" or len(path.parts) > 1
    if not is_file:
        return DatasetChoice(name=str(dataset))
    from cb2_assist.datasets.dataset_file import FILE_NAME

    # what cannot be looked at is said where it is opened
    with contextlib.suppress(OSError, RuntimeError):
        inside = path.expanduser() / FILE_NAME
        path = inside if inside.is_file() else path
    return DatasetChoice(file=path)


def open_dataset(dataset: str | Path) -> Source:
    """Open a dataset to read its EM and segments; close it when done.

    Args:
        dataset: A known name, a dataset.toml, or the folder of one.

    Raises:
        UnknownDatasetError: No dataset goes by the name.
        DatasetError: It cannot be opened.
    """
    from cb2_assist.datasets import registry

    choice = dataset_choice(dataset)
    return registry.open_dataset(choice.name, choice.file)


def open_assistant(
    dataset: str | Path,
    *,
    model: Path | str | None = None,
    device: str = "auto",
    backend: str = "auto",
    threads: int | None = None,
) -> Assistant:
    """Open a dataset and a model; a context manager.

        with open_assistant("demo") as assistant:
            found = assistant.suggest(PointNm(3000, 3000, 2000))

    Args:
        dataset: A known name, a dataset.toml, or the folder of one.
        model: Model folder; None is the shipped one for its voxels.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        backend: ``auto`` or one of `settings.BACKENDS`.
        threads: For views and, on a CPU, the network; None is one per core.

    Raises:
        DatasetError: The dataset cannot be opened.
        ModelError: Model or device cannot be used.
    """
    return build_assistant(
        dataset_choice(dataset),
        model=None if model is None else Path(model),
        device=device,
        backend=backend,
        threads=threads,
    )


def build_assistant(
    dataset: DatasetChoice,
    *,
    model: Path | None = None,
    device: str = "auto",
    backend: str = "auto",
    threads: int | None = None,
    soon: bool = False,
    network: bool = True,
) -> Assistant:
    """Open a dataset and a model.

    Args:
        dataset: Which one to open.
        model: Model folder; None is the shipped one for its voxels.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        backend: ``auto`` or one of `settings.BACKENDS`.
        threads: For views and, on a CPU, the network; None is one per core.
        soon: Return while the network is still being loaded; the first question waits for it.
        network: False for an assistant that only renders views, from the model's card; torch is
            then not imported.

    Raises:
        DatasetError: The dataset cannot be opened.
        ModelError: Model or device cannot be used.
    """
    from cb2_assist.datasets.registry import open_dataset

    source = open_dataset(dataset.name, dataset.file)
    try:
        from cb2_assist.model.shipped import shipped_model
        from cb2_assist.suggestions.in_use import ModelsInUse

        def opened(folder: Path, *, wait: bool = True) -> Opened:
            how = _Backing(device, backend, threads, network)
            return _open_model(source, folder, how, wait=wait)

        first = opened(model or shipped_model(source.resolution), wait=not soon)
        return Assistant(source, ModelsInUse(first, opened))
    except BaseException:
        source.close()
        raise


@dataclass(frozen=True, slots=True)
class _Backing:
    """What runs a model; see `build_assistant`."""

    device: str
    backend: str
    threads: int | None
    network: bool


def _open_model(source: Source, folder: Path, how: _Backing, *, wait: bool) -> Opened:
    """A model on a dataset, with the calibration that is saved for it now.

    Raises:
        AssistError: The saved state is damaged.
        ModelError: Model or device cannot be used.
    """
    from cb2_assist.model.card import check_card
    from cb2_assist.model.soon import NoNetwork, PredictorSoon
    from cb2_assist.suggestions.base_rate import base_rates, read_state
    from cb2_assist.suggestions.calibration import calibrator_from_card, why_uncalibrated
    from cb2_assist.suggestions.facts import ModelFacts
    from cb2_assist.suggestions.in_use import Opened
    from cb2_assist.suggestions.pipeline import Pipeline

    loaded = check_card(folder)
    state = read_state(saved_state_file(source.info.name))
    species = source.info.species
    views = loaded.views_for(species)
    predictor = (
        PredictorSoon(folder, how.device, how.threads, how.backend) if how.network else NoNetwork()
    )
    if wait:
        predictor.wait()
    pipeline = Pipeline(
        source,
        predictor,
        ModelFacts(
            loaded.name,
            loaded.sha256,
            views.profile,
            views.extent_nm,
            loaded.percentile,
            views.em_oblique,
            views.em_extent_nm,
            views.site_nm,
            why_uncalibrated(loaded.card, species, views.extent_nm),
            loaded.reads_neighbours,
            loaded.reads_passage,
        ),
        calibrator_from_card(loaded.card).with_state(state, loaded.sha256),
        base_rates(state, loaded.card),
        threads=how.threads,
    )

    def close() -> None:
        pipeline.close()
        predictor.close()

    verdict = (loaded.card.get("finetune") or {}).get("verdict") or {}
    return Opened(folder, pipeline, close, str(verdict.get("is", "")))


def saved_base_rates(
    dataset: str, model: Path | None = None, *, sha256s: Iterable[str] = ()
) -> dict[Kind, BaseRate]:
    """The rates in force for a dataset, without opening it.

    Args:
        dataset: Its name.
        model: Model folder; None is the shipped one, see `model.shipped.shipped_for`.
        sha256s: Of the weights behind each of its answers.

    Raises:
        AssistError: The saved state is damaged.
        ModelError: The model cannot be used.
    """
    from cb2_assist.model.card import check_card
    from cb2_assist.model.shipped import shipped_for
    from cb2_assist.suggestions.base_rate import base_rates, read_state

    folder = model or shipped_for(dataset, sha256s)
    return base_rates(read_state(saved_state_file(dataset)), check_card(folder).card)


def model_for(dataset: DatasetChoice) -> Path:
    """Folder of the shipped model that serves a dataset. Opens a dataset file for it.

    Raises:
        DatasetError: The file or a volume is missing or damaged.
    """
    from cb2_assist.datasets import registry
    from cb2_assist.model.shipped import shipped_for, shipped_model

    if dataset.file is None:
        return shipped_for(str(dataset.name))
    source = registry.open_dataset(None, dataset.file)
    try:
        return shipped_model(source.resolution)
    finally:
        source.close()


def saved_state_file(dataset: str) -> Path:
    """Where `calibrate` keeps what it found out about a dataset; may not be there."""
    import platformdirs

    from cb2_assist.suggestions.base_rate import state_file

    return state_file(platformdirs.user_data_path("cb2-assist", appauthor=False), dataset)


def dataset_name(dataset: DatasetChoice) -> str:
    """Name of a dataset, without opening its volumes.

    Raises:
        DatasetError: The dataset file is missing or damaged.
    """
    if dataset.file is None:
        return str(dataset.name)
    from cb2_assist.datasets.dataset_file import read_dataset_file

    return read_dataset_file(dataset.file).name


def warm_up(assistant: Assistant, at: PointNm | None = None) -> None:
    """Load and compile what the first `p` needs, so that it does not wait for either.

    Args:
        assistant: Whose dataset and model are to be ready.
        at: Where the first `p` is likely; None is the middle.
    """
    from cb2_assist.candidates.finder import warm_up as warm_candidates
    from cb2_assist.views.surroundings import warm_up as warm_measures

    # the first read imports the volume library, about a second
    assistant.source.segment_at(centre_of(assistant.source))
    assistant.warm_up_views()
    warm_candidates()
    warm_measures()
    # a question whose answer nobody sees: reads the voxels round the start, runs the network once
    with contextlib.suppress(DatasetError):
        assistant.suggest(at or centre_of(assistant.source))


def centre_of(source: Source) -> PointNm:
    """The middle of a dataset."""
    b = source.bounds
    r = source.resolution
    return PointNm(
        (b.lo.x + b.hi.x) / 2 * r.x, (b.lo.y + b.hi.y) / 2 * r.y, (b.lo.z + b.hi.z) / 2 * r.z
    )
