"""The composition root: the only place that chooses classes and wires them together."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from cb2_assist.core.errors import (
    AssistError,
    BadRequestError,
    DatasetError,
    ModelError,
    SegmentNotFoundError,
    UsageError,
)
from cb2_assist.core.geometry import BoxVx, PointNm
from cb2_assist.core.records import (
    BACKGROUND,
    BaseRate,
    Candidate,
    Kind,
    LabelEvent,
    ModelOutput,
    SegmentId,
    Site,
    Suggestion,
    SuggestionList,
    Verdict,
)
from cb2_assist.datasets.source import DatasetInfo, Source
from cb2_assist.resources import resource_dir
from cb2_assist.settings import DEFAULT_MODEL, MAX_CANDIDATES, SNAP_NM, login_name
from cb2_assist.suggestions.recent import RecentLists

if TYPE_CHECKING:
    from cb2_assist.decisions.labels import Labels
    from cb2_assist.model.predictor import Predictor
    from cb2_assist.review.state import Cursor
    from cb2_assist.suggestions.pipeline import Answer, Pipeline
    from cb2_assist.views.stack import ViewStack

log = logging.getLogger(__name__)

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
        self._shown = RecentLists()

    @property
    def info(self) -> DatasetInfo:
        """Name, version and licence of the dataset."""
        return self.source.info

    @property
    def base_rates(self) -> dict[Kind, BaseRate]:
        """The rates in force."""
        return dict(self._pipeline.base_rates)

    @property
    def judge(self) -> str:
        """Names model and calibrator: the same text, the same numbers."""
        return f"{self._pipeline.facts.sha256} {self._pipeline.calibrator.id}"

    def suggest(
        self,
        at: PointNm,
        segment: SegmentId | None = None,
        kind: Kind | None = None,
        limit: int = MAX_CANDIDATES,
        *,
        include: Candidate | None = None,
        known: Callable[[Mapping[str, str | None]], set[str]] | None = None,
    ) -> SuggestionList:
        """Ranked suggestions at a point; see `suggestions.pipeline.Pipeline.suggest`."""
        found = self._pipeline.suggest(at, segment, kind, limit, include=include, known=known)
        self._shown.put(found, {"how": "script"})
        return found

    def score(
        self,
        sites: Iterable[Site],
        *,
        batch: int = 16,
        base_rates: Mapping[Kind, BaseRate] | None = None,
    ) -> Iterator[Answer]:
        """Judge given sites, in order; see `suggestions.pipeline.Pipeline.score`."""
        for answer in self._pipeline.score(sites, batch=batch, base_rates=base_rates):
            if answer.suggestion is not None:
                alone = self._pipeline.alone(answer.suggestion, base_rates)
                self._shown.put(alone, {"how": "given"})
            yield answer

    def decide(
        self,
        suggestion: Suggestion,
        verdict: Verdict | str,
        *,
        labels: Labels,
        user: str | None = None,
        idempotency_key: str | None = None,
    ) -> LabelEvent:
        """Record an answer as the page does: durable on return, with what the model saw.

        Args:
            suggestion: From a recent `suggest` or `score` of this assistant; the others of its
                list are recorded as alternatives.
            verdict: ``accept``, ``reject``, ``unsure``, ``skip``, or ``none``: none of the open
                joins of the list at the same end (see `core.records.JointSet`).
            labels: Where to; see `decisions.labels.open_labels`.
            user: Whose answer it is; None is the login name.
            idempotency_key: Names this answer. The same name again returns the first event, so
                that a script may be run again; None makes a new one.

        Raises:
            UsageError: There is no such verdict.
            DecisionError: The suggestion is not a recent one, the key means something else, or
                *none* is given on a cut.
            LabelError: The label file cannot be written; nothing was recorded.
        """
        from cb2_assist.decisions.making import Given, decision_on

        try:
            answer = Verdict(verdict)
        except ValueError:
            known = ", ".join(v.value for v in Verdict)
            raise UsageError(f"There is no verdict {verdict!r}. Known: {known}.") from None
        shown, made_at, propensity = self._shown.get(suggestion)
        user = user or login_name()
        decisions = labels.log(self.info, user)
        on_list = {s.id: decisions.verdict(s.id) for s in shown.suggestions}
        decision = decision_on(
            suggestion.id,
            shown,
            Given(
                answer,
                user,
                idempotency_key or f"script-{uuid.uuid4()}",
                shown_at=made_at,
                decided_at=datetime.now(UTC),
                propensity=propensity,
            ),
            self.info,
            verdicts={i: v for i, v in on_list.items() if v is not None},
            keep=lambda s: self._keep_views(s, labels),
        )
        return decisions.decide(decision)

    def undo(
        self, *, labels: Labels, user: str | None = None, idempotency_key: str | None = None
    ) -> LabelEvent:
        """Take back the person's latest decision on this dataset; its id is the ``target``.

        Raises:
            DecisionError: There is none.
            LabelError: The label file cannot be written; nothing was recorded.
        """
        decisions = labels.log(self.info, user or login_name())
        return decisions.undo(idempotency_key=idempotency_key or f"script-{uuid.uuid4()}")

    def redo(
        self, *, labels: Labels, user: str | None = None, idempotency_key: str | None = None
    ) -> LabelEvent:
        """Put back what was undone last, unless something was decided since.

        Raises:
            DecisionError: There is nothing.
            LabelError: The label file cannot be written; nothing was recorded.
        """
        decisions = labels.log(self.info, user or login_name())
        return decisions.redo(idempotency_key=idempotency_key or f"script-{uuid.uuid4()}")

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

    def warm_up_views(self) -> None:
        """Compile what rendering needs for this dataset and model."""
        self._pipeline.warm_up_views()

    def close(self) -> None:
        """Let go of threads and files."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _keep_views(self, suggestion: Suggestion, labels: Labels) -> str | None:
        if labels.views is None:
            return None
        from cb2_assist.views.stack import content_sha256, to_bytes

        seen = self.views_of(suggestion.id)
        if seen is None:
            # no longer in memory: the same bytes again
            try:
                stack = self.render(suggestion.site)
            except AssistError as e:
                log.warning("The views of suggestion %s are not kept: %s", suggestion.id, e)
                return None
            seen = content_sha256(stack), to_bytes(stack)
        sha256, data = seen
        labels.views.put(data, sha256)
        return sha256


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


