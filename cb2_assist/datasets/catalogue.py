"""The public connectomes that open by name. A table of facts; nothing here touches a network.

Where each fact is from stands with its entry. Addresses of EM and segmentation of a graph are not
here: its info service names them. No machine of ours has reached these servers; what nobody has
verified is said in `datasets`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cb2_assist.datasets.dataset_file import DatasetFile

_CAVE_DOCS = "public CAVE and cloud-volume documentation and code, collected 2026-11"
_CB2 = "ConnectomeBench2's own settings"

MICRONS = "MICrONS Consortium 2025 Nature"
FLYWIRE = "Dorkenwald et al. 2024 Nature; Schlegel et al. 2024 Nature"
H01 = "Shapson-Coe et al. 2024 Science"
HEMIBRAIN = "Scheffer et al. 2020 eLife 9:e57443"


@dataclass(frozen=True, slots=True)
class Graph:
    """A chunked graph on a CAVE server.

    Attributes:
        server: Global (info and auth) server.
        datastack: Its name there.
        table: Name of the graph there, as found in public code; the info service's word counts.
        hosts: Other hosts that get the token: graph, meshes.
        pinned: Whether one state is kept: a public version, view only.
    """

    server: str
    datastack: str
    table: str
    hosts: tuple[str, ...]
    pinned: bool


@dataclass(frozen=True, slots=True)
class Flat:
    """Plain precomputed volumes that everybody may read."""

    em: str
    segmentation: str


@dataclass(frozen=True, slots=True)
class Specimen:
    """A piece of tissue and its images, which several datasets may show.

    Attributes:
        voxel_nm: Of the segmentation's finest scale; None where that is not known here.
        mip: Scale of the segmentation that is read.
        facts: Where what stands here is from.
    """

    species: str
    voxel_nm: tuple[float, float, float] | None
    mip: int
    licence: str
    citation: str
    facts: str


@dataclass(frozen=True, slots=True)
class PublicDataset:
    """One dataset.

    Attributes:
        where: How to get at it.
        unverified: What is from memory, or not known.
    """

    name: str
    title: str
    where: Graph | Flat
    specimen: Specimen
    unverified: str

    @property
    def needs_login(self) -> bool:
        """Whether a token is needed."""
        return isinstance(self.where, Graph)


_GLOBAL = "https://global.daf-apis.com"
_WIRE = "https://global.brain-wire-test.org"
_BOTH = f"{_CAVE_DOCS}; {_CB2}"
_NO_LICENCE = "not known here: see the project's page"
_NO_CITATION = _NO_LICENCE
_REACH = "never opened from a machine of ours"

_MINNIE = Specimen("mouse", (8, 8, 40), 1, "CC BY 4.0", MICRONS, _BOTH)
_MINNIE_EM = "https://bossdb-open-data.s3.amazonaws.com/iarpa_microns/minnie/minnie65/em"
_FAFB = Specimen("fly", (16, 16, 40), 0, "CC BY-NC 4.0", FLYWIRE, _BOTH)
_FAFB_EM = "https://bossdb-open-data.s3.amazonaws.com/flywire/fafbv14"
_H01 = Specimen("human", (8, 8, 33), 1, "CC BY 4.0", H01, _BOTH)
_H01_EM = "gs://h01-release/data/20210601/4nm_raw"

PUBLIC: tuple[PublicDataset, ...] = (
    PublicDataset(
        "minnie65",
        "MICrONS: a cubic millimetre of mouse visual cortex, public release",
        Graph(_GLOBAL, "minnie65_public", "minnie65_public", ("minnie.microns-daf.com",), True),
        _MINNIE,
        _REACH,
    ),
    PublicDataset(
        "minnie65-edit",
        "MICrONS: the graph that proofreaders edit; needs their permission",
        Graph(_GLOBAL, "minnie65_phase3_v1", "minnie3_v1", ("minnie.microns-daf.com",), False),
        _MINNIE,
        _REACH,
    ),
    PublicDataset(
        "minnie65-static",
        "MICrONS release 1300 as plain volumes",
        Flat(_MINNIE_EM, "gs://iarpa_microns/minnie/minnie65/seg_m1300"),
        _MINNIE,
        _REACH,
    ),
    PublicDataset(
        "flywire",
        "FlyWire: an adult fly's brain (FAFB), public snapshot",
        Graph(_GLOBAL, "flywire_fafb_public", "flywire_public", ("prod.flywire-daf.com",), True),
        _FAFB,
        f"citation (from memory); {_REACH}",
    ),
    PublicDataset(
        "flywire-static",
        "FlyWire snapshot 783 as plain volumes",
        Flat(_FAFB_EM, "gs://flywire_v141_m783"),
        _FAFB,
        f"citation (from memory); {_REACH}",
    ),
    PublicDataset(
        "h01",
        "H01: human temporal cortex; has a token of its own",
        Graph(_WIRE, "h01_c3_flat", "h01_full0_v2", ("local.brain-wire-test.org",), True),
        _H01,
        f"citation (from memory), whether the graph still changes; {_REACH}",
    ),
    PublicDataset(
        "h01-static",
        "H01 release c3 as plain volumes",
        Flat(_H01_EM, "gs://h01-release/data/20210601/c3"),
        _H01,
        "citation (from memory), whether the segmentation opens without an account (one page "
        f"denies it); {_REACH}",
    ),
    PublicDataset(
        "fish1",
        "Fish1: a larval zebrafish's brain; has a token of its own",
        Graph(_WIRE, "fish1_full", "fish1_v250915", ("pcgv3local.brain-wire-test.org",), True),
        Specimen("zebrafish", None, 0, "CC BY-NC 4.0", _NO_CITATION, _BOTH),
        f"voxel size, citation, whether the graph still changes; {_REACH}",
    ),
    PublicDataset(
        "banc",
        "BANC: an adult fly's brain and nerve cord",
        Graph(_GLOBAL, "brain_and_nerve_cord", "wclee_fly_cns_001", ("cave.fanc-fly.com",), False),
        Specimen("fly", (4, 4, 45), 0, _NO_LICENCE, _NO_CITATION, _CAVE_DOCS),
        f"global server (from memory), scales, licence, citation; {_REACH}",
    ),
    PublicDataset(
        "v1dd",
        "V1DD: mouse visual cortex; has a token of its own",
        Graph(
            "https://global.em.brain.allentech.org",
            "v1dd_public",
            "v1dd_public",
            ("api.em.brain.allentech.org",),
            True,
        ),
        Specimen("mouse", (9, 9, 45), 1, _NO_LICENCE, _NO_CITATION, _CAVE_DOCS),
        f"voxel size (about), licence, citation; {_REACH}",
    ),
    PublicDataset(
        "hemibrain",
        "Hemibrain 1.2: half of an adult fly's central brain",
        Flat(
            "gs://neuroglancer-janelia-flyem-hemibrain/emdata/clahe_yz/jpeg",
            "gs://neuroglancer-janelia-flyem-hemibrain/v1.2/segmentation",
        ),
        Specimen("fly", (8, 8, 8), 0, "CC BY 4.0", HEMIBRAIN, _CAVE_DOCS),
        f"licence (from memory); {_REACH}",
    ),
    PublicDataset(
        "manc",
        "MANC 1.2: an adult male fly's nerve cord",
        Flat(
            "gs://flyem-vnc-2-26-213dba213ef26e094c16c860ae7f4be0/v3_emdata_clahe_xy/jpeg",
            "gs://manc-seg-v1p2/manc-seg-v1.2",
        ),
        Specimen("fly", (8, 8, 8), 0, _NO_LICENCE, _NO_CITATION, _CAVE_DOCS),
        f"licence, citation; {_REACH}",
    ),
    PublicDataset(
        "male-cns",
        "Male CNS 1.0: an adult male fly's central nervous system",
        Flat("gs://flyem-male-cns/em/em-clahe-jpeg", "gs://flyem-male-cns/v1.0/segmentation"),
        Specimen("fly", (8, 8, 8), 0, _NO_LICENCE, _NO_CITATION, _CAVE_DOCS),
        f"licence, citation; {_REACH}",
    ),
)
"""Every entry is exercised by a test."""


def built_in_hosts() -> frozenset[str]:
    """Hosts of the graphs, which may have a token."""
    hosts: set[str] = set()
    for entry in PUBLIC:
        if isinstance(entry.where, Graph):
            hosts.add(entry.where.server.partition("://")[2])
            hosts.update(entry.where.hosts)
    return frozenset(hosts)


def flat_file(entry: PublicDataset) -> DatasetFile:
    """What a dataset.toml of plain volumes would say.

    Raises:
        ValueError: The dataset is a graph.
    """
    if not isinstance(entry.where, Flat):
        raise ValueError(f"{entry.name} is a graph.")  # noqa: TRY004 - of the right type
    return DatasetFile(
        name=entry.name,
        em=f"precomputed://{entry.where.em}",
        segmentation=f"precomputed://{entry.where.segmentation}",
        species=entry.specimen.species,
        licence=entry.specimen.licence,
        citation=entry.specimen.citation,
        mip=entry.specimen.mip,
    )
