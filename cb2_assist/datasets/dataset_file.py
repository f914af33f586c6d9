"""The `dataset.toml` of a local dataset: read, checked, written.

    [dataset]
    name = "fib25"
    em = "precomputed://file://em"              # relative to this file, or any cloud-volume path
    segmentation = "precomputed://file://seg"
    truth = "precomputed://file://truth"        # optional, only simulate and evaluate read it
    species = "fly"                             # mouse | fly | human | zebrafish | other
    licence = "CC BY 3.0"
    citation = "..."
    geometry = "labels"                         # or "meshes": what the model's geometry views of
                                                # joins are made from; cuts, and segments without
                                                # a mesh, use labels
    mip = 0                                     # scale of the segmentation that is read

or, for a graph on a CAVE server, in place of em and segmentation

    [cave]
    datastack = "minnie65_public"
    server = "https://global.daf-apis.com"      # its global (info and auth) server; plain http on
                                                # this machine only
    timestamp = "2024-06-05T10:10:01Z"          # optional: one state for good; else the latest

or with em and segmentation = "graphene://https://HOST/segmentation/table/TABLE" in [dataset].

`import-volume` adds `version` (what the labels are tied to), `em_mean` and `em_std` (so that
opening is fast) and `complete = true` (every chunk was written; a missing one is damage and not
background).
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cb2_assist.core.errors import DatasetError, UsageError
from cb2_assist.datasets.source import EmStatistics

FILE_NAME = "dataset.toml"
GEOMETRY: tuple[str, ...] = ("labels", "meshes")
SPECIES: tuple[str, ...] = ("mouse", "fly", "human", "zebrafish", "other")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REQUIRED = ("name", "em", "segmentation")
_TEXT = (*_REQUIRED, "truth", "species", "licence", "citation", "version", "geometry")
_KNOWN = (*_TEXT, "em_mean", "em_std", "complete", "mip")
_CAVE_REQUIRED = ("datastack", "server")
_CAVE_KNOWN = (*_CAVE_REQUIRED, "timestamp")
_GRAPH = re.compile(
    r"graphene://(?:middleauth\+)?(https?://[^/\s]+)/segmentation/[^/\s]+/([\w.-]+)/?"
)
_FILE_PREFIX = "precomputed://file://"


@dataclass(frozen=True, slots=True)
class CaveTable:
    """Where a graph is, as a dataset.toml says.

    Attributes:
        server: Global server, or that of the graph itself; ``https://…`` without a slash at the
            end.
        datastack: Name on the global server; empty where the graph itself is named.
        graph: ``graphene://…`` of the graph; empty where a datastack is named.
        timestamp: The state to read; None is the latest.
    """

    server: str
    datastack: str = ""
    graph: str = ""
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """What a dataset.toml says.

    Attributes:
        em: Cloud-volume path; local ones as ``precomputed://file:///absolute/folder``. Empty where
            a CAVE server says it.
        segmentation: The same for the segmentation.
        truth: The same for the truth, or None.
        version: Content id that import wrote, or None.
        em_statistics: What import measured, or None.
        complete: Whether a missing chunk is damage rather than background.
        geometry: What geometry views are made from, one of `GEOMETRY`.
        mip: Scale of the segmentation that is read, 0 is the finest.
        cave: The graph; None for a segmentation that is a plain volume.
    """

    name: str
    em: str
    segmentation: str
    truth: str | None = None
    species: str = "other"
    licence: str = "unknown"
    citation: str = ""
    version: str | None = None
    em_statistics: EmStatistics | None = None
    complete: bool = False
    geometry: str = "labels"
    mip: int = 0
    cave: CaveTable | None = None


def check_name(name: str) -> str:
    """Return the name when it can also name a label file.

    Raises:
        UsageError: It has other characters, or is empty or too long.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"A dataset's name is 1 to 64 letters, digits, '.', '_' or '-' and starts with a "
            f"letter or digit, got {name!r}."
        )
    return name


def check_species(species: str) -> str:
    """Return the species when it is one of `SPECIES`.

    Raises:
        UsageError: It is not.
    """
    if species not in SPECIES:
        raise UsageError(f"There is no species {species!r} here. Known: {', '.join(SPECIES)}.")
    return species


def check_geometry(geometry: str) -> str:
    """Return what geometry views are to be made from when it is one of `GEOMETRY`.

    Raises:
        UsageError: It is not.
    """
    if geometry not in GEOMETRY:
        raise UsageError(
            f"Geometry views are made from {' or '.join(GEOMETRY)}, got geometry = {geometry!r}."
        )
    return geometry


def check_text(what: str, text: str) -> str:
    """Return the text when it is one line without control characters.

    Raises:
        UsageError: It is not.
    """
    if not text.isprintable():
        raise UsageError(f"The {what} must be one line of printable text, got {text!r}.")
    return text


