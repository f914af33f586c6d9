"""Where shipped files lie, and where goes what can be made again.

`static/` and `models/` are inside the package in a wheel and beside it in a checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

from cb2_assist.core.errors import AssistError

CACHE_VARIABLE = "CB2_ASSIST_CACHE"
_PACKAGE = Path(__file__).resolve().parent


def cache_folder() -> Path:
    """Where unpacked data goes: the variable CB2_ASSIST_CACHE, else the user's cache folder."""
    import platformdirs

    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("cb2-assist")


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
