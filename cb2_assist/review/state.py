"""Where a session stopped: a small JSON file beside the label file, with mode 0600.

It holds nothing that is not also shown on the page or printed at start. Losing it costs a press of
`p`; labels never depend on it. Port and token in it let a tab attach itself to a restarted server
and a forwarded port go on working, one pair for each label file.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cb2_assist.core.errors import AssistError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId, segment_id

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a proposal was asked for."""

    at: PointNm
    segment: SegmentId | None


@dataclass(frozen=True, slots=True)
class Saved:
    """What a restart takes up again."""

    cursor: Cursor | None = None
    """Of the last list, together with the segmentation version it was made on."""
    version: str = ""
    port: int | None = None
    token: str | None = None
    """Kept so that an open tab attaches itself to the restarted server."""


class StateFile:
    """Reads and replaces the file; a missing or damaged one counts as empty."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.saved = self._load()

    def update(
        self,
        *,
        cursor: Cursor | None = None,
        version: str | None = None,
        port: int | None = None,
        token: str | None = None,
    ) -> None:
        """Change what is given, keep the rest, and write the file (mode 0600).

        A file that cannot be written is logged and otherwise ignored.
        """
        old = self.saved
        self.saved = replace(
            old,
            cursor=cursor or old.cursor,
            version=old.version if version is None else version,
            port=old.port if port is None else port,
            token=old.token if token is None else token,
        )
        if self._path is None or self.saved == old:
            return
        try:
            self._write(self._path, self.saved)
        except OSError as error:
            log.warning("Cannot remember where this session stands in %s: %s", self._path, error)

    @staticmethod
    def _write(path: Path, saved: Saved) -> None:
        cursor = saved.cursor
        text = json.dumps(
            {
                "at_nm": cursor and cursor.at.to_json(),
                "segment": None if not cursor or cursor.segment is None else str(cursor.segment),
                "version": saved.version,
                "port": saved.port,
                "token": saved.token,
            }
        )
        # mkstemp makes the file with mode 0600, and the rename keeps it
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise

    def _load(self) -> Saved:
        if self._path is None:
            return Saved()
        try:
            if not self._path.is_file():
                return Saved()
            is_secret = _made_private(self._path)
            saved = _parsed(json.loads(self._path.read_text(encoding="utf-8")))
            if not is_secret:  # the next reader must not take the old token for a secret
                saved = replace(saved, token=None)
                self._write(self._path, saved)
        except (OSError, ValueError, KeyError, TypeError, AssistError) as error:
            log.warning("Starting afresh: %s cannot be read (%s).", self._path, error)
            return Saved()
        return saved


def last_port(path: Path) -> int | None:
    """The port in a state file; None when there is none. Touches nothing."""
    try:
        return _parsed(json.loads(path.read_text(encoding="utf-8"))).port
    except (OSError, ValueError, KeyError, TypeError, AssistError):
        return None


def _parsed(got: Any) -> Saved:  # noqa: ANN401 - as JSON says it
    at, segment = got["at_nm"], got["segment"]
    cursor = None
    if at is not None:
        cursor = Cursor(PointNm.of(at), None if segment is None else segment_id(segment))
    port, token = got["port"], got["token"]
    return Saved(
        cursor,
        str(got["version"]),
        port if isinstance(port, int) and 0 < port < 65536 else None,
        token if isinstance(token, str) and token.isalnum() else None,
    )


def _made_private(path: Path) -> bool:
    """Take the file from others; whether it was ours alone, so that its token is still secret."""
    others = stat.S_IRWXG | stat.S_IRWXO
    if os.name == "nt" or not path.stat().st_mode & others:
        return True
    path.chmod(0o600)
    if path.stat().st_mode & others:  # a file system without modes, e.g. a mounted stick
        return True
    log.warning(
        "Others could read %s: its mode is 0600 again, and a new token is made. Open the address "
        "that is printed in place of the old one.",
        path,
    )
    return False
