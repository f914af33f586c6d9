"""Colours that the viewer, the page and the pictures of the views share."""

from __future__ import annotations

SEGMENT_COLOUR = "#ff8c00"
PARTNER_COLOUR = "#1e90ff"
PREVIEW_COLOUR = "#3ddc84"
"""Orange and blue stay apart for every common colour blindness; green is for "as one"."""
