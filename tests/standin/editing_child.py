"""A program that sends one staged edit, to be killed while it waits for the answer.

editing_child.py DATASET_FILE LABELS EDIT
"""

from __future__ import annotations

import sys
from pathlib import Path

from cb2_assist.datasets.registry import open_dataset
from cb2_assist.decisions.edits import EditFlow
from cb2_assist.labels.store import labels_url, open_store


def main(dataset: str, labels: str, key: str) -> None:
    """Send it."""
    source = open_dataset(None, Path(dataset))
    store = open_store(labels_url(Path(labels)))
    flow = EditFlow(store.edits, source.editor, user="ada", dataset=source.info.name)
    flow.apply(store.edits.get(key))


main(*sys.argv[1:])
