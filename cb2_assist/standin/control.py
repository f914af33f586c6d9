"""Routes below ``/standin/`` that no real server has: faults on purpose, and what was asked."""

from __future__ import annotations

from dataclasses import asdict

from cb2_assist.core.errors import BadRequestError
from cb2_assist.standin.deployment import Deployment
from cb2_assist.standin.errors import bad_request
from cb2_assist.standin.faults import Fault
from cb2_assist.standin.web import Answer, Request, Route

PREFIX = "/standin/"
"""Nothing below it ever fails on purpose, or is counted."""


def _faults(at: Deployment, request: Request) -> Answer:
    if request.method == "DELETE":
        at.faults.clear()
    if request.method == "POST":
        asked = request.json()
        try:
            at.faults.add(*map(Fault.of, asked if isinstance(asked, list) else [asked]))
        except BadRequestError as e:
            raise bad_request(str(e)) from e
    return Answer(at.faults.to_json())


def _requests(at: Deployment, request: Request) -> Answer:
    if request.method == "DELETE":
        at.faults.forget()
    return Answer([asdict(served) for served in at.faults.requests()])


ROUTES = (
    Route(f"{PREFIX}faults", _faults, ("GET", "POST", "DELETE")),
    Route(f"{PREFIX}requests", _requests, ("GET", "DELETE")),
)
