"""Every request to a CAVE server goes through one adapter, whoever makes it.

caveclient waits without limit, opens the browser by itself when terms were not accepted, repeats
edits whose answer was lost, and puts raw bodies into its errors. None of that reaches a person
here: the adapter sits below it, in the `requests` sessions that it makes, and

- sends nothing to a host that may not have the token, and follows no redirect;
- gives each request a time limit;
- repeats what only reads, a few times and politely, and an edit never;
- sends what only reads again at once, on a connection of its own, where the server had just closed
  the one that was kept open: that says nothing about the server, and counts as no try;
- turns every failure into an error of ours, before anything above it sees the answer.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ProtocolError

from cb2_assist.core.errors import (
    AssistError,
    DatasetError,
    LoginError,
    NoAnswerError,
    SegmentNotFoundError,
)
from cb2_assist.datasets.cave.login import TOKEN_VARIABLE, Token, token_page
from cb2_assist.datasets.cave.trust import Trust

CONNECT_S, READ_S = 5.0, 60.0
"""How long a server may take to accept a connection, and to go silent."""
_TRIES = 3
_TRY_AGAIN = (429, 502, 503, 504)
_LONGEST_PAUSE_S = 5.0
_EDITS = ("merge", "split", "undo", "redo")
"""Last parts of the addresses that change the graph."""
_MOST_WORDS = 200


class Pace:
    """How fast requests may follow each other, whoever makes them; without a limit at first."""

    def __init__(self) -> None:
        self.per_s = math.inf
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Return when it is one's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + 1.0 / self.per_s
        if turn > now:
            time.sleep(turn - now)


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks, on which servers.

    Attributes:
        dataset: Name for messages.
        server: The global server, which hands out the token.
        token: None asks without one.
        pace: Of all its requests.
    """

    dataset: str
    server: str
    token: Token | None
    trust: Trust
    pace: Pace = field(default_factory=Pace, compare=False)


def session(account: Account) -> requests.Session:
    """A session that sends the token, through the adapter."""
    made = requests.Session()
    if account.token is not None:
        made.headers["Authorization"] = f"Bearer {account.token.value}"
    guard(made, account)
    return made


def guard(of: requests.Session, account: Account) -> None:
    """Put the adapter into a session, of caveclient for instance."""
    adapter = GuardedAdapter(account)
    of.mount("http://", adapter)
    of.mount("https://", adapter)


class GuardedAdapter(HTTPAdapter):
    """Checks where a request goes, limits its time, repeats reads, words failures."""

    def __init__(self, account: Account) -> None:
        self._account = account
        super().__init__(max_retries=0, pool_connections=4, pool_maxsize=16)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,  # noqa: ANN401
        verify: bool | str = True,
        cert: Any = None,  # noqa: ANN401
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        """One answer that is good.

        Raises:
            AssistError: There is none, with what to do about it.
        """
        url = str(request.url)
        self._account.trust.check(url, f"The CAVE service of {self._account.dataset}")
        changes = is_edit(url, str(request.method))
        tries = 1 if changes else _TRIES
        how = request, stream, timeout or (CONNECT_S, READ_S), verify, cert, proxies
        for left in reversed(range(tries)):
            self._account.pace.wait()
            try:
                try:
                    answer = super().send(*how)
                except requests.ConnectionError as e:
                    if changes or not _was_closed(e):
                        raise
                    answer = _send_alone(*how)
                if not stream:
                    answer.content  # noqa: B018 - a body that breaks off is one more failure
            except (requests.ConnectionError, requests.Timeout, requests.RequestException) as e:
                if not left:
                    raise no_answer(self._account, url, e) from None
                _pause(tries - left, None)
                continue
            if answer.status_code in _TRY_AGAIN and left:
                answer.close()
                _pause(tries - left, answer.headers.get("Retry-After"))
                continue
            if answer.status_code >= 300 and not _is_plain_absence(answer):
                raise refused(self._account, answer)
            return answer
        raise AssertionError("the last try returns or raises")


def _was_closed(error: requests.ConnectionError) -> bool:
    """Whether a connection ended before a word of an answer, as one that was kept too long does."""
    aborted = error.args[0] if error.args else None
    causes = aborted.args if isinstance(aborted, ProtocolError) else ()
    return any(isinstance(c, ConnectionResetError | BrokenPipeError) for c in causes)


def _send_alone(*how: Any) -> requests.Response:  # noqa: ANN401 - as `HTTPAdapter.send`
    """Send on a connection that nobody has used before and nobody will use again."""
    with contextlib.closing(HTTPAdapter(max_retries=0)) as alone:
        return alone.send(*how)


def is_edit(url: str, method: str) -> bool:
    """Whether a request changes the graph: it must be sent at most once."""
    return method.upper() == "POST" and urlsplit(url).path.rstrip("/").split("/")[-1] in _EDITS


