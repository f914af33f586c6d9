"""Finds the token for a server where caveclient would, and stores one where it would.

``CAVE_TOKEN`` in the environment goes first, then caveclient's files below
``~/.cloudvolume/secrets``: ``{global server}-cave-secret.json``, ``cave-secret.json``,
``chunkedgraph-secret.json``.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cb2_assist.core.errors import DatasetError, LoginError, UsageError

TOKEN_VARIABLE = "CAVE_TOKEN"  # noqa: S105 - a name
# hexadecimal as CAVE hands them out, or base64: what cloud-volume takes, and no header can be
# smuggled in
_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{8,512}={0,2}")


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A secret, with where it was found. Neither `repr` nor `str` shows it."""

    value: str
    found: str
    """``CAVE_TOKEN`` or a file's name."""

    def __repr__(self) -> str:
        return f"Token(from {self.found})"


def token_page(server: str) -> str:
    """Where a person finds the token that exists already."""
    return f"{server.rstrip('/')}/sticky_auth/settings/tokens"


def new_token_page(server: str) -> str:
    """Where a person makes a new one, which ends the old one everywhere."""
    return f"{server.rstrip('/')}/auth/api/v1/create_token"


def find_token(server: str) -> Token | None:
    """The token for a global server; None where there is none.

    Raises:
        LoginError: There is one, but it is none by its form, or its file cannot be read.
    """
    given = os.environ.get(TOKEN_VARIABLE)
    if given is not None and given.strip():
        return Token(_checked(given, TOKEN_VARIABLE, server), TOKEN_VARIABLE)
    from caveclient.auth import AuthClient

    try:
        client = AuthClient(server_address=server)
    except (OSError, ValueError, AttributeError) as e:
        raise LoginError(
            f"A token file of caveclient below {_folder()} cannot be read ({type(e).__name__}). "
            f"Correct or remove it, or set {TOKEN_VARIABLE}.",
            reason="invalid",
            page=token_page(server),
            server=server,
        ) from None
    if not client.token:
        return None
    return Token(_checked(str(client.token), str(_folder()), server), str(_folder()))


def save_token(server: str, text: str) -> Path:
    """Keep a token for a server where caveclient looks for it first; returns the file.

    Raises:
        UsageError: That is no token.
        DatasetError: The file cannot be written.
    """
    from caveclient.auth import server_token_filename, write_token

    try:
        value = _checked(text, "what was typed", server)
    except LoginError as e:
        raise UsageError(str(e)) from None
    path = Path(server_token_filename(server))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            with open(path, "x", opener=lambda p, flags: os.open(p, flags, 0o600)) as new:
                new.write("{}")
        write_token(value, str(path), "token", overwrite=True)
        path.chmod(0o600)
    except (OSError, ValueError) as e:
        raise DatasetError(f"Cannot write the token to {path}: {type(e).__name__}.") from None
    return path


def missing(server: str, dataset: str, mirror: str = "") -> LoginError:
    """What to do without a token.

    Args:
        server: The global server.
        dataset: Name of the dataset.
        mirror: Name of one with the same data that needs none.
    """
    page = token_page(server)
    without = f" Without one, open cb2-assist --dataset {mirror}." if mirror else ""
    return LoginError(
        f"{dataset} needs a CAVE token for {urlsplit(server).netloc}, and there is none. Copy "
        f"yours from {page} (or make one at {new_token_page(server)}, which ends the old one), "
        f"then set {TOKEN_VARIABLE}, or start again in a terminal to be asked for it.{without}",
        reason="missing",
        page=page,
        server=server,
    )


def _checked(text: str, found: str, server: str) -> str:
    value = text.strip()
    if not _TOKEN.fullmatch(value):
        raise LoginError(
            f"The CAVE token from {found} is none: {len(value)} characters, not 32 digits 0-9 and "
            f"a-f. Copy it again from {token_page(server)}.",
            reason="invalid",
            page=token_page(server),
            server=server,
        )
    return value


def _folder() -> Path:
    folder = Path("~/.cloudvolume/secrets")
    with contextlib.suppress(RuntimeError):
        folder = folder.expanduser()
    return folder