def dataset_choice(dataset: str | Path) -> DatasetChoice:
    """What a script means: a known name, a dataset.toml, or the folder of one."""
    path = Path(dataset)
    is_file = isinstance(dataset, Path) or path.suffix == ".toml" or len(path.parts) > 1
    if not is_file:
        return DatasetChoice(name=str(dataset))
    from cb2_assist.datasets.dataset_file import FILE_NAME

    inside = path.expanduser() / FILE_NAME
    return DatasetChoice(file=inside if inside.is_file() else path)


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
    threads: int | None = None,
) -> Assistant:
    """Open a dataset and a model; a context manager.

        with open_assistant("demo") as assistant:
            found = assistant.suggest(PointNm(3000, 3000, 2000))

    Args:
        dataset: A known name, a dataset.toml, or the folder of one.
        model: Model folder; None is the shipped one.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: For views and, on a CPU, the network; None is one per core.

    Raises:
        DatasetError: The dataset cannot be opened.
        ModelError: Model or device cannot be used.
    """
    return build_assistant(
        dataset_choice(dataset),
        model=None if model is None else Path(model),
        device=device,
        threads=threads,
    )


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
    from cb2_assist.datasets.registry import open_dataset

    source = open_dataset(dataset.name, dataset.file)
    try:
        from cb2_assist.model.card import check_card
        from cb2_assist.suggestions.calibration import calibrator_from_card
        from cb2_assist.suggestions.pipeline import ModelFacts, Pipeline

        folder = model or resource_dir("models") / DEFAULT_MODEL
        loaded = check_card(folder)
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
                loaded.views.em_oblique,
            ),
            calibrator_from_card(loaded.card),
            _saved_rates(source.info.name, loaded.card),
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


def saved_base_rates(dataset: str, model: Path | None = None) -> dict[Kind, BaseRate]:
    """The rates in force for a dataset, without opening it.

    Args:
        dataset: Its name.
        model: Model folder; None is the shipped one.

    Raises:
        AssistError: The saved state is damaged.
        ModelError: The model cannot be used.
    """
    from cb2_assist.model.card import check_card

    folder = model or resource_dir("models") / DEFAULT_MODEL
    return _saved_rates(dataset, check_card(folder).card)


def _saved_rates(dataset: str, card: Mapping[str, Any]) -> dict[Kind, BaseRate]:
    import platformdirs

    from cb2_assist.suggestions.base_rate import read_base_rates, state_file

    state = platformdirs.user_data_path("cb2-assist", appauthor=False)
    return read_base_rates(state_file(state, dataset), card)


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
    from cb2_assist.views.features import warm_up as warm_features

    # the first read imports the volume library, about a second
    assistant.source.segment_at(_centre(assistant.source))
    assistant.warm_up_views()
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
    expose: bool = False
    allow_hosts: tuple[str, ...] = ()
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
            on_arrival=on_arrival,
            stop=stop,
            start_at=start,
            queue=store.queue,
            options=Options(
                user=options.user,
                host=options.host,
                expose=options.expose,
                allow_hosts=options.allow_hosts,
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