def no_answer(account: Account, url: str, error: Exception) -> NoAnswerError:
    """The server is down, or the way to it is."""
    host = urlsplit(url).netloc
    if isinstance(error, requests.Timeout):
        why = "it does not answer in time"
    elif "NameResolution" in str(error) or "getaddrinfo" in str(error):
        why = "its name is not known here; is this machine online?"
    elif isinstance(error, requests.exceptions.SSLError):
        why = "its certificate is not accepted"
    elif "refused" in str(error):
        why = "it refuses connections, so it is down or the port is wrong"
    else:
        why = f"the connection broke off ({type(error).__name__})"
    return NoAnswerError(
        f"The server {host} of {account.dataset} cannot be reached: {why}. Try again in a while; "
        "labels are kept on this machine and nothing is lost."
    )


def refused(account: Account, answer: requests.Response) -> AssistError:
    """What a status means, and what to do about it; never the token, never the raw body."""
    body = _json(answer)
    code, host = answer.status_code, urlsplit(str(answer.url)).netloc
    reason = str(body.get("error", ""))
    words = _words(body.get("message"))
    page, name, server = token_page(account.server), account.dataset, account.server
    raw = body.get("data")
    data: dict[str, Any] = raw if isinstance(raw, dict) else {}
    if code == 401 and reason in ("", "invalid_token") and not words.startswith("[401]"):
        had = f" from {account.token.found}" if account.token else ""
        return LoginError(
            f"{name}: the server {host} does not accept the token{had}: it is invalid or has "
            f"expired. Copy the present one from {page}, then set {TOKEN_VARIABLE} or start again "
            "in a terminal to be asked for it.",
            reason="invalid",
            page=page,
            server=server,
        )
    if code in (301, 302, 303, 307, 308):
        why = "does not know the token" if account.token else "asks to log in"
        return LoginError(
            f"{name}: the server {host} {why}. Copy your token from {page}, then set "
            f"{TOKEN_VARIABLE} or start again in a terminal to be asked for it. If the token is "
            "right, the server's address is not.",
            reason="invalid" if account.token else "missing",
            page=page,
            server=server,
        )
    if code == 403 and reason == "missing_tos":
        form = _web_page(data.get("tos_form_url")) or f"{server}/sticky_auth"
        return LoginError(
            f"{name}: your CAVE account has not accepted the terms of service yet. Open {form}, "
            "accept, then run this again.",
            reason="terms",
            page=form,
            server=server,
        )
    if code == 403:
        wanted = _words(data.get("required_permission")) or "view"
        return LoginError(
            f"{name}: your CAVE account may not {wanted} this dataset"
            f"{f' ({words})' if words else ''}. Ask the dataset's owners for that permission; the "
            "token itself is in order.",
            reason="permission",
            server=server,
        )
    if reason == "invalid_table_id":
        wrong = _words(data.get("table_id"))
        return DatasetError(
            f"{name}: the server {host} has no dataset {wrong or 'of this name'}. Check datastack "
            "and server: a datastack lives on one global server only."
        )
    if code == 404:
        return DatasetError(
            f"{name}: there is nothing at {host}{urlsplit(str(answer.url)).path}. Check server and "
            "datastack: this is no CAVE server, or one without this service."
        )
    if code == 500 and "Cannot find root id" in words:
        return SegmentNotFoundError(
            f"{name}: the graph has no object there at that time ({words}). The id is not one of "
            "this graph, or the time lies before it."
        )
    if code == 429:
        return NoAnswerError(
            f"{name}: the server {host} says that there were too many requests. Wait a minute."
        )
    said = f": {words}" if words else ""
    if code >= 500:
        return NoAnswerError(
            f"{name}: the server {host} failed (status {code}{said}). Try again in a while; "
            "nothing is lost."
        )
    return DatasetError(f"{name}: the server {host} refused the request (status {code}{said}).")


def _is_plain_absence(answer: requests.Response) -> bool:
    """A service without a version page is older, not broken; caveclient asks all of them."""
    path = urlsplit(str(answer.url)).path
    return answer.status_code == 404 and path.endswith(("/version", "/versions"))


def _pause(after: int, wanted: str | None) -> None:
    seconds = 0.1 * 4 ** (after - 1) * (0.5 + random.random())  # noqa: S311 - no secret
    if wanted is not None and wanted.strip().isdigit():
        seconds = float(wanted)
    time.sleep(min(seconds, _LONGEST_PAUSE_S))


def _json(answer: requests.Response) -> dict[str, Any]:
    try:
        got = json.loads(answer.content)
    except (ValueError, requests.RequestException):
        return {}
    return got if isinstance(got, dict) else {}


def _words(value: object) -> str:
    """What a server says, as one short line that a terminal may show."""
    text = " ".join(str(value).split()) if value is not None else ""
    return "".join(c for c in text if c.isprintable())[:_MOST_WORDS]


def _web_page(value: object) -> str:
    text = _words(value)
    return text if text.startswith(("https://", "http://127.0.0.1", "http://localhost")) else ""
