"""What the services share: one volume, its graph, who may use it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cb2_assist.core.geometry import Resolution
from cb2_assist.standin.edits import Editor
from cb2_assist.standin.faults import FaultBox
from cb2_assist.standin.graph import ChunkedGraph
from cb2_assist.standin.meshes import FragmentMeshes
from cb2_assist.standin.volume import SupervoxelVolume


@dataclass(frozen=True, slots=True)
class Account:
    """Someone with a token.

    Attributes:
        token: 32 hexadecimal digits, not all of them decimal; cloud-volume takes no others.
        user_id: Number that the history names, as text.
        permissions: Of ``view`` and ``edit``.
        accepted_terms: Without it every service answers 403 and says where the terms are.
    """

    token: str
    user_id: str = "1"
    name: str = "Stand-in user"
    affiliation: str = "cb2-assist"
    permissions: frozenset[str] = frozenset({"view", "edit"})
    accepted_terms: bool = True


@dataclass(frozen=True, slots=True)
class Names:
    """What the services call things.

    Attributes:
        datastack: Name that clients open.
        table: The graph's, which need not be the datastack's.
        aligned_volume: The image's.
    """

    datastack: str = "mini"
    table: str = "mini"
    aligned_volume: str = "mini_av"


@dataclass(slots=True)
class Deployment:
    """One running stand-in.

    Attributes:
        url: Scheme, host and port.
        folders: What lies below ``/data/NAME/``.
        data_dir: Cloud-volume path of the supervoxels.
        em: Cloud-volume path of the image, for the info service; a local one lies below ``/data``.
        viewer: Voxel size that the info service gives.
        anonymous: Whether requests without a token count as the first account's.
        faults: What goes wrong on purpose, and what was asked.
        rows: Rows of the l2cache that were asked for.
        table_rows: The materialized table once it was asked for.
        lock: Held while the graph is read or changed.
    """

    url: str
    names: Names
    volume: SupervoxelVolume
    graph: ChunkedGraph
    editor: Editor
    meshes: FragmentMeshes | None
    data_dir: str
    em: str
    viewer: Resolution
    folders: dict[str, Path]
    accounts: tuple[Account, ...]
    anonymous: bool
    faults: FaultBox
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    table_rows: list[dict[str, Any]] | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def account(self, token: str) -> Account | None:
        """Whose token it is."""
        return next((a for a in self.accounts if a.token == token), None)

    def name_of(self, user_id: str) -> tuple[str, str]:
        """Name and affiliation of a user; empty when unknown."""
        found = next((a for a in self.accounts if a.user_id == user_id), None)
        return (found.name, found.affiliation) if found else ("", "")
