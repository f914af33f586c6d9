"""Going to a place that a person names, and naming the place on screen for others."""

from __future__ import annotations

from dataclasses import dataclass

from cb2_assist.core.colours import PARTNER_COLOUR, SEGMENT_COLOUR
from cb2_assist.core.errors import BadRequestError, SegmentNotFoundError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import SegmentId
from cb2_assist.datasets.serving import source_url
from cb2_assist.datasets.source import DatasetInfo, GraphSource
from cb2_assist.review.goto import Extent, Target, read_target
from cb2_assist.review.links import OwnLink, own_link
from cb2_assist.review.neuroglancer_links import Shown, write_link
from cb2_assist.review.ports import Place
from cb2_assist.review.screen import Screen, describe
from cb2_assist.review.state import Cursor


@dataclass(frozen=True, slots=True)
class Arrival:
    """A place that was found.

    Attributes:
        at: Where the camera goes.
        segment: What suggestions are made about there; None makes none.
        site: The suggestion to select among them, or None.
        text: What the request was taken as and what comes of it, for the status line.
    """

    at: PointNm
    segment: SegmentId | None
    site: str | None
    text: str

    @property
    def cursor(self) -> Cursor | None:
        """What to propose, if anything."""
        return None if self.segment is None else Cursor(self.at, self.segment)


@dataclass(frozen=True, slots=True)
class SharedLink:
    """A link to the place on screen and a sentence about who can open it."""

    link: str
    text: str


def arrive(text: str, place: Place, info: DatasetInfo) -> Arrival:
    """Find out where a text leads; may read the dataset for some seconds.

    Raises:
        UsageError: It is not understood.
        OutOfBoundsError: The place lies outside the volume.
        SegmentNotFoundError: The segment was not found.
        DatasetError: The data cannot be read.
    """
    extent = Extent(info.name, place.layers.resolution, place.resolution, place.bounds)
    target = read_target(text, extent)
    if target.point is None:
        only, instead = target.segments[0], ""
        if isinstance(place, GraphSource):
            only, instead = place.latest(only)
        words = f"{_taken(target)} {instead}".rstrip()
        return Arrival(locate(place, info, only), only, target.site, words)
    segment, more = _choose(target, target.point, place)
    return Arrival(target.point, segment, target.site, f"{_taken(target)}{more}")


def locate(place: Place, info: DatasetInfo, segment: SegmentId) -> PointNm:
    """A point inside a segment.

    Raises:
        SegmentNotFoundError: It was not found.
        DatasetError: The data cannot be read.
    """
    if (found := place.locate(segment)) is None:
        raise SegmentNotFoundError(
            f"Segment {segment} was not found in {info.name}: it is not in this version "
            f"({info.version}), or too small to be found in some seconds. Give a point of it as "
            f"well: x, y, z segment {segment}."
        )
    return found


def _taken(target: Target) -> str:
    return f"Taken as {target.words}."


def _choose(target: Target, point: PointNm, place: Place) -> tuple[SegmentId | None, str]:
    """Which segment to ask about, and words for it."""
    if len(target.segments) == 1:
        return target.segments[0], ""
    if not target.segments:
        return None, " Point at a segment and press p."
    here, n = place.segment_at(point), len(target.segments)
    if here in target.segments:
        return here, f" {n} segments are selected in it; this is the one at its position."
    return None, (
        f" None of the {n} segments that it selects lies at its position: point at one and press p."
    )


# -- links


def share_own(screen: Screen, info: DatasetInfo, origin: str, camera: PointNm | None) -> SharedLink:
    """A link of ours to the selected suggestion, or to where the camera is.

    Args:
        screen: What is on screen.
        info: Of the dataset.
        origin: Scheme, host and port under which the browser reaches this server.
        camera: The middle of the viewer, if it is known.

    Raises:
        BadRequestError: There is nothing to link to.
    """
    found = screen.list
    if found is None:
        link = OwnLink(_needed(camera), dataset=info.name)
    else:
        link = OwnLink(found.at, found.segment, screen.selected, info.name)
    return SharedLink(
        own_link(origin, link),
        "Link copied. It opens on this machine while cb2-assist serves this dataset, in a browser "
        "that was let in with the printed address.",
    )


def share_neuroglancer(
    screen: Screen, place: Place, origin: str, camera: PointNm | None
) -> SharedLink:
    """A link for an ordinary Neuroglancer to the selected suggestion, or to where the camera is.

    Args:
        screen: What is on screen.
        place: The dataset.
        origin: Scheme, host and port under which the browser reaches this server.
        camera: The middle of the viewer, if it is known.

    Raises:
        BadRequestError: There is nothing to link to.
    """
    layers, found, chosen = place.layers, screen.list, screen.selected_suggestion
    colours: dict[SegmentId, str] = {}
    asked, site = None, None
    if chosen is not None:
        at = chosen.site.point
        site = (chosen.id, f"{describe(chosen)}: {chosen.reason}")
        colours[chosen.site.segment] = SEGMENT_COLOUR
        if chosen.site.partner is not None:
            colours[chosen.site.partner] = PARTNER_COLOUR
    elif found is not None:
        at = found.at
        colours[found.segment] = SEGMENT_COLOUR
    else:
        at = _needed(camera)
    if found is not None:
        asked = found.at
    em, seg = source_url(layers.em, origin), layers.shared_seg or source_url(layers.seg, origin)
    link = write_link(Shown(em, seg, layers.resolution, at, colours, asked, site))
    if layers.roots:
        text = (
            "Neuroglancer link copied. The dataset lies on this machine, so the link shows it only "
            "here while cb2-assist runs: paste it into this page (/)."
        )
    else:
        text = "Neuroglancer link copied: it shows this place to everybody who may see the data."
    return SharedLink(link, text)


def _needed(camera: PointNm | None) -> PointNm:
    if camera is None:
        raise BadRequestError("There is nothing on screen to link to yet. Press p on a segment.")
    return camera
