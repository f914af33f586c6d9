"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

from cb2_assist.cli.output import tell
from cb2_assist.core.errors import AssistError, LoginError, UsageError
from cb2_assist.core.geometry import PointNm
from cb2_assist.core.records import Kind, SegmentId, segment_id
from cb2_assist.settings import BACKENDS

if TYPE_CHECKING:
    from cb2_assist.app import DatasetChoice
    from cb2_assist.assistant import Assistant
    from cb2_assist.datasets.source import Source

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class Numbers(click.ParamType[tuple[float, ...]]):
    """So many numbers, separated by commas or spaces."""

    words: ClassVar[str]
    """How many, and what they are called."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """As many numbers as the name has parts; ``nan`` and ``inf`` pass."""
        if isinstance(value, tuple):
            return value
        try:
            got = tuple(float(v) for v in str(value).replace(",", " ").split())
        except ValueError:
            got = ()
        if len(got) != len(self.name.split(",")):
            self.fail(f"{value!r} is not {self.words} {self.name.upper()}", param, ctx)
        return got


class Triple(Numbers):
    """``X,Y,Z``."""

    name = "x,y,z"
    words = "three numbers"


class Pair(Numbers):
    """``LO,HI``."""

    name = "lo,hi"
    words = "two numbers"


class SegmentIdType(click.ParamType[SegmentId]):
    """A decimal 64-bit id."""

    name = "id"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> SegmentId:
        """Digits only."""
        try:
            return segment_id(value)
        except AssistError as e:
            self.fail(str(e), param, ctx)


class UserName(click.ParamType[str]):
    """A name that labels can carry."""

    name = "name"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """One line of printable text; empty means the login name."""
        text = str(value)
        if not text.isprintable():  # nor are bytes that are no text in the terminal's encoding
            self.fail(f"{text!r} is not one line of printable text", param, ctx)
        return text


class Device(click.ParamType[str]):
    """Where a network runs; whether that is there is found out when it is loaded."""

    name = "device"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
        text = str(value)
        if re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", text) is None:
            self.fail(f"{text!r} is not auto, cpu, cuda or cuda:N", param, ctx)
        return text


def dataset_options(command: F) -> F:
    """``--dataset`` and ``--dataset-file``, one of which is needed."""
    command = click.option(
        "--dataset-file",
        type=click.Path(path_type=Path),
        help="Your own dataset: as import-volume writes it, or any address or CAVE datastack.",
    )(command)
    return click.option("--dataset", metavar="NAME", help="A known dataset; see `datasets`.")(
        command
    )


class Backend(click.ParamType[str]):
    """What runs the network on the CPU; whether that is there is found out when it is loaded."""

    name = "backend"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """``auto`` or one of `settings.BACKENDS`."""
        text = str(value)
        if text not in ("auto", *BACKENDS):
            self.fail(f"{text!r} is none of auto, {', '.join(BACKENDS)}", param, ctx)
        return text


def backend_option(command: F) -> F:
    """``--backend``."""
    return click.option(
        "--backend",
        type=Backend(),
        default="auto",
        show_default=True,
        metavar="NAME",
        help=f"What runs the network: auto (the fastest that is installed), {', '.join(BACKENDS)}.",
    )(command)


device_option = click.option(
    "--device",
    type=Device(),
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:n]",
    help="Where the network runs.",
)
model_option = click.option(
    "--model", type=click.Path(path_type=Path), help="Model folder instead of the shipped one."
)
labels_option = click.option("--labels", metavar="URL", help="Default: the dataset's label file.")
kind_option = click.option(
    "--kind", type=click.Choice([k.value for k in Kind]), help="Only this question."
)
names_option = click.option("--with-names", is_flag=True, help="User names instead of pseudonyms.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


def unit_option(of: str) -> Callable[[F], F]:
    """``--unit`` of the options that are named."""
    return click.option(
        "--unit",
        type=click.Choice(["nm", "voxel"]),
        default="nm",
        show_default=True,
        help=f"Of {of}.",
    )


def model_options(command: F) -> F:
    """``--model``, ``--device`` and ``--backend``."""
    return model_option(device_option(backend_option(command)))


px_option = click.option(
    "--px", type=click.IntRange(14), default=112, show_default=True, help="Image size; divides 224."
)
amp_option = click.option(
    "--amp",
    type=click.Choice(["off", "bf16"]),
    default="off",
    show_default=True,
    help="bf16: run the network in bfloat16.",
)
minutes_option = click.option(
    "--minutes", type=float, default=600.0, show_default=True, help="Stop then; resumable."
)


def chosen(dataset: str | None, dataset_file: Path | None) -> DatasetChoice:
    """The dataset that was asked for.

    Raises:
        UsageError: None or two were named.
    """
    from cb2_assist.app import DatasetChoice

    if (dataset is None) == (dataset_file is None):
        raise UsageError(
            "Name one dataset: --dataset NAME (cb2-assist datasets lists them) or --dataset-file "
            "FILE.toml."
        )
    return DatasetChoice(dataset, dataset_file)


def open_assistant(
    dataset: str | None,
    dataset_file: Path | None,
    model: Path | None,
    device: str,
    backend: str,
    threads: int | None = None,
    *,
    soon: bool = False,
) -> Assistant:
    """Build the assistant that the options describe."""
    choice = chosen(dataset, dataset_file)
    from cb2_assist.app import build_assistant

    def build() -> Assistant:
        return build_assistant(
            choice, model=model, device=device, backend=backend, threads=threads, soon=soon
        )

    return with_login(build)


def with_login(build: Callable[[], T]) -> T:
    """What ``build`` opens; who sits at the terminal is asked for a token that it lacks."""
    try:
        return build()
    except LoginError as e:
        if not _ask_for_token(e):
            raise
    return build()


def _ask_for_token(error: LoginError) -> bool:
    """Ask who sits at the terminal for the token that a server wants; whether one was kept."""
    from cb2_assist.datasets.cave.login import TOKEN_VARIABLE, save_token

    asked = error.reason in ("missing", "invalid") and error.server
    # a token in the environment goes before one that is kept
    if not asked or os.environ.get(TOKEN_VARIABLE) or not sys.stdin.isatty():
        return False
    tell(error)
    tell(f"your token stands on {error.page}")
    text = click.prompt("Token (not shown)", hide_input=True, default="", err=True)
    if not text.strip():
        return False
    path = save_token(error.server, text)
    tell(f"kept in {path}, where caveclient finds it too")
    return True


def point_nm(at: tuple[float, float, float], unit: str, source: Source) -> PointNm:
    """A point as given on the command line.

    ``voxel`` counts voxels of the resolution that the viewer shows; see `goto.viewer_point`.
    """
    if unit == "nm":
        return PointNm.of(at)
    from cb2_assist.review.goto import viewer_point

    return viewer_point(at, source.layers.resolution)
