"""A stand-in that runs: on a thread of its own, until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import tornado.httpserver
import tornado.netutil
import tornado.web

from cb2_assist.core.errors import PortBusyError
from cb2_assist.datasets.source import Source
from cb2_assist.standin import (
    control,
    editing,
    files,
    history_service,
    info_service,
    level2_service,
    lookups,
    materialize_service,
    mesh_service,
)
from cb2_assist.standin.deployment import Account, Deployment, Names
from cb2_assist.standin.edits import Editor
from cb2_assist.standin.faults import Fault, FaultBox
from cb2_assist.standin.graph import ChunkedGraph
from cb2_assist.standin.handler import ServiceHandler
from cb2_assist.standin.meshes import FragmentMeshes
from cb2_assist.standin.node_ids import NodeIds
from cb2_assist.standin.served import Served, make_served

ROUTES = (
    *info_service.ROUTES,
    *lookups.ROUTES,
    *history_service.ROUTES,
    *editing.ROUTES,
    *mesh_service.ROUTES,
    *level2_service.ROUTES,
    *materialize_service.ROUTES,
    *files.ROUTES,
    *control.ROUTES,
)
_HOST = "127.0.0.1"
_THREADS = 4
_START_S = 30.0


def new_token() -> str:
    """A token of 32 hexadecimal digits, the first a letter: cloud-volume takes some for numbers."""
    return secrets.choice("abcdef") + secrets.token_hex(16)[1:]


class StandIn:
    """A CAVE server on this machine; a context manager.

        with StandIn.of(open_dataset("demo")) as cave:
            client = CAVEclient(cave.datastack, server_address=cave.url, auth_token=cave.token, ...)

    Args:
        served: What to serve.
        names: What to call it.
        accounts: Who may use it; None is one account with a new token.
        port: Port of 127.0.0.1; 0 is any free one.
        meshes: Whether objects have meshes.
        faults: What goes wrong on purpose from the start; see `StandIn.faults`.
        anonymous: Whether requests without a token count as the first account's.
    """

    def __init__(
        self,
        served: Served,
        *,
        names: Names | None = None,
        accounts: Sequence[Account] | None = None,
        port: int = 0,
        meshes: bool = True,
        faults: Iterable[Fault] = (),
        anonymous: bool = False,
    ) -> None:
        self._served = served
        self._port = port
        names = names or Names()
        accounts = (Account(new_token()),) if accounts is None else accounts
        volume = served.volume
        graph = ChunkedGraph(
            NodeIds.for_chunks(volume.chunk_counts),
            served.watershed,
            volume.chunk_vx.tolist(),
            volume.box.lo.tolist(),
        )
        lock = threading.RLock()
        self._at = Deployment(
            url="",
            names=names,
            volume=volume,
            graph=graph,
            editor=Editor(graph),
            meshes=FragmentMeshes(graph, volume, lock) if meshes else None,
            data_dir="",
            em="",
            viewer=served.viewer,
            folders={files.SUPERVOXELS: volume.folder},
            accounts=tuple(accounts),
            anonymous=anonymous,
            faults=FaultBox(faults),
            lock=lock,
        )
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None

    @classmethod
    def of(
        cls,
        source: Source,
        *,
        names: Names | None = None,
        accounts: Sequence[Account] | None = None,
        port: int = 0,
    ) -> StandIn:
        """A stand-in for a dataset; its supervoxels lie in a folder that goes when it stops.

        Raises:
            DatasetError: The data cannot be read.
        """
        folder = tempfile.TemporaryDirectory(prefix="cb2-assist-standin-")
        try:
            served = make_served(source, Path(folder.name) / "supervoxels")
        except BaseException:
            folder.cleanup()
            raise
        made = cls(served, names=names, accounts=accounts, port=port)
        made._folder = folder
        return made

    @property
    def url(self) -> str:
        """Address of all its services; empty before it is started."""
        return self._at.url

    @property
    def token(self) -> str:
        """Token of the first account."""
        return self._at.accounts[0].token

    @property
    def datastack(self) -> str:
        """Name that clients open."""
        return self._at.names.datastack

    @property
    def deployment(self) -> Deployment:
        """Graph and accounts; to be touched under its lock while the server runs."""
        return self._at

    @property
    def faults(self) -> FaultBox:
        """What goes wrong on purpose, and the log of requests."""
        return self._at.faults

    def start(self) -> Self:
        """Listen; returns itself.

        Raises:
            PortBusyError: Something else listens on the port.
        """
        try:
            sockets = tornado.netutil.bind_sockets(self._port, _HOST, backlog=256)
        except OSError as e:
            raise PortBusyError(
                f"Cannot listen on {_HOST}:{self._port}: {e.strerror}. Choose another --port, or "
                "0 for any free one."
            ) from e
        self._name(sockets[0].getsockname()[1])
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(sockets, ready)), name="stand-in", daemon=True
        )
        self._thread.start()
        ready.wait(_START_S)
        return self

    def stop(self) -> None:
        """Stop listening and clean up; nothing happens when it does not run."""
        if self._loop is not None and self._ended is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._ended.set)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def dataset_file(self) -> str:
        """Text of a dataset file that opens this stand-in."""
        return f'[cave]\ndatastack = "{self.datastack}"\nserver = "{self.url}"\n'

    def _name(self, port: int) -> None:
        at, em = self._at, self._served.em
        at.url = f"http://{_HOST}:{port}"
        at.data_dir = f"{at.url}/data/{files.SUPERVOXELS}"
        if isinstance(em, Path):
            at.folders["em"] = em
            at.em = f"precomputed://{at.url}/data/em"
        else:
            at.em = em

    async def _run(self, sockets: Sequence[object], ready: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        pool = ThreadPoolExecutor(_THREADS, "stand-in")
        application = tornado.web.Application(
            [(r".*", ServiceHandler, {"at": self._at, "routes": ROUTES, "pool": pool})],
            log_function=lambda _: None,
        )
        server = tornado.httpserver.HTTPServer(application)
        server.add_sockets(sockets)  # type: ignore[arg-type]  # sockets, as bind_sockets gave them
        ready.set()
        await self._ended.wait()
        server.stop()
        await server.close_all_connections()
        pool.shutdown(wait=True, cancel_futures=True)
