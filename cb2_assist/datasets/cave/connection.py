"""Opens a datastack: what the info service says, what the graph says, and a client for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests
from caveclient.auth import AuthClient
from caveclient.chunkedgraph import ChunkedGraphClient
from caveclient.infoservice import InfoServiceClient
from caveclient.l2cache import L2CacheClient
from numpy.typing import NDArray

from cb2_assist.core.errors import AssistError, BadVolumeError, DatasetError, LoginError
from cb2_assist.core.geometry import BoxVx, Resolution
from cb2_assist.datasets.cave.login import find_token, missing
from cb2_assist.datasets.cave.trust import Trust, host_of, is_this_machine, web_address
from cb2_assist.datasets.cave.wire import Account, guard, session
from cb2_assist.datasets.layer import first_line

_GRAPH_API, _INFO_API, _L2_API = 1, 2, 1
_BITS = 64


@dataclass(frozen=True, slots=True)
class Datastack:
    """Which datastack, and what the servers do not say about it.

    Attributes:
        name: Of the dataset, here.
        server: Its global (info and auth) server, without a slash at the end.
        datastack: Its name there.
        mip: Scale of the segmentation that is read, 0 is the finest.
        timestamp: The state to read, aware; None: see `pinned`.
        pinned: Whether one state is kept for good, as labels of a public version need.
        geometry: As in `DatasetFile`.
        graph: ``graphene://…`` of a graph that no datastack names; `server` is then its own.
        em: cloud-volume path of the EM beside such a graph.
        named_by: What named the server, for messages.
        mirror: Name of the same data as plain volumes, which need no login; empty without one.
    """

    name: str
    server: str
    datastack: str
    mip: int = 0
    timestamp: datetime | None = None
    pinned: bool = False
    species: str = "other"
    licence: str = "unknown"
    citation: str = ""
    geometry: str = "labels"
    graph: str = ""
    em: str = ""
    named_by: str = "The dataset"
    mirror: str = ""


@dataclass(frozen=True, slots=True)
class GraphShape:
    """How ids of a chunked graph are made: layer, then chunk x, y, z, then a number.

    Source: the graph's info file (``graph``) as PyChunkedGraph 2 and 3 serve it.
    """

    layer_bits: int
    n_layers: int
    chunk: tuple[int, int, int]
    """Voxels of the finest scale in a chunk of layer 2."""
    axis_bits: dict[int, int]
    origin: tuple[int, int, int]
    """Voxel at which chunks begin."""

    @classmethod
    def of(cls, info: dict[str, Any]) -> GraphShape:
        """Read it from an info file.

        Raises:
            BadVolumeError: The file does not describe a graph.
        """
        try:
            graph = info["graph"]
            cx, cy, cz = (int(v) for v in graph["chunk_size"])
            bits = {int(k): int(v) for k, v in graph["spatial_bit_masks"].items()}
            offset = info["scales"][0].get("voxel_offset", (0, 0, 0))
            starts = offset if info.get("chunks_start_at_voxel_offset") else (0, 0, 0)
            ox, oy, oz = (int(v) for v in starts)
            shape = cls(
                int(graph.get("n_bits_for_layer_id", 8)),
                int(graph["n_layers"]),
                (cx, cy, cz),
                bits,
                (ox, oy, oz),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as e:
            raise BadVolumeError(f"The graph's info file is damaged: {first_line(e)}.") from None
        if min(shape.chunk) < 1 or shape.n_layers < 2 or not set(range(1, 3)) <= set(bits):
            raise BadVolumeError("The graph's info file is damaged: chunk sizes or layers.")
        return shape

    def layer(self, node: int) -> int:
        """Layer of an id: 1 is a supervoxel, `n_layers` a root."""
        return node >> (_BITS - self.layer_bits)

    def chunk_of(self, node: int) -> tuple[int, int, int]:
        """Chunk of an id, on its layer's grid."""
        bits = self.axis_bits[self.layer(node)]
        start = _BITS - self.layer_bits
        x, y, z = ((node >> (start - k * bits)) & ((1 << bits) - 1) for k in (1, 2, 3))
        return x, y, z

    def touch(self, parts: NDArray[np.uint64], box: BoxVx) -> NDArray[np.bool_]:
        """Which nodes of layer 2 lie in chunks that a box of the finest scale's voxels touches."""
        bits = self.axis_bits[2]
        start, mask = _BITS - self.layer_bits, np.uint64((1 << bits) - 1)
        inside = np.ones(len(parts), bool)
        for axis, (size, origin) in enumerate(zip(self.chunk, self.origin, strict=True)):
            at = (parts >> np.uint64(start - (axis + 1) * bits)) & mask
            lo = origin + at.astype(np.int64) * size
            inside &= (lo < tuple(box.hi)[axis]) & (lo + size > tuple(box.lo)[axis])
        return inside


