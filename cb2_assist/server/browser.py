"""Opens the page in the browser without showing its token to other users of the machine.

A browser's command line stands in the process list, which everybody reads. So the browser is given
the name of a file that only its owner can read, and the file sends it on to the address.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path

from cb2_assist.labels.filesystem import make_private_folder

PATIENCE_S = 60.0
"""How long a browser may take to come; then the file goes and the person is told."""
_STALE_S = 600.0
_PREFIX = "open-"

_PAGE = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<title>cb2-assist</title>
<script>location.replace({script})</script>
<noscript><meta http-equiv="refresh" content="0;url={attribute}"></noscript>
<a href="{attribute}">cb2-assist</a>
"""


class BrowserOpening:
    """One attempt to bring a browser to the page."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        """Prepare.

        Args:
            folder: For the file, made when needed. Not /tmp: browsers in a sandbox have their own.
            say: Told what the person should do when no browser comes.
        """
        self._folder = folder
        self._say = say
        self._file: Path | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(PATIENCE_S, self._give_up)
        self._timer.daemon = True

    def start(self, address: str) -> None:
        """Ask the system for a browser; returns at once, also where one blocks the terminal."""
        if not has_display():
            self._say(
                "there is no display here, so no browser was opened; open the address above, from "
                "another machine after ssh -L PORT:127.0.0.1:PORT HOST"
            )
            return
        try:
            self._file = write_redirect(self._folder, address)
        except OSError as e:
            self._say(f"no browser was opened ({e}); open the address above")
            return
        self._timer.start()
        threading.Thread(
            target=self._open, args=(self._file.as_uri(),), name="open-browser", daemon=True
        ).start()

    def arrived(self) -> None:
        """A browser is there: the file has done its work."""
        self._timer.cancel()
        self._remove()

    close = arrived

    def _open(self, url: str) -> None:
        opened = False
        with contextlib.suppress(webbrowser.Error, OSError):
            opened = webbrowser.open(url)
        if not opened:
            self.arrived()
            self._say("no browser could be opened; open the address above")

    def _give_up(self) -> None:
        if self._remove():
            self._say(
                "no browser has come. One in a sandbox (snap, flatpak) may not read the file that "
                f"leads it here, below {self._folder}; open the address above in it instead"
            )

    def _remove(self) -> bool:
        with self._lock:
            file, self._file = self._file, None
        if file is None:
            return False
        with contextlib.suppress(OSError):
            file.unlink()
        return True


def write_redirect(folder: Path, address: str) -> Path:
    """A new file of mode 0600 that sends a browser on to the address.

    Files that a killed server left behind are removed.

    Raises:
        OSError: The folder cannot be written.
    """
    make_private_folder(folder)
    for old in folder.glob(f"{_PREFIX}*.html"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > _STALE_S:
                old.unlink()
    handle, name = tempfile.mkstemp(dir=folder, prefix=_PREFIX, suffix=".html")
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        # in a script, text may not hold the end of that script
        script = json.dumps(address).replace("<", "\\u003c")
        out.write(_PAGE.format(script=script, attribute=html.escape(address)))
    return Path(name)


def has_display() -> bool:
    """Whether a browser window can be shown; one in the terminal would only be in the way."""
    if not sys.platform.startswith("linux") or os.environ.get("BROWSER"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
