"""Python, packages, shipped files, torch, numba."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from cb2_assist.doctor.report import Check, fail, ok, warn
from cb2_assist.resources import resource_dir

_NEEDED = (3, 11)
_DISTRIBUTION = "cb2-assist"
_TORCH_S = 60.0


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """Python's version."""
    text = f"{platform.python_implementation()} {platform.python_version()} in {sys.prefix}"
    if version < _NEEDED:
        wanted = ".".join(map(str, _NEEDED))
        return fail("python", text, f"Install into Python {wanted} or newer.")
    return ok("python", text)


def check_packages(distribution: str = _DISTRIBUTION) -> Check:
    """Versions of what we need, read without importing any of it."""
    try:
        wanted = [Requirement(r) for r in metadata.requires(distribution) or ()]
    except metadata.PackageNotFoundError:
        return warn(
            "packages",
            "cb2-assist runs from a folder in which it was not installed",
            "Run pip install -e . there, so that what it needs is known.",
        )
    found: dict[str, str] = {}
    wrong = []
    for need in wanted:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found[need.name] = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{need.name} is missing")
            continue
        if not need.specifier.contains(found[need.name], prereleases=True):
            wrong.append(f"{need.name} is {found[need.name]}, {need.specifier} is needed")
    if wrong:
        return fail(
            "packages",
            "; ".join(wrong),
            "Run pip install -U cb2-assist in this environment.",
            **found,
        )
    return ok("packages", f"{len(found)} packages, all in versions that fit", **found)


def check_page() -> Check:
    """The page's files, and the viewer's client."""
    page = resource_dir("static") / "index.html"
    if not page.is_file():
        return fail("page", f"{page} is missing", "Install cb2-assist again.")
    client = metadata.distribution("neuroglancer").locate_file("neuroglancer/static/client")
    if not Path(str(client), "index.html").is_file():
        return fail(
            "page",
            "this neuroglancer came without its browser client",
            "Run pip install --force-reinstall neuroglancer==2.41.2.",
        )
    return ok("page", f"in {page.parent}")


def check_model(folder: Path | None) -> Check:
    """Card and weights fit each other (SHA-256) and this version, of every shipped model."""
    from cb2_assist.model.card import check_card
    from cb2_assist.model.shipped import shipped_models

    cards = [check_card(f) for f in ([folder] if folder else shipped_models())]
    names = " and ".join(f"{c.name}, weights {c.sha256[:12]}" for c in cards)
    return ok("model", f"{names}, in {cards[0].folder.parent}", sha256=cards[0].sha256)


class TorchCheck:
    """Imports torch in a process of its own, beside the other checks: a broken one may crash."""

    name = "torch"

    def __init__(
        self,
        command: tuple[str, ...] = ("-m", "cb2_assist.model.hardware"),
        python: str = sys.executable,
    ) -> None:
        self._failure: OSError | None = None
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [python, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        except OSError as e:
            self._failure = e

    def __call__(self) -> Check:
        """Version, threads and graphics cards."""
        advice = "Run pip install --force-reinstall torch torchvision in this environment."
        if self._failure is not None:
            return fail("torch", f"no process can be started: {self._failure}", advice)
        try:
            out, errors = self._process.communicate(timeout=_TORCH_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return warn(
                "torch",
                f"importing torch takes more than {_TORCH_S:.0f} s",
                "Is the environment on a slow network folder? Put it on a local disk.",
            )
        if self._process.returncode != 0:
            last = (errors.strip().splitlines() or [f"exit status {self._process.returncode}"])[-1]
            return fail("torch", f"torch cannot be imported: {last}", advice)
        facts = json.loads(out.splitlines()[-1])
        where = ", ".join(facts["cuda"]) or "no CUDA device, runs on the CPU"
        return ok("torch", f"{facts['version']}, {facts['threads']} threads, {where}", **facts)


def check_numba() -> Check:
    """Whether compiled code is kept from one start to the next."""
    from cb2_assist.views.jit import cache_folder

    folder = cache_folder()
    if folder is None:
        return warn(
            "numba cache",
            "compiled code cannot be kept: the first p after each start takes some seconds longer",
            "Set NUMBA_CACHE_DIR to a folder that can be written.",
        )
    return ok("numba cache", f"in {folder}")
