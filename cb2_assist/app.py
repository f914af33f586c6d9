"""The composition root: the only place that chooses classes and wires them together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cb2_assist.assistant import Assistant
from cb2_assist.core.errors import (
    AssistError,
    BadRequestError,
    DatasetError,
    SegmentNotFoundError,
)
from cb2_assist.core.geometry import BoxVx, PointNm
from cb2_assist.core.records import (
    BACKGROUND,
    BaseRate,
    Kind,
    SegmentId,
)
from cb2_assist.datasets.source import EditableSource, GraphSource, Source
from cb2_assist.settings import SNAP_NM

if TYPE_CHECKING:
    from cb2_assist.decisions.log import DecisionLog
    from cb2_assist.labels.store import LabelStore
    from cb2_assist.review.applying import Applying
    from cb2_assist.review.state import Cursor
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


def saved_base_rates(dataset: str, model: Path | None = None) -> dict[Kind, BaseRate]:
    """The rates in force for a dataset, without opening it.

    Args:
        dataset: Its name.
        model: Model folder; None is the shipped one for its voxels.

    Raises:
        AssistError: The saved state is damaged.
        ModelError: The model cannot be used.
    """
    from cb2_assist.model.card import check_card
    from cb2_assist.model.shipped import shipped_model
    from cb2_assist.suggestions.base_rate import base_rates, read_state

    folder = model or shipped_model(known_voxel_nm(dataset))
    return base_rates(read_state(saved_state_file(dataset)), check_card(folder).card)


def model_for(dataset: DatasetChoice) -> Path:
    """Folder of the shipped model that serves a dataset. Opens a dataset file for it.

    Raises:
        DatasetError: The file or a volume is missing or damaged.
    """
    from cb2_assist.datasets import registry
    from cb2_assist.model.shipped import shipped_model

    if dataset.file is None:
        return shipped_model(known_voxel_nm(str(dataset.name)))
    source = registry.open_dataset(None, dataset.file)
    try:
        return shipped_model(source.resolution)
    finally:
        source.close()


def known_voxel_nm(dataset: str) -> tuple[float, float, float] | None:
    """Edges of the voxels of a known dataset, without opening it; None where nobody knows."""
    from cb2_assist.datasets.registry import known_datasets

    return next((e.voxel_nm for e in known_datasets() if e.name == dataset), None)


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
    assistant.source.segment_at(_centre(assistant.source))
    assistant.warm_up_views()
    warm_candidates()
    warm_measures()
    # a question whose answer nobody sees: reads the voxels round the start, runs the network once
    with contextlib.suppress(DatasetError):
        assistant.suggest(at or _centre(assistant.source))


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `cb2-assist serve` was asked for."""

    user: str
    labels: str | None = None
    host: str = "127.0.0.1"
    expose: bool = False
    allow_hosts: tuple[str, ...] = ()
    port: int | None = None
    keys: str = "default"
    keep_views: bool = True
    blind_share: float = 0.0
    seeded_share: float = 0.0
    at: PointNm | None = None
    segment: SegmentId | None = None
    apply: str = "off"
    """``off``, ``stage`` or ``live``: what becomes of accepted edits of a graph."""


def starting_cursor(
    assistant: Assistant, at: PointNm | None, segment: SegmentId | None
) -> Cursor | None:
    """Where `serve` begins when it was told so; None leaves it to the last session.

    Raises:
        BadRequestError: The segment is background.
        OutOfBoundsError: The point lies outside the volume.
        SegmentNotFoundError: The segment is nowhere, or not at the point.
        DatasetError: The data cannot be read.
    """
    from cb2_assist.review.state import Cursor
    from cb2_assist.review.travel import locate

    source, info = assistant.source, assistant.info
    if segment == BACKGROUND:
        raise BadRequestError("--segment 0 is background. Give the id of a segment.")
    # what was given is kept: the list says what has taken its place
    given = segment
    if at is None and segment is not None:
        if isinstance(source, GraphSource):
            segment, _ = source.latest(segment)
        return Cursor(locate(source, info, segment), given)
    if at is None:
        return None
    if segment is not None and isinstance(source, GraphSource):
        segment, _ = source.current(segment, at)
    here = source.segment_at(at)
    if segment is None or here == segment:
        return Cursor(at, given)
    near = BoxVx.around(at, SNAP_NM, source.resolution)
    if not (source.cutout(near).seg == segment).any():
        point = ", ".join(f"{v:.0f}" for v in at)
        raise SegmentNotFoundError(
            f"Segment {segment} is not within {SNAP_NM:.0f} nm of {point} nm; there is "
            f"{here or 'background'}. Leave out --at to start where the segment is."
        )
    return Cursor(at, given)


