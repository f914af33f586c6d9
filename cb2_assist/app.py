"""The composition root: the only place that chooses classes and wires them together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cb2_assist.core.errors import (
    AssistError,
    BadRequestError,
    DatasetError,
    ModelError,
    SegmentNotFoundError,
)
from cb2_assist.core.geometry import BoxVx, PointNm
from cb2_assist.core.records import (
    BACKGROUND,
    BaseRate,
    Kind,
    ModelOutput,
    SegmentId,
    Site,
    SuggestionList,
)
from cb2_assist.datasets.source import DatasetInfo, Source
from cb2_assist.resources import resource_dir
from cb2_assist.settings import DEFAULT_MODEL, MAX_CANDIDATES, SNAP_NM

if TYPE_CHECKING:
    from cb2_assist.model.predictor import Predictor
    from cb2_assist.review.state import Cursor
    from cb2_assist.suggestions.pipeline import Answer, Pipeline
    from cb2_assist.views.stack import ViewStack

_SIDE_POINTS = 150
"""Points drawn on each side of a cut."""


class Assistant:
    """A dataset and a model, ready to answer. Methods may be called from several threads."""

    def __init__(self, source: Source, pipeline: Pipeline, close: Callable[[], None]) -> None:
        self.source = source
        self.preparing = False
        """Whether `warm_up` is under way: answers made meanwhile take longer."""
        self._pipeline = pipeline
        self._close = close

    @property
    def info(self) -> DatasetInfo:
        """Name, version and licence of the dataset."""
        return self.source.info

    @property
    def base_rates(self) -> dict[Kind, BaseRate]:
        """The rates in force."""
        return dict(self._pipeline.base_rates)

    def suggest(
        self,
        at: PointNm,
        segment: SegmentId | None = None,
        kind: Kind | None = None,
        limit: int = MAX_CANDIDATES,
    ) -> SuggestionList:
        """Ranked suggestions at a point; see `suggestions.pipeline.Pipeline.suggest`."""
        return self._pipeline.suggest(at, segment, kind, limit)

    def score(
        self,
        sites: Iterable[Site],
        *,
        batch: int = 16,
        base_rates: Mapping[Kind, BaseRate] | None = None,
    ) -> Iterator[Answer]:
        """Judge given sites, in order; see `suggestions.pipeline.Pipeline.score`."""
        return self._pipeline.score(sites, batch=batch, base_rates=base_rates)

    def render(self, site: Site) -> ViewStack:
        """What the model sees of a site; see `suggestions.pipeline.Pipeline.render`."""
        return self._pipeline.render(site)

    def views_of(self, suggestion_id: str) -> tuple[str, bytes] | None:
        """SHA-256 and bytes of what the model saw; None when no longer in memory."""
        from cb2_assist.views.stack import content_sha256, to_bytes

        stack = self._pipeline.stack_of(suggestion_id)
        return None if stack is None else (content_sha256(stack), to_bytes(stack))

    def picture_of(self, suggestion_id: str, view: str) -> tuple[str, bytes] | None:
        """SHA-256 of what the model saw, and one view of it as PNG; None when not in memory."""
        from cb2_assist.views.pictures import picture_png
        from cb2_assist.views.stack import content_sha256

        stack = self._pipeline.stack_of(suggestion_id)
        return None if stack is None else (content_sha256(stack), picture_png(stack, view))

    def sides_of(self, suggestion_id: str) -> list[list[list[float]]] | None:
        """Points in nm on the surface of the two sides of a cut; None for a join or unknown."""
        import numpy as np

        window = self._pipeline.window_of(suggestion_id)
        if window is None or window.site.kind is not Kind.CUT:
            return None
        res, lo = np.array(tuple(window.resolution)), np.array(tuple(window.box.lo))
        out = []
        for side in (1, 2):
            mask = window.label == side
            inner = mask.copy()
            inner[1:-1, 1:-1, 1:-1] &= (
                mask[:-2, 1:-1, 1:-1]
                & mask[2:, 1:-1, 1:-1]
                & mask[1:-1, :-2, 1:-1]
                & mask[1:-1, 2:, 1:-1]
                & mask[1:-1, 1:-1, :-2]
                & mask[1:-1, 1:-1, 2:]
            )
            voxels = np.argwhere(mask & ~inner)
            # evenly spaced in a fixed order: the same points each time
            step = max(1, len(voxels) // _SIDE_POINTS)
            points = (voxels[::step][:_SIDE_POINTS] + lo + 0.5) * res
            out.append([[float(v) for v in p] for p in points])
        return out

    def close(self) -> None:
        """Let go of threads and files."""
        self._close()


@dataclass(frozen=True, slots=True)
class DatasetChoice:
    """Which dataset: a known name or a file, exactly one."""

    name: str | None = None
    file: Path | None = None


class _PredictorSoon:
    """A predictor that is loaded in the background: torch and timm take seconds to import."""

    def __init__(self, folder: Path, device: str, threads: int | None) -> None:
        self._arguments = (folder, device, threads)
        self._loaded: Future[Predictor] = Future()
        threading.Thread(target=self._load, name="load-model", daemon=True).start()

    def _load(self) -> None:
        try:
            from cb2_assist.model.predictor import Predictor

            self._loaded.set_result(Predictor.open(*self._arguments))
        except BaseException as e:  # noqa: BLE001 - raised where the answer is waited for
            self._loaded.set_exception(e)

    def wait(self) -> Predictor:
        """The predictor.

        Raises:
            ModelError: Model or device cannot be used.
        """
        return self._loaded.result()

    def predict(self, stacks: Sequence[ViewStack], kinds: Sequence[Kind]) -> list[ModelOutput]:
        """Answer one question per stack, in order."""
        return self.wait().predict(stacks, kinds)

    def close(self) -> None:
        """Stop the worker threads, if there are any yet."""
        if self._loaded.done() and self._loaded.exception() is None:
            self._loaded.result().close()


class _NoNetwork:
    """In the place of a predictor where only views are made."""

    def predict(self, stacks: Sequence[ViewStack], kinds: Sequence[Kind]) -> list[ModelOutput]:  # noqa: ARG002
        """Refuse.

        Raises:
            ModelError: Always.
        """
        raise ModelError("This assistant was built without its network and cannot judge.")

    def wait(self) -> None:
        """Nothing to wait for."""

    def close(self) -> None:
        """Nothing to let go of."""


def build_assistant(
    dataset: DatasetChoice,
    *,
    model: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    soon: bool = False,
    network: bool = True,
) -> Assistant:
    """Open a dataset and a model.

    Args:
        dataset: Which one to open.
        model: Model folder; None is the shipped one.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: For views and, on a CPU, the network; None is one per core.
        soon: Return while the network is still being loaded; the first question waits for it.
        network: False for an assistant that only renders views, from the model's card; torch is
            then not imported.

    Raises:
        DatasetError: The dataset cannot be opened.
        ModelError: Model or device cannot be used.
    """
    import platformdirs

    from cb2_assist.datasets.registry import open_dataset

    source = open_dataset(dataset.name, dataset.file)
    try:
        from cb2_assist.model.card import check_card
        from cb2_assist.suggestions.base_rate import read_base_rates, state_file
        from cb2_assist.suggestions.calibration import calibrator_from_card
        from cb2_assist.suggestions.pipeline import ModelFacts, Pipeline

        folder = model or resource_dir("models") / DEFAULT_MODEL
        loaded = check_card(folder)
        state = platformdirs.user_data_path("cb2-assist", appauthor=False)
        predictor = _PredictorSoon(folder, device, threads) if network else _NoNetwork()
        if not soon:
            predictor.wait()
        pipeline = Pipeline(
            source,
            predictor,
            ModelFacts(
                loaded.name,
                loaded.sha256,
                loaded.views.profile,
                loaded.views.extent_nm,
                loaded.ood.percentile,
            ),
            calibrator_from_card(loaded.card),
            read_base_rates(state_file(state, source.info.name), loaded.card),
            threads=threads,
        )
    except BaseException:
        source.close()
        raise

    def close() -> None:
        pipeline.close()
        predictor.close()
        source.close()

    return Assistant(source, pipeline, close)


def warm_up(assistant: Assistant, at: PointNm | None = None) -> None:
    """Load and compile what the first `p` needs, so that it does not wait for either.

    Args:
        assistant: Whose dataset and model are to be ready.
        at: Where the first `p` is likely; None is the middle.
    """
    from cb2_assist.candidates.finder import warm_up as warm_candidates
    from cb2_assist.views.features import warm_up as warm_features
    from cb2_assist.views.stack import warm_up as warm_views

    # the first read imports the volume library, about a second
    assistant.source.segment_at(_centre(assistant.source))
    warm_views()
    warm_candidates()
    warm_features()
    # a question whose answer nobody sees: reads the voxels round the start, runs the network once
    with contextlib.suppress(DatasetError):
        assistant.suggest(at or _centre(assistant.source))


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `cb2-assist serve` was asked for."""

    user: str
    labels: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    keys: str = "default"
    keep_views: bool = True
    at: PointNm | None = None
    segment: SegmentId | None = None


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
    if at is None:
        return None if segment is None else Cursor(locate(source, info, segment), segment)
    here = source.segment_at(at)
    if segment is None or here == segment:
        return Cursor(at, segment)
    near = BoxVx.around(at, SNAP_NM, source.resolution)
    if not (source.cutout(near).seg == segment).any():
        point = ", ".join(f"{v:.0f}" for v in at)
        raise SegmentNotFoundError(
            f"Segment {segment} is not within {SNAP_NM:.0f} nm of {point} nm; there is "
            f"{here or 'background'}. Leave out --at to start where the segment is."
        )
    return Cursor(at, segment)