class Connection:
    """An open datastack. Safe to use from several threads.

    Attributes:
        account: Who asks; for requests of one's own.
        info: What the info service says.
        graph_info: The graph's info file.
        shape: How its ids are made.
        table: Name of the graph.
        local: The server of graph and meshes.
        em: cloud-volume path of the EM.
        data_dir: Where the watershed's voxels are.
        viewer_voxel: Voxel size that the viewer counts in.
    """

    def __init__(
        self, stack: Datastack, trust: Trust, *, begin: Callable[[str], None] = lambda _step: None
    ) -> None:
        """Ask the servers.

        Args:
            stack: Which one.
            trust: Hosts that may have the token.
            begin: Told the name of each step before it is taken: ``info``, ``graph``.

        Raises:
            LoginError: The token is missing, invalid or not enough.
            NoAnswerError: A server is down.
            DatasetError: There is no such datastack, or its description is damaged.
        """
        begin("info")
        trust.check(stack.server, stack.named_by)
        self.stack, self.trust = stack, trust
        self.account = Account(stack.name, stack.server, find_token(stack.server), trust)
        self.session: requests.Session = session(self.account)
        self.info = self._given() if stack.graph else self._ask_info()
        self.local, self.table, self.em, self.viewer_voxel = self._parts()
        begin("graph")
        self.graph_info = self._ask_graph()
        self.shape = GraphShape.of(self.graph_info)
        self.data_dir = self._data_dir()

    @property
    def segmentation(self) -> str:
        """The graph as everybody's viewer and cloud-volume name it."""
        return f"graphene://{self.local}/segmentation/table/{self.table}"

    @property
    def api(self) -> str:
        """Address of the graph's own API."""
        return f"{self.local}/segmentation/api/v{_GRAPH_API}/table/{self.table}"

    def graph_client(self) -> ChunkedGraphClient:
        """Caveclient's client of the graph.

        Raises:
            AssistError: The service cannot be reached.
        """
        return _client(
            _GraphClient, self, server_address=self.local, table_name=self.table, api=_GRAPH_API
        )

    def l2_client(self) -> L2CacheClient:
        """Caveclient's client of the service that describes nodes of layer 2.

        Raises:
            AssistError: The service cannot be reached.
        """
        return _client(
            _L2Client, self, server_address=self.local, table_name=self.table, api=_L2_API
        )

    def close(self) -> None:
        """Let go of connections."""
        self.session.close()

    def _given(self) -> dict[str, Any]:
        """What an info service would say, of a graph that was named itself."""
        from cloudvolume import CloudVolume

        # cloud-volume and its storage back ends share no base for their errors
        try:
            voxel = CloudVolume(self.stack.em, progress=False).resolution
        except Exception as e:
            raise DatasetError(
                f"Cannot open the EM of {self.stack.name}, {self.stack.em}: {first_line(e)}. "
                "Check the address and the connection."
            ) from e
        sizes = {f"viewer_resolution_{a}": float(v) for a, v in zip("xyz", voxel, strict=True)}
        return {
            "local_server": self.stack.server,
            "segmentation_source": self.stack.graph,
            "aligned_volume": {"image_source": self.stack.em},
            **sizes,
        }

    def _ask_info(self) -> dict[str, Any]:
        stack = self.stack
        try:
            client = _client(
                _InfoClient, self, server_address=stack.server, datastack_name=None, api=_INFO_API
            )
            got = client.get_datastack_info(stack.datastack)
        except LoginError as e:
            if self.account.token is None and e.reason in ("missing", "invalid"):
                raise missing(stack.server, stack.name, stack.mirror) from None
            raise
        if not isinstance(got, dict):
            raise self._odd("datastack", "is not a description of a datastack")
        return got

    def _parts(self) -> tuple[str, str, str, Resolution]:
        info = self.info
        try:
            local = str(info["local_server"]).rstrip("/")
            source = str(info["segmentation_source"])
            em = str(info["aligned_volume"]["image_source"])
            voxel = Resolution(*(float(info[f"viewer_resolution_{axis}"]) for axis in "xyz"))
        except (LookupError, TypeError, ValueError, AssistError) as e:
            raise self._odd("datastack", f"lacks what is needed: {first_line(e)}") from None
        if not source.startswith("graphene://"):
            raise self._odd(
                "datastack",
                f"has a segmentation that is no graph ({source[:80]}); open it with "
                "[dataset] and segmentation = in a dataset file instead",
            )
        graph = urlsplit(web_address(source))
        table = graph.path.rstrip("/").split("/")[-1]
        named = f"The info service of {self.stack.name}"
        for url in (local, web_address(source)):
            self.trust.check(url, named)
        if host_of(local) != graph.hostname:
            local = f"{graph.scheme}://{graph.netloc}"
        if not table or not all(c.isalnum() or c in "._-" for c in table):
            raise self._odd("datastack", f"names an odd graph ({table[:40]!r})")
        return local, table, self._readable(em, "EM"), voxel

    def _ask_graph(self) -> dict[str, Any]:
        answer = self.session.get(f"{self.local}/segmentation/table/{self.table}/info")
        try:
            got = answer.json()
        except ValueError:
            got = None
        if not isinstance(got, dict) or "data_dir" not in got or not got.get("scales"):
            raise self._odd("graph", "has an info file that is no graph's")
        return got

    def _data_dir(self) -> str:
        return self._readable(str(self.graph_info["data_dir"]), "segmentation")

    def _readable(self, path: str, what: str) -> str:
        """A cloud path that may be read because a server says so.

        Raises:
            DatasetError: It lies among this machine's files, and the server does not.
        """
        bare = path.removeprefix("precomputed://")
        if path == self.stack.em:  # the user's own file says it
            return path
        if bare.startswith("file://") and not is_this_machine(host_of(self.stack.server)):
            raise self._odd("datastack", f"names files of this machine for its {what}")
        if bare.startswith("middleauth+"):
            self.trust.check(bare, f"The info service of {self.stack.name}")
        if "://" not in bare:
            raise self._odd("datastack", f"names an odd place for its {what} ({bare[:80]!r})")
        return f"precomputed://{bare}"

    def _odd(self, what: str, why: str) -> DatasetError:
        host = urlsplit(self.stack.server).netloc
        return DatasetError(
            f"{self.stack.name}: the {what} that {host} describes {why}. Check server and "
            "datastack, or ask who runs the server."
        )


