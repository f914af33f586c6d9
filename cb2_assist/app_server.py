"""The composition root of `serve`: wires assistant, labels, viewer and server together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cb2_assist.app import centre_of, warm_up
from cb2_assist.assistant import Assistant
from cb2_assist.core.errors import AssistError, BadRequestError, SegmentNotFoundError
from cb2_assist.core.geometry import BoxVx, PointNm
from cb2_assist.core.records import BACKGROUND, SegmentId
from cb2_assist.datasets.source import EditableSource, GraphSource
from cb2_assist.settings import SNAP_NM

if TYPE_CHECKING:
    from cb2_assist.decisions.log import DecisionLog
    from cb2_assist.labels.store import LabelStore
    from cb2_assist.review.applying import Applying
    from cb2_assist.review.state import Cursor


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
    begin = start_position(state_path, start.at if start else None, centre_of(source))
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


def _quietly(work: Callable[[], None], say: Callable[[str], None]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except (OSError, RuntimeError, AssistError) as e:
            # the first p compiles then; slower, not wrong
            say(f"warm-up stopped: {e}")

    return run
