"""Folders, browser, port, the unpacked demo."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import webbrowser
from pathlib import Path

from cb2_assist.doctor.report import Check, fail, ok, warn
from cb2_assist.labels.inspect import existing_parent
from cb2_assist.server.browser import has_display

_ROOM_BYTES = 2**30


def check_folder(name: str, folder: Path, advice: str) -> Check:
    """Whether a folder, or what is above one that will be made, can be written and has room."""
    place = folder if folder.is_dir() else existing_parent(folder / "x")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as e:
        return fail(name, f"{place} cannot be written: {e.strerror}", advice)
    free = shutil.disk_usage(place).free
    text = f"{folder}, {free / 2**30:.1f} GiB free"
    if free < _ROOM_BYTES:
        return warn(name, text, f"Make room: at least {_ROOM_BYTES // 2**30} GiB is wise.")
    return ok(name, text, free_bytes=free)


def check_browser() -> Check:
    """Whether the page can be opened from here."""
    advice = (
        "Open the address that serve prints, from another machine after ssh -L PORT:127.0.0.1:PORT."
    )
    if not has_display():
        return warn("browser", "there is no display here, so none is opened", advice)
    try:
        found = webbrowser.get()
    except webbrowser.Error:
        return warn("browser", "no browser was found", advice)
    return ok("browser", getattr(found, "name", "") or type(found).__name__)


def check_port(last: int | None, holder_url: str | None) -> Check:
    """Whether the port that an open tab or an ssh forward expects can be had.

    Args:
        last: Port that was used last with the label file; None when there was none.
        holder_url: Address of the server that uses the label file now, if one does.
    """
    if holder_url and last is not None and f":{last}/" in holder_url:
        return ok("port", f"{last}, in use by the cb2-assist server of these labels")
    with socket.socket() as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", last or 0))
        except OSError as e:
            return warn(
                "port",
                f"{last}, used last time, cannot be had now: {e.strerror}",
                "Stop the program that has it, or forward the port that serve prints.",
            )
    return ok("port", f"{last}, as last time, is free" if last else "a free one will be chosen")


def check_demo(cache: Path) -> Check:
    """Whether the demo is shipped whole, and unpacked already."""
    from cb2_assist.datasets.demo import unpacked_already

    found = unpacked_already(cache)
    if found is None:
        return ok("demo", "shipped; unpacked when it is opened for the first time (200 MB, 10 s)")
    return ok("demo", f"unpacked in {found.parent}")
