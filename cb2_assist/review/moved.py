"""Sites of a graph whose objects edits have replaced since they were queued."""

from __future__ import annotations

from dataclasses import replace

from cb2_assist.core.errors import AssistError
from cb2_assist.core.records import Site
from cb2_assist.datasets.source import GraphSource
from cb2_assist.labels.queue_store import QueueItem


class MovedError(AssistError):
    """What a site asked about has other ids now, or is one segment. The message says which."""

    def __init__(self, text: str, site: Site | None) -> None:
        """With the same question as it reads now; None: there is nothing left to ask."""
        super().__init__(text)
        self.site = site


def check_moved(item: QueueItem, source: object) -> None:
    """Look a site's objects up again, by the parts of the two sides that were nearest to it.

    Parts never change. A site that was queued without them is looked up by its point, which lies
    on the interface: what is found for both sides alike is then no news of a join.

    Args:
        item: From the queue.
        source: The open dataset; segments of one that is no graph never change.

    Raises:
        MovedError: Edits have changed what it asks about.
        SegmentNotFoundError: It cannot be found any more.
        DatasetError: The graph cannot be asked.
    """
    if not isinstance(source, GraphSource):
        return
    site = item.site
    own, other = item.suggestion.supervoxels or (None, None)
    segment, _ = source.current(own or site.segment, site.point)
    partner = site.partner
    if partner is not None:
        partner, _ = source.current(other or partner, site.point)
    if (segment, partner) == (site.segment, site.partner):
        return
    if segment == partner:
        if own is None or other is None:
            return  # the point alone does not tell the two sides apart
        raise MovedError(f"{site.segment} and {site.partner} are both {segment} now", None)
    was = f"{site.segment}" if site.partner is None else f"{site.segment} + {site.partner}"
    now = f"{segment}" if partner is None else f"{segment} + {partner}"
    raise MovedError(f"{was} is {now} now", replace(site, segment=segment, partner=partner))
