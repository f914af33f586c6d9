"""`cb2-assist`: the group of commands; without a command it serves."""

from __future__ import annotations

import logging
import os
import sys
import threading
import warnings
from typing import Any, NoReturn

import click

from cb2_assist import __version__
from cb2_assist.cli import (
    agreement,
    calibrate,
    data,
    doctor,
    finetune,
    harvest,
    labels,
    learn,
    pretrain,
    queue,
    report,
    serve,
    shifts,
    simulate,
    standin,
    suggest,
)
from cb2_assist.cli.output import tell
from cb2_assist.core.errors import AssistError
from cb2_assist.core.patience import patience

_GROUP_OPTIONS = ("--help", "-h", "--version")


class ServeByDefault(click.Group):
    """`cb2-assist --dataset demo` means `cb2-assist serve --dataset demo`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `serve` first where the first word is one of its options."""
        if args and args[0].startswith("-") and args[0] not in _GROUP_OPTIONS:
            args = ["serve", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=ServeByDefault,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Without a command, cb2-assist serves: cb2-assist --dataset demo",
)
@click.version_option(__version__, prog_name="cb2-assist")
def cli() -> None:
    """Proofread connectomes from the keyboard: ranked join and cut suggestions in Neuroglancer.

    Points are nm unless --unit voxel. Exit status: 0 done, 1 failed with a reason on stderr,
    2 wrong usage.
    """


_MODULES = (
    serve,
    suggest,
    queue,
    calibrate,
    agreement,
    report,
    data,
    labels,
    learn,
    pretrain,
    finetune,
    simulate,
    shifts,
    doctor,
    standin,
    harvest,
)
for _module in _MODULES:
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit.

    Errors of ours become one line on stderr; anything else is a bug and shows its traceback.
    """
    # neuroglancer's credential code configures logging on import; ours must be there first
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="cb2-assist: %(levelname)s: %(message)s"
    )
    # torch warns while the encoder is exported, in a thread: filters set there are lost when
    # another thread, at its imports, puts back the ones it found
    warnings.filterwarnings("ignore", message=".*might cause the trace to be incorrect")
    try:
        with patience(say=tell):
            result: Any = cli.main(args=argv, prog_name="cb2-assist", standalone_mode=False)
    except serve.Stopped:
        _leave(0, at_once=argv is None)
    except AssistError as e:
        tell(e)
        _leave(e.exit_code, at_once=argv is None and threading.active_count() > 1)
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        tell("stopped")
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)


def _leave(code: int, *, at_once: bool) -> NoReturn:
    """End the process.

    Args:
        code: Exit status.
        at_once: Without taking the interpreter apart. A compiler or a network may still be at work
            in a thread, and would crash the process when its modules are taken away.
    """
    if at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