# caveclient asks for the server's version while it is being made, before anybody could put the
# adapter into its session; overriding that question is where it can be done.


class _GuardedClient:
    account: Account
    session: requests.Session

    def _get_version(self) -> Any:  # noqa: ANN401 - caveclient has no types
        guard(self.session, self.account)
        return super()._get_version()  # type: ignore[misc]


class _GraphClient(_GuardedClient, ChunkedGraphClient):
    pass


class _InfoClient(_GuardedClient, InfoServiceClient):
    pass


class _L2Client(_GuardedClient, L2CacheClient):
    pass


def _client(
    kind: type[Any],
    connection: Connection,
    *,
    api: int,
    **given: str | None,
) -> Any:  # noqa: ANN401 - caveclient has no types
    """A client of caveclient whose every request goes through the adapter."""
    account = connection.account
    token = account.token.value if account.token else None
    guarded = type(kind.__name__, (kind,), {"account": account})
    return guarded(
        auth_client=AuthClient(server_address=account.server, token=token),
        api_version=api,
        max_retries=0,
        **given,
    )


def is_root(shape: GraphShape, node: int) -> bool:
    """Whether an id names an object, and no part of one."""
    return shape.layer(node) == shape.n_layers


def bounds_text(box: BoxVx) -> str:
    """A box of the finest scale's voxels as the graph takes it."""
    return "_".join(f"{a}-{b}" for a, b in zip(box.lo, box.hi, strict=True))


def chunk_voxels(shape: GraphShape, node: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First voxel of the finest scale in an id's chunk, and the one past its last."""
    scale = 2 ** max(0, shape.layer(node) - 2)
    lo, hi = [], []
    for at, size, origin in zip(shape.chunk_of(node), shape.chunk, shape.origin, strict=True):
        lo.append(origin + at * size * scale)
        hi.append(origin + (at + 1) * size * scale)
    return (lo[0], lo[1], lo[2]), (hi[0], hi[1], hi[2])