def run_server(
    assistant: Assistant,
    options: ServeOptions,
    *,
    on_ready: Callable[[str], None],
    on_arrival: Callable[[], None] = lambda: None,
    say: Callable[[str], None],
    stop: threading.Event | None = None,
) -> None:
    """Serve one assistant until Ctrl-C, SIGTERM or ``stop``.

    Args:
        assistant: What to serve; the caller closes it.
        options: What was asked for on the command line.
        on_ready: Called with the address, token included.
        on_arrival: Called, in another thread, whenever a browser has brought the token.
        say: Told in words what a person should know, e.g. where labels go.
        stop: Ends the server when set.

    Raises:
        LabelError: The label file cannot be used, or another server has it.
        DatasetError: There is nothing where it is to start; see `starting_cursor`.
        ServerError: The port cannot be opened.
    """
    from cb2_assist.decisions.log import DecisionLog
    from cb2_assist.labels.lock import acquire_server_lock
    from cb2_assist.labels.store import default_labels_url, open_store, server_file
    from cb2_assist.labels.views_store import ViewsStore
    from cb2_assist.server.serve import Options, serve, start_position
    from cb2_assist.viewer.mount import ViewerMount
    from cb2_assist.viewer.scene import Scene

    info, source = assistant.info, assistant.source
    url = options.labels or default_labels_url(info.name)
    path = server_file(url, dataset=info.name, user=options.user)
    state_path = path.with_name(path.name + ".session.json")
    start = starting_cursor(assistant, options.at, options.segment)
    begin = start_position(state_path, start.at if start else None, _centre(source))
    with acquire_server_lock(path, {"url": ""}) as lock, open_store(url) as store:
        for notice in store.notices:
            say(notice)
        say(f"labels of {info.name} go to {store.place}")
        if isinstance(source, GraphSource):
            say(f"{info.name} as of {source.timestamp}; answers are kept here")
        log = DecisionLog(store, user=options.user, dataset=info.name, version=info.version)
        applying = _applying(assistant, store, log, options, say)
        views = ViewsStore(store.views_folder) if options.keep_views else None
        scene = Scene(source.layers, begin)
        assistant.preparing = True
        threading.Thread(
            target=_quietly(lambda: _prepare(assistant, begin), say), name="warm-up", daemon=True
        ).start()

        def mount(**given: Any) -> ViewerMount:  # noqa: ANN401 - the server's own keywords
            return ViewerMount(scene, **given)

        def make_report() -> dict[str, Any]:
            # not needed to start
            from cb2_assist.learning.report import report

            return report(store, dataset=info.name, only=options.user)

        seeds = None
        if options.seeded_share > 0:
            from cb2_assist.datasets.local import LocalSource
            from cb2_assist.learning.seeded import Seeds

            truth = source if isinstance(source, LocalSource) and source.has_truth else None
            share, user = options.seeded_share, options.user
            seeds = Seeds(store, share, user, info.name, info.version, truth)

        def ready(address: str) -> None:
            lock.update({"url": address.partition("?")[0]})
            on_ready(address)

        serve(
            assistant,
            log,
            views,
            mount,
            on_ready=ready,
            on_arrival=on_arrival,
            stop=stop,
            start_at=start,
            queue=store.queue,
            seeds=seeds,
            report=make_report,
            models=assistant,
            applying=applying,
            options=Options(
                user=options.user,
                host=options.host,
                expose=options.expose,
                allow_hosts=options.allow_hosts,
                port=options.port,
                state_path=state_path,
                keys=options.keys,
                blind_share=options.blind_share,
            ),
        )
        if n := log.undelivered:
            say(f"{n} events wait on this computer for {store.place}; start again to deliver them")


def _applying(
    assistant: Assistant,
    store: LabelStore,
    verdicts: DecisionLog,
    options: ServeOptions,
    say: Callable[[str], None],
) -> Applying | None:
    """What applies accepted edits, as was asked for; None where nothing is to be applied."""
    from cb2_assist.decisions.edits import EditFlow
    from cb2_assist.review.applying import GRACE_S, Applying
    from cb2_assist.review.evidence import CutSides

    source = assistant.source
    name, user = source.info.name, options.user
    editor = source.editor if isinstance(source, EditableSource) else None
    if options.apply == "off":
        if isinstance(source, GraphSource):
            say("no edit is sent to the graph; --apply stage or --apply live would")
        return None
    if editor is None:
        say(f"{name} is read only: decisions are logged, nothing is applied")
        return None
    say(
        f"accepted joins are applied to {name} after {GRACE_S:.0f} s, which u cancels; cuts wait "
        "for y"
        if options.apply == "live"
        else f"accepted edits of {name} wait in a list; y applies them, one by one"
    )
    flow = EditFlow(store.edits, editor, user=user, dataset=name)
    sides, is_live = CutSides(assistant.sides_at), options.apply == "live"
    return Applying(flow, store.edits, verdicts, sides, user=user, dataset=name, is_live=is_live)


def _prepare(assistant: Assistant, at: PointNm) -> None:
    try:
        warm_up(assistant, at)
    finally:
        assistant.preparing = False


def _centre(source: Source) -> PointNm:
    b = source.bounds
    r = source.resolution
    return PointNm(
        (b.lo.x + b.hi.x) / 2 * r.x, (b.lo.y + b.hi.y) / 2 * r.y, (b.lo.z + b.hi.z) / 2 * r.z
    )


def _quietly(work: Callable[[], None], say: Callable[[str], None]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except (OSError, RuntimeError, AssistError) as e:
            # the first p compiles then; slower, not wrong
            say(f"warm-up stopped: {e}")

    return run
