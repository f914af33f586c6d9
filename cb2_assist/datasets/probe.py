"""Whether servers can be reached from here, asked of all at once and within seconds.

One plain request without any token goes to each; whatever it answers, it is there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import requests

from cb2_assist.datasets.catalogue import PUBLIC, Graph, PublicDataset

CONNECT_S, ANSWER_S = 2.0, 3.0
"""Longest wait for one server: to be found and connected, and to answer."""
DEADLINE_S = 4.0
"""Longest wait for all of them; a name server that is silent knows no time limit of its own."""
_BUCKETS = {"gs": "https://storage.googleapis.com", "s3": "https://s3.amazonaws.com"}


def servers_of(entry: PublicDataset) -> tuple[str, ...]:
    """Addresses, without a path, of the servers that a dataset is read from, as far as known."""
    where = entry.where
    if isinstance(where, Graph):
        found = [where.server, *(f"https://{host}" for host in where.hosts)]
    else:
        found = [_server(path) for path in (where.em, where.segmentation)]
    return tuple(dict.fromkeys(found))


def probe(servers: Iterable[str], deadline_s: float = DEADLINE_S) -> dict[str, str]:
    """Ask every server for anything.

    Args:
        servers: Addresses.
        deadline_s: When to give up on those that have not answered.

    Returns:
        For each, why it cannot be reached; empty where it can.
    """
    asked = list(dict.fromkeys(servers))
    found: dict[str, str] = {}
    changed = threading.Condition()

    def ask(server: str) -> None:
        why = _why_not(server)
        with changed:
            found[server] = why
            changed.notify_all()

    for server in asked:
        # nothing waits for one that looks a name up for ever
        threading.Thread(target=ask, args=(server,), name="probe", daemon=True).start()
    end = time.monotonic() + deadline_s
    with changed:
        changed.wait_for(lambda: len(found) == len(asked), max(0.0, end - time.monotonic()))
        return {s: found.get(s, "no answer in time") for s in asked}


def reach(found: Mapping[str, str], entry: PublicDataset) -> str:
    """Why a dataset cannot be read from here; empty where all its servers answer."""
    return "; ".join(
        f"{urlsplit(server).netloc}: {found[server]}"
        for server in servers_of(entry)
        if found[server]
    )


def probe_all(deadline_s: float = DEADLINE_S) -> dict[str, str]:
    """For each public dataset why it cannot be reached from here; empty where it can."""
    found = probe((s for entry in PUBLIC for s in servers_of(entry)), deadline_s)
    return {entry.name: reach(found, entry) for entry in PUBLIC}


def _server(path: str) -> str:
    parts = urlsplit(path.removeprefix("precomputed://"))
    return _BUCKETS.get(parts.scheme) or f"{parts.scheme}://{parts.netloc}"


def _why_not(server: str) -> str:
    try:
        with requests.Session() as session:
            # proxies count, passwords that are kept for hosts do not
            answer = session.head(
                server, timeout=(CONNECT_S, ANSWER_S), allow_redirects=False, auth=_nobody
            )
            answer.close()
    except requests.exceptions.SSLError:
        return "its certificate is not accepted"
    except requests.Timeout:
        return "no answer in time"
    except requests.ConnectionError as e:
        text = str(e)
        if "NameResolution" in text or "getaddrinfo" in text:
            return "its name is not known here"
        return "refuses connections" if "refused" in text else "cannot be connected"
    except requests.RequestException as e:
        return f"no answer that makes sense ({type(e).__name__})"
    return ""


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
