"""Which PostgreSQL database a labels URL names. No password is ever part of it."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qsl, urlsplit

from cb2_assist.core.errors import LabelError, UsageError

SCHEMES = ("postgresql", "postgres")
PASSWORD, PASSWORD_FILE = "CB2_LABELS_PASSWORD", "CB2_LABELS_PASSWORD_FILE"
VIEWS = "CB2_LABELS_VIEWS"
_HOW = "Write postgresql://USER@HOST/DATABASE."
_HOW_PASSWORD = (
    f"Give it in the environment ({PASSWORD} or PGPASSWORD), in a file ({PASSWORD_FILE} names one "
    "that holds nothing else, PGPASSFILE one as of ~/.pgpass) or in ~/.pgpass."
)


@dataclass(frozen=True, slots=True)
class TeamUrl:
    """A database of labels that several people share."""

    url: str
    """As it was given."""
    host: str
    """Name or address, or the folder of a socket."""
    port: str
    database: str
    place: str
    """The same text for the same labels, whoever looks at them."""

    @property
    def name(self) -> str:
        """For messages."""
        return f"the labels {self.database!r} on {self.host}:{self.port}"

    @property
    def home(self) -> Path:
        """Folder for what is kept on this machine; may not be there."""
        import platformdirs

        folder = platformdirs.user_data_path("cb2-assist", appauthor=False) / "team"
        safe = re.sub(r"[^a-z0-9_-]+", "-", self.database.lower()).strip("-")[:40]
        return folder / f"{safe}-{hashlib.sha256(self.place.encode()).hexdigest()[:12]}"

    @property
    def views_folder(self) -> Path:
        """Where what the model saw is kept: a folder that the team shares, or on this machine."""
        shared = os.environ.get(VIEWS)
        return Path(shared).expanduser() if shared else self.home / "views"


def is_team_url(url: str) -> bool:
    """Whether a URL means PostgreSQL."""
    return scheme_of(url) in SCHEMES


def scheme_of(url: str) -> str:
    """What stands before ``://`` in lower case; empty where nothing does."""
    scheme, sep, _ = url.partition("://")
    return scheme.lower() if sep else ""


def without_secrets(url: str) -> str:
    """For messages: no name and no password, also where they stand in a wrong place."""
    return url if "@" not in url else f"{url.partition('@')[0].partition(':')[0]}:…"


def team_url(url: str) -> TeamUrl:
    """Read a URL.

    Raises:
        UsageError: It holds a password, or cannot be understood.
        LabelError: The driver is not installed.
    """
    _refuse_password(url)
    psycopg = driver()
    try:
        given = {
            o.keyword.decode(): o.val.decode()
            for o in psycopg.pq.Conninfo.parse(url.encode())
            if o.val is not None
        }
    except (psycopg.Error, UnicodeError):
        given = {"port": "none"}
    # of "user:password/…" without an @, the password would be the port
    if not re.fullmatch(r"[\d,]*", given.get("port", "")):
        # the reason would repeat a part of the URL
        raise UsageError(
            f"The labels URL that starts with postgresql:// cannot be understood. {_HOW} Special "
            "characters in a name are written as in %40."
        )
    known = {
        o.keyword.decode(): o.val.decode()
        for o in psycopg.pq.Conninfo.get_defaults()
        if o.val is not None and o.keyword in (b"host", b"port", b"dbname", b"user", b"options")
    }
    known |= given
    host = known.get("host") or known.get("hostaddr") or "localhost"
    port = known.get("port") or "5432"
    database = known.get("dbname") or known.get("user") or "postgres"
    place = "\n".join((host.lower(), port, database, known.get("options", "")))
    return TeamUrl(url, host, port, database, place)


def password() -> str | None:
    """Of our own variables; None where libpq is to look for one in its places.

    Raises:
        LabelError: The file that is named cannot be read.
    """
    if os.environ.get(PASSWORD):
        return os.environ[PASSWORD]
    path = os.environ.get(PASSWORD_FILE)
    if not path:
        return None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError, RuntimeError) as e:
        why = (isinstance(e, OSError) and e.strerror) or "no text"
        raise LabelError(f"{PASSWORD_FILE} names {path}, which cannot be read: {why}.") from None


def driver() -> ModuleType:
    """The module psycopg.

    Raises:
        LabelError: It is not installed.
    """
    try:
        import psycopg
    except ImportError as e:
        raise LabelError(
            "Labels in PostgreSQL need the driver psycopg 3, which cannot be used here "
            f"({e}). Run: pip install 'cb2-assist[team]'"
        ) from None
    return psycopg


def _refuse_password(url: str) -> None:
    try:
        parts = urlsplit(url)
        secret = parts.password is not None
        named = {k.lower() for k, _ in parse_qsl(parts.query, keep_blank_values=True)}
    except ValueError:
        raise UsageError(f"The labels URL cannot be understood. {_HOW}") from None
    # a password with / ? or # in it moves the @ out of its place
    rest = parts.path + parts.query + parts.fragment
    if secret or "@" in rest or named & {"password", "sslpassword"}:
        raise UsageError(
            "The labels URL holds a password, where others can see it: in the list of processes, "
            f"in the shell's history. Write it without, as in postgresql://USER@HOST/DATABASE. "
            f"{_HOW_PASSWORD} Then change that password."
        )