def run_server(
    assistant: Assistant,
    options: ServeOptions,
    *,
    on_ready: Callable[[str], None],
    say: Callable[[str], None],
    stop: threading.Event | None = None,
) -> None:
    """Serve one assistant until Ctrl-C, SIGTERM or ``stop``.

    Args:
        assistant: What to serve; the caller closes it.
        options: What was asked for on the command line.
        on_ready: Called with the address, token included.
        say: Told in words what a person should know, e.g. where labels go.
        stop: Ends the server when set.

    Raises:
        LabelError: The label file cannot be used, or another server has it.
        DatasetError: There is nothing where it is to start; see `starting_cursor`.
        ServerError: The port cannot be opened.
    """
    from cb2_assist.decisions.log import DecisionLog
    from cb2_assist.labels.lock import acquire_server_lock
    from cb2_assist.labels.store import default_labels_url, label_file, open_store
    from cb2_assist.labels.views_store import ViewsStore
    from cb2_assist.server.serve import Options, serve, start_position
    from cb2_assist.viewer.mount import ViewerMount
    from cb2_assist.viewer.scene import Scene

    info, source = assistant.info, assistant.source
    url = options.labels or default_labels_url(info.name)
    path = label_file(url)
    state_path = path.with_name(path.name + ".session.json")
    start = starting_cursor(assistant, options.at, options.segment)
    begin = start_position(state_path, start.at if start else None, _centre(source))
    with acquire_server_lock(path, {"url": ""}) as lock, open_store(url) as store:
        for notice in getattr(store, "notices", ()):
            say(str(notice))
        say(f"labels of {info.name} go to {path}")
        log = DecisionLog(store, user=options.user, dataset=info.name, version=info.version)
        views = ViewsStore(path.with_name(path.name + ".views")) if options.keep_views else None
        scene = Scene(source.layers, begin)
        assistant.preparing = True
        threading.Thread(
            target=_quietly(lambda: _prepare(assistant, begin), say), name="warm-up", daemon=True
        ).start()

        def mount(**given: Any) -> ViewerMount:  # noqa: ANN401 - the server's own keywords
            return ViewerMount(scene, **given)

        def ready(address: str) -> None:
            lock.update({"url": address.partition("?")[0]})
            on_ready(address)

        serve(
            assistant,
            log,
            views,
            mount,
            on_ready=ready,
            stop=stop,
            start_at=start,
            options=Options(
                user=options.user,
                host=options.host,
                port=options.port,
                state_path=state_path,
                keys=options.keys,
            ),
        )


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
