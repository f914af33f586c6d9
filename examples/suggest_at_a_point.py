"""Suggestions without a browser.

What you will see: one line for each join and cut that the assistant would offer near the middle of
the demo, most confident first, and how long it took.

    python examples/suggest_at_a_point.py
    python examples/suggest_at_a_point.py mydata/dataset.toml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cb2_assist import PointNm, open_assistant
from cb2_assist.core.errors import BackgroundError


def main(arguments: list[str]) -> None:
    """Open a dataset, walk from its middle to the first segment, print what is suggested there."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    ask.add_argument("file", type=Path, nargs="?", help="a dataset.toml (the demo)")
    with open_assistant(ask.parse_args(arguments).file or "demo") as assistant:
        box, voxel = assistant.source.bounds, assistant.source.resolution
        middle = PointNm.of(
            (lo + hi) / 2 * nm for lo, hi, nm in zip(box.lo, box.hi, voxel, strict=True)
        )
        for step in range(40):
            try:
                found = assistant.suggest(PointNm(middle.x + step * voxel.x, middle.y, middle.z))
                break
            except BackgroundError:
                continue
        else:
            sys.exit("no segment near the middle")
    for s in found.suggestions:
        what = f"{s.site.kind} {s.site.segment}" + (
            f" + {s.site.partner}" if s.site.partner else ""
        )
        print(f"{s.confidence:6.1%}  {what}  ({s.reason})")
    print(
        found.note or f"{len(found.suggestions)} suggestions in {found.timing_ms['total']:.0f} ms"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
