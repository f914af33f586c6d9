"""Our own links: ``http://127.0.0.1:PORT/#at=x,y,z&segment=ID&site=ID&dataset=NAME``.

They lead to a page of this server and carry no secret: the part behind ``#`` never leaves the
browser, and the browser's cookie is what lets it in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

from cb2_assist.core.errors import AssistError, BadRequestError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId, segment_id

_OURS = re.compile(r"(?:https?://[^\s#]*)?#(?P<fields>(?:at|segment|site|dataset)=\S*)")
_SITE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


@dataclass(frozen=True, slots=True)
class OwnLink:
    """A place in a dataset.

    Attributes:
        at: Where suggestions were asked for; None when only the segment is known.
        segment: What they were asked about.
        site: The suggestion that was selected.
        dataset: Its name.
    """

    at: PointNm | None
    segment: SegmentId | None = None
    site: str | None = None
    dataset: str | None = None


def own_link(origin: str, link: OwnLink) -> str:
    """The link's text.

    Args:
        origin: Scheme, host and port under which the browser reaches this server.
        link: Where it leads.
    """
    fields = {
        "at": None if link.at is None else ",".join(f"{v!r}".removesuffix(".0") for v in link.at),
        "segment": link.segment,
        "site": link.site,
        "dataset": link.dataset,
    }
    given = {k: str(v) for k, v in fields.items() if v is not None}
    return f"{origin}/#{urlencode(given, safe=',')}"


def read_own_link(text: str) -> OwnLink | None:
    """What a link of ours says; None when the text is none.

    Raises:
        BadRequestError: It is one, but damaged.
    """
    match = _OURS.fullmatch(text)
    if match is None:
        return None
    fields = parse_qs(match["fields"])
    try:
        # the same field twice would be two places
        got = {k: v for k, (v,) in fields.items()}
        at = got.get("at")
        segment, site = got.get("segment"), got.get("site")
        link = OwnLink(
            None if at is None else PointNm.of(float(v) for v in at.split(",")),
            None if segment is None else segment_id(segment),
            None if site is None else _site(site),
            got.get("dataset"),
        )
    except (ValueError, AssistError):
        raise BadRequestError(
            "That link of this page is damaged; it should end like "
            "#at=480,480,480&segment=12345. Copy it again."
        ) from None
    if link.at is None and link.segment is None:
        raise BadRequestError("That link names neither a place nor a segment. Copy it again.")
    return link


def _site(text: str) -> str:
    if _SITE.fullmatch(text) is None:
        raise ValueError(text)
    return text
