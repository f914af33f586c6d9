"""A document that sends the browser on to the page.

A strict cookie is not sent with a navigation that began on another site (a link in a web-based
terminal, one of ours in a note, our own redirect file), nor with a redirect of it. It is sent with
one that a document of ours begins. The script in it also keeps what stands behind ``#``, which no
server sees.
"""

from __future__ import annotations

from html import escape

FORWARD_POLICY = (
    "default-src 'none'; script-src 'self'; frame-ancestors 'self'; base-uri 'none'; "
    "form-action 'none'"
)
"""Content-Security-Policy of the document."""

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>cb2-assist</title>
<script src="static/js/forward.js" data-key="{key}"></script>
<p>Opening cb2-assist … If this stays, this browser was not let in yet, or keeps no cookies of this
address: open the address that cb2-assist printed when it started, which ends in ?token=…, and
then this link again.</p>
</html>
"""


def forwarding_page(key: str = "") -> bytes:
    """The document.

    Args:
        key: The page's key, for a browser that has brought the token; nothing secret without it.
    """
    return _PAGE.format(key=escape(key)).encode()
