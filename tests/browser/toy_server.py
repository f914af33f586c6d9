"""The server on the toy volume as a process.

``toy_server.py DATA LABELS [PORT [WORDS]] [--blind]``

WORDS stands wherever a dataset, a model or a person may bring text of its own.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from page_fakes import INFO, ToyAssistant

from cb2_assist.core.geometry import PointNm
from cb2_assist.datasets.source import DatasetInfo
from cb2_assist.decisions.log import DecisionLog
from cb2_assist.labels.store import labels_url, open_store
from cb2_assist.labels.views_store import ViewsStore
from cb2_assist.server.serve import Options, serve
from cb2_assist.viewer.mount import ViewerMount
from cb2_assist.viewer.scene import Scene

USER = "tester"


class TalkingAssistant(ToyAssistant):
    """Brings the same words with every suggestion."""

    def __init__(self, folder: Path, words: str) -> None:
        super().__init__(folder)
        self.words = words

    def suggest(self, at, segment, kind=None, limit=16):
        made = super().suggest(at, segment, kind, limit)
        spoken = tuple(replace(s, reason=self.words) for s in made.suggestions)
        return replace(made, suggestions=spoken, model_name=self.words, dataset=self.words)


def main() -> None:
    blind = sys.argv.pop() if sys.argv[-1] == "--blind" else ""
    data, labels = Path(sys.argv[1]), Path(sys.argv[2])
    port = int(sys.argv[3]) if len(sys.argv) > 3 else None
    assistant, info, user = ToyAssistant(data), INFO, USER
    if len(sys.argv) > 4:
        user = sys.argv[4]
        info = DatasetInfo(user, user, user, user, user)
        assistant = TalkingAssistant(data, user)
        assistant.info = info
    mount = partial(ViewerMount, Scene(assistant.source.layers, PointNm(480, 480, 480), 1500.0))
    with open_store(labels_url(labels)) as store:
        serve(
            assistant,
            DecisionLog(store, user=user, dataset=info.name, version=info.version),
            ViewsStore(store.views_folder),
            mount,
            queue=store.queue,
            models=assistant,
            options=Options(
                user=user,
                port=port,
                state_path=labels.with_suffix(".json"),
                blind_share=1.0 if blind else 0.0,
            ),
            on_ready=lambda url: print(f"cb2-assist: serving toy at {url}", flush=True),
        )


if __name__ == "__main__":
    main()
