"""The server on the toy volume as a process: ``toy_server.py DATA LABELS [PORT]``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from page_fakes import INFO, ToyAssistant

from cb2_assist.core.geometry import PointNm
from cb2_assist.decisions.log import DecisionLog
from cb2_assist.labels.store import labels_url, open_store
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.server.serve import Options, serve
from cb2_assist.viewer.mount import ViewerMount
from cb2_assist.viewer.scene import Scene

USER = "tester"


def main() -> None:
    data, labels = Path(sys.argv[1]), Path(sys.argv[2])
    port = int(sys.argv[3]) if len(sys.argv) > 3 else None
    assistant = ToyAssistant(data)
    mount = partial(ViewerMount, Scene(assistant.source.layers, PointNm(480, 480, 480), 1500.0))
    with open_store(labels_url(labels)) as store:
        serve(
            assistant,
            DecisionLog(store, user=USER, dataset=INFO.name, version=INFO.version),
            ViewsStore(store.views_folder),
            mount,
            queue=store.queue,
            options=Options(user=USER, port=port, state_path=labels.with_suffix(".json")),
            on_ready=lambda url: print(f"cb2-assist: serving toy at {url}", flush=True),
        )


if __name__ == "__main__":
    main()
