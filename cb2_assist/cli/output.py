"""What commands print: remarks on stderr, and a result on stdout as JSON or as lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click


def tell(text: object) -> None:
    """A remark that does not belong to the result."""
    click.echo(f"cb2-assist: {text}", err=True)


def show(document: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """The result: one document, or the lines that say the same to a person."""
    if as_json:
        click.echo(json.dumps(document, allow_nan=False))
        return
    for line in lines:
        click.echo(line)