def local_folder(cloudpath: str) -> Path | None:
    """Folder of a path that `read_dataset_file` returned; None when it is not on this machine."""
    if not cloudpath.startswith(_FILE_PREFIX):
        return None
    return Path(cloudpath.removeprefix(_FILE_PREFIX))


def read_dataset_file(path: Path) -> DatasetFile:
    """Read and check a dataset.toml.

    Raises:
        DatasetError: The file is missing or unreadable, or what it says cannot be used.
    """
    path = _existing(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise DatasetError(f"Cannot read the dataset file {path}: {e.strerror}.") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise DatasetError(f"The dataset file {path} is not valid TOML: {e}.") from e
    table = _dataset_table(path, document)
    cave = _cave(path, document, table)
    for key in _TEXT:
        if key in table and not isinstance(table[key], str):
            raise DatasetError(f"{path}: {key} must be text in quotes, got {table[key]!r}.")
    named = cave is not None and bool(cave.datastack)
    missing = [k for k in _REQUIRED if not table.get(k)]
    if missing and not named:
        raise DatasetError(
            f"{path}: [dataset] lacks {', '.join(missing)}. Needed: {', '.join(_REQUIRED)}."
        )
    name = table.get("name") or (cave.datastack if cave else "")
    try:
        check_name(name)
        check_species(table.get("species", "other"))
        check_geometry(table.get("geometry", "labels"))
        for key in _TEXT:
            check_text(key, table.get(key, ""))
    except UsageError as e:
        raise DatasetError(f"{path}: {e}") from e
    folder = path.parent
    truth = table.get("truth")
    return DatasetFile(
        name=name,
        em="" if named else _cloudpath(path, folder, "em", table["em"]),
        segmentation=(
            "" if cave else _cloudpath(path, folder, "segmentation", table["segmentation"])
        ),
        truth=_cloudpath(path, folder, "truth", truth) if truth else None,
        species=table.get("species", "other"),
        licence=table.get("licence") or "unknown",
        citation=table.get("citation", ""),
        version=table.get("version") or None,
        em_statistics=_em_statistics(path, table),
        complete=_flag(path, table, "complete"),
        geometry=table.get("geometry", "labels"),
        mip=_mip(path, table),
        cave=cave,
    )


def write_dataset_file(path: Path, dataset: DatasetFile) -> None:
    """Write a dataset.toml that `read_dataset_file` reads back."""
    values: dict[str, str | float | bool | None] = {
        "name": dataset.name,
        "version": dataset.version,
        "em": dataset.em,
        "segmentation": dataset.segmentation,
        "truth": dataset.truth,
        "species": dataset.species,
        "licence": dataset.licence,
        "citation": dataset.citation,
    }
    if dataset.em_statistics is not None:
        values["em_mean"] = dataset.em_statistics.mean
        values["em_std"] = dataset.em_statistics.std
    values["complete"] = dataset.complete
    if dataset.geometry != "labels":
        values["geometry"] = dataset.geometry
    if dataset.mip:
        values["mip"] = dataset.mip
    # JSON's strings, numbers and booleans are valid TOML as long as nothing is escaped to \\u pairs
    lines = [
        f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in values.items() if v is not None
    ]
    path.write_text("[dataset]\n" + "\n".join(lines) + "\n", encoding="utf-8")


def _existing(path: Path) -> Path:
    try:
        str(path).encode()  # bytes that are no text are refused here, and not where it is printed
        path = path.expanduser().absolute()
        is_folder, is_there = path.is_dir(), path.exists()
        inside = path / FILE_NAME
        hint = f" Did you mean {inside}?" if is_folder and inside.is_file() else ""
    except (OSError, RuntimeError, ValueError) as e:
        why = (isinstance(e, OSError) and e.strerror) or e
        raise DatasetError(
            f"The dataset file {str(path)!r} cannot be looked at: {why}. Name a file that you may "
            "read; cb2-assist import-volume makes one from a volume."
        ) from e
    if is_folder:
        raise DatasetError(f"{path} is a folder, a dataset file is needed.{hint}")
    if not is_there:
        raise DatasetError(
            f"There is no dataset file {path}. cb2-assist import-volume makes one from a volume."
        )
    return path


def _dataset_table(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    table = document.get("dataset", {} if "cave" in document else None)
    if not isinstance(table, dict):
        raise DatasetError(f"{path} has no [dataset] table with {', '.join(_REQUIRED)}.")
    unknown = sorted(set(table) - set(_KNOWN))
    if unknown:
        raise DatasetError(
            f"{path}: [dataset] has unknown keys {', '.join(unknown)}. Known: {', '.join(_KNOWN)}."
        )
    return table


def _cave(path: Path, document: dict[str, Any], dataset: dict[str, Any]) -> CaveTable | None:
    """The graph that a file names, in either way; None where it names plain volumes."""
    segmentation = dataset.get("segmentation")
    is_graph = isinstance(segmentation, str) and "graphene://" in segmentation
    if "cave" not in document:
        return _graph(path, str(segmentation), dataset) if is_graph else None
    table = document["cave"]
    if not isinstance(table, dict):
        raise DatasetError(f"{path}: cave must be a table, [cave], with datastack and server.")
    unknown = sorted(set(table) - set(_CAVE_KNOWN))
    if unknown:
        raise DatasetError(
            f"{path}: [cave] has unknown keys {', '.join(unknown)}. Known: "
            f"{', '.join(_CAVE_KNOWN)}."
        )
    missing = [k for k in _CAVE_REQUIRED if not (isinstance(table.get(k), str) and table[k])]
    if missing:
        raise DatasetError(
            f"{path}: [cave] lacks {', '.join(missing)}. Needed, in quotes: datastack (its name) "
            "and server (the global server that knows it)."
        )
    twice = [k for k in ("em", "segmentation", "truth") if k in dataset]
    if twice:
        raise DatasetError(
            f"{path} has [cave] and {', '.join(twice)} in [dataset]. The server says where EM and "
            "segmentation are: remove one of the two."
        )
    if not _NAME.fullmatch(table["datastack"]):
        raise DatasetError(f"{path}: there can be no datastack {table['datastack']!r}.")
    server = _server(path, "[cave] server", table["server"])
    return CaveTable(server, table["datastack"], timestamp=_timestamp(path, table))


def _graph(path: Path, segmentation: str, dataset: dict[str, Any]) -> CaveTable:
    found = _GRAPH.fullmatch(segmentation.removeprefix("precomputed://"))
    if found is None:
        raise DatasetError(
            f"{path}: segmentation = {segmentation!r} is not a graph's address. It looks like "
            "graphene://https://HOST/segmentation/table/TABLE."
        )
    if dataset.get("truth"):
        raise DatasetError(f"{path}: a graph has no truth beside it. Remove truth.")
    server = _server(path, "segmentation", found[1])
    return CaveTable(server, graph=f"graphene://{server}/segmentation/table/{found[2]}")


def _server(path: Path, key: str, given: str) -> str:
    try:
        parts = urlsplit(given.strip())
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment or parts.username or parts.path.strip("/"):
        raise DatasetError(
            f"{path}: {key} = {given!r} is not a server's address. Write https://HOST."
        )
    return f"{parts.scheme}://{parts.netloc}"


def _timestamp(path: Path, table: dict[str, Any]) -> datetime | None:
    given = table.get("timestamp")
    if given is None:
        return None
    try:
        at = given if isinstance(given, datetime) else datetime.fromisoformat(given)
    except (TypeError, ValueError):
        raise DatasetError(
            f"{path}: timestamp = {given!r} is not a time. Write it as in 2024-06-05T10:10:01Z."
        ) from None
    # a time without a zone would mean another state on each machine
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _mip(path: Path, table: dict[str, Any]) -> int:
    mip = table.get("mip", 0)
    if not isinstance(mip, int) or isinstance(mip, bool) or not 0 <= mip < 32:
        raise DatasetError(f"{path}: mip must be a whole number from 0, got {mip!r}.")
    return mip


def _cloudpath(path: Path, folder: Path, key: str, value: str) -> str:
    """Absolute form of a layer's path; relative folders may not leave the file's folder."""
    bare = value.removeprefix("precomputed://")
    if bare.startswith(("graphene://", "middleauth+")):
        raise DatasetError(
            f"{path}: {key} = {value!r} is not a precomputed volume. Only segmentation can be a "
            "graph, graphene://https://HOST/segmentation/table/TABLE."
        )
    if not bare.startswith("file://"):
        if "://" not in bare:
            raise DatasetError(
                f"{path}: {key} = {value!r} is not a cloud-volume path. Write a folder beside "
                f"this file as {_FILE_PREFIX}FOLDER, anything else with its protocol, e.g. "
                "precomputed://https://..."
            )
        return value
    given = bare.removeprefix("file://")
    target = (folder / given).resolve()
    if not Path(given).is_absolute() and not target.is_relative_to(folder.resolve()):
        raise DatasetError(
            f"{path}: {key} = {value!r} leaves the folder of the dataset file. Write it as an "
            f"absolute path ({_FILE_PREFIX}/...) if that is meant."
        )
    return f"{_FILE_PREFIX}{target}"


def _em_statistics(path: Path, table: dict[str, Any]) -> EmStatistics | None:
    if "em_mean" not in table and "em_std" not in table:
        return None
    try:
        mean, std = float(table["em_mean"]), float(table["em_std"])
    except (KeyError, TypeError, ValueError):
        mean = std = math.nan
    if not (math.isfinite(mean) and math.isfinite(std) and std >= 0):
        raise DatasetError(
            f"{path}: em_mean and em_std must be two numbers, std not negative, got "
            f"{table.get('em_mean')!r} and {table.get('em_std')!r}. Remove both to measure again."
        )
    return EmStatistics(mean, std)


def _flag(path: Path, table: dict[str, Any], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise DatasetError(f"{path}: {key} must be true or false, got {value!r}.")
    return value
