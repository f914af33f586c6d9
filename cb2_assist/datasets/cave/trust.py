"""Which hosts may be sent a token: those of the built-in datasets, this machine, approved ones.

A dataset file comes from anywhere, and so does what an info service answers. Without this a file
with a server of its own would collect the tokens of everybody who opens it.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from cb2_assist.core.errors import DatasetError, UntrustedHostError, UsageError

_HOST = re.compile(r"(?=.{1,253}$)[0-9a-z]([0-9a-z-]{0,61}[0-9a-z])?(\.[0-9a-z-]{1,63})*")
_FILE = "trusted_hosts.json"


def trusted_file() -> Path:
    """Where approved hosts are kept, in the user's configuration folder."""
    import platformdirs

    return platformdirs.user_config_path("cb2-assist", appauthor=False) / _FILE


def approved_hosts() -> frozenset[str]:
    """Hosts that the user approved by name.

    Raises:
        DatasetError: The file cannot be read.
    """
    path = trusted_file()
    try:
        hosts = json.loads(path.read_text(encoding="utf-8"))["hosts"]
        return frozenset(host_name(str(h)) for h in hosts)
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, KeyError, TypeError, UsageError) as e:
        raise DatasetError(
            f"The list of approved hosts {path} cannot be read ({e}). Correct or remove it, then "
            "approve hosts again with cb2-assist doctor --trust HOST."
        ) from e


def approve(host: str) -> Path:
    """Add a host to the approved ones; returns the file.

    Raises:
        UsageError: That is no host name.
        DatasetError: The file cannot be read or written.
    """
    hosts = sorted(approved_hosts() | {host_name(host)})
    path = trusted_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"hosts": hosts}, indent=1) + "\n", encoding="utf-8")
        part.chmod(0o600)
        part.replace(path)
    except OSError as e:
        raise DatasetError(f"Cannot write {path}: {e.strerror}. Nothing was approved.") from e
    return path


def host_name(text: str) -> str:
    """A host as `--trust` takes it and as it is compared: lower case, without scheme and port.

    Raises:
        UsageError: Not one whole host name or address.
    """
    name = text.strip().lower().rstrip(".")
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        if _HOST.fullmatch(name):
            return name
    raise UsageError(
        f"--trust takes one host name, without https://, port and path, got {text!r}, e.g. "
        "--trust minnie.microns-daf.com."
    )


def host_of(url: str) -> str:
    """Host of an address, whatever stands before it (``graphene://middleauth+https://…``).

    Raises:
        DatasetError: It has none.
    """
    bare = web_address(url)
    try:
        host = urlsplit(bare).hostname
    except ValueError:
        host = None
    if not host:
        raise DatasetError(f"{url!r} is not an address with a host.")
    return host.lower().rstrip(".")


def web_address(url: str) -> str:
    """An address without Neuroglancer's prefixes: ``https://…`` or ``http://…``."""
    for prefix in ("graphene://", "precomputed://", "middleauth+"):
        url = url.removeprefix(prefix)
    return url


def is_this_machine(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Trust:
    """Hosts that may be sent a token.

    Args:
        built_in: Of the built-in datasets.
        approved: What the user approved by name.
    """

    def __init__(self, built_in: Iterable[str], approved: Iterable[str]) -> None:
        self._hosts = frozenset(built_in) | frozenset(approved)

    def allows(self, url: str) -> bool:
        """Whether a token may go there: a known host, and encrypted unless on this machine."""
        parts = urlsplit(web_address(url))
        host = host_of(url)
        if is_this_machine(host):
            return parts.scheme in ("http", "https")
        return parts.scheme == "https" and host in self._hosts

    def check(self, url: str, named_by: str) -> None:
        """Refuse an address that may not be sent a token.

        Args:
            url: Where a token would go.
            named_by: Who named it, for the message.

        Raises:
            UntrustedHostError: The host is not known.
            DatasetError: The host is, but the way there is not encrypted.
        """
        if self.allows(url):
            return
        host, scheme = host_of(url), urlsplit(web_address(url)).scheme
        if scheme != "https" and host in self._hosts:
            raise DatasetError(
                f"{named_by} names {url}, and a token may only be sent encrypted. Write https://, "
                "or use a server on this machine."
            )
        if scheme not in ("http", "https"):
            raise DatasetError(f"{named_by} names {url}, which is not an http(s) address.")
        raise UntrustedHostError(host, named_by)
