"""Finds `static/` and `models/`: inside the package in a wheel, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

from cb2_assist.core.errors import AssistError

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(name: str) -> Path:
    """Folder of shipped files.

    Args:
        name: ``static`` or ``models``.

    Raises:
        AssistError: The installation is incomplete.
    """
    for parent in (_PACKAGE, _PACKAGE.parent):
        folder = parent / name
        # an empty cb2_assist/models left by a tool must not hide the checkout's folder
        if folder.is_dir() and any(folder.iterdir()):
            return folder
    raise AssistError(
        f"The folder {name!r} is missing from this installation (looked in {_PACKAGE} and "
        f"{_PACKAGE.parent}). Install cb2-assist again."
    )
