"""Names files below `/data/PREFIX/` for the viewer and finds the file behind such a URL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServedFile:
    """One file as HTTP should send it."""

    path: Path
    content_type: str
    content_encoding: str | None
    """``gzip`` when the file is stored compressed; its bytes go out as they are."""


def source_url(path: str, origin: str) -> str:
    """Neuroglancer's name for a volume that lies below ``/data/`` on our port, or elsewhere.

    The client takes absolute URLs only, and a forwarded port is another one in the browser than
    here, so the origin comes from the browser's own request.

    Args:
        path: As `source.ViewerLayers` has it; ``graphene:///PATH`` is a graph on our port.
        origin: Scheme, host and port of the browser's request.
    """
    if path.startswith("graphene:///"):
        return f"graphene://{origin}/{path.removeprefix('graphene:///')}"
    return path if "://" in path else f"precomputed://{origin}/data/{path.strip('/')}"


def resolve(root: Path, relative: str) -> ServedFile | None:
    """Find a dataset's file by its URL path.

    Precomputed volumes are often stored as ``NAME.gz`` and asked for as ``NAME``.

    Args:
        root: Folder that is served; nothing outside it is ever found.
        relative: Path below the root with ``/`` between parts, percent-decoded by the caller.

    Returns:
        The file, or None when there is none or the path is not a plain one below the root
        (empty or ``.`` or ``..`` parts, backslashes, NUL, links that lead outside).
    """
    parts = relative.split("/")
    if any(p in ("", ".", "..") or "\\" in p or "\0" in p for p in parts):
        return None
    base = root.resolve()
    for suffix, encoding in (("", None), (".gz", "gzip")):
        try:
            path = base.joinpath(*parts[:-1], parts[-1] + suffix).resolve()
            found = path.is_relative_to(base) and path.is_file()
        except OSError:  # a name too long for the file system, a folder that may not be read
            return None
        if found:
            return ServedFile(path, _content_type(parts[-1]), encoding)
    return None


def _content_type(name: str) -> str:
    # Neuroglancer asks for info files and for mesh manifests, `ID:LOD`, as JSON
    if name == "info" or name.partition(":")[2].isdigit():
        return "application/json"
    return "application/octet-stream"
