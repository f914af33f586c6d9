"""A label file that a script has opened: the same lock, store and views as a server uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from cb2_assist.core.closing import Closing
from cb2_assist.core.errors import LabelFileReadOnlyError
from cb2_assist.datasets.source import DatasetInfo
from cb2_assist.decisions.log import DecisionLog
from cb2_assist.labels.lock import acquire_server_lock
from cb2_assist.labels.store import Label, LabelStore, label_file, labels_url, open_store
from cb2_assist.labels.team_url import is_team_url
from cb2_assist.labels.views_store import ViewsStore


def open_labels(url: str | Path, *, read_only: bool = False, keep_views: bool = True) -> Labels:
    """Open a label file or a team's labels; a missing file is made unless ``read_only``.

    While a file is open for writing, no server and no other script can write to it, and it cannot
    be opened while a server runs on it: a page would show verdicts that are no longer in force.

        with open_labels("sqlite:///labels.sqlite") as labels:
            assistant.decide(suggestion, "accept", labels=labels)

    Args:
        url: ``sqlite:///relative/path``, ``sqlite:////absolute/path``, a `Path`, or
            ``postgresql://USER@HOST/DATABASE``, the password elsewhere.
        read_only: Read beside a running server; decisions are refused.
        keep_views: Keep what the model saw beside the file, about 0.2 MB a decision.

    Raises:
        UsageError: Not such a URL.
        LabelFileLockedError: A server or another script has it; names its process and page.
        LabelError: The file cannot be used; says why and what to do.
    """
    return Labels(labels_url(url) if isinstance(url, Path) else url, read_only, keep_views)


class Labels(Closing):
    """An open label file; a context manager. Methods may be called from several threads."""

    def __init__(self, url: str, read_only: bool, keep_views: bool) -> None:
        """Open; see `open_labels`."""
        self.read_only = read_only
        with ExitStack() as stack:
            # a team's labels have many writers, and each page looks for what others wrote
            if not read_only and not is_team_url(url):
                what = {"url": "", "what": "script"}
                stack.enter_context(acquire_server_lock(label_file(url), what))
            self._store = stack.enter_context(open_store(url, read_only=read_only))
            self._closing = stack.pop_all()
        self._views = ViewsStore(self._store.views_folder) if keep_views else None
        self._logs: dict[tuple[str, str, str], DecisionLog] = {}

    @property
    def url(self) -> str:
        """Of the file, absolute."""
        return self._store.url

    @property
    def store(self) -> LabelStore:
        """The append-only log itself, e.g. for `cb2_assist.export_labels`."""
        return self._store

    @property
    def views(self) -> ViewsStore | None:
        """Where what the model saw is kept; None when it is not."""
        return self._views

    def __iter__(self) -> Iterator[Label]:
        """Every answer with its state, oldest first."""
        return self._store.labels()

    def log(self, info: DatasetInfo, user: str) -> DecisionLog:
        """One person's decisions on a dataset: decide, undo, redo, what is in force.

        Raises:
            LabelFileReadOnlyError: The file was opened read-only.
        """
        if self.read_only:
            raise LabelFileReadOnlyError(
                f"{self.url} was opened read-only. Nothing was recorded; open it with "
                "read_only=False while no server uses it."
            )
        who = (user, info.name, info.version)
        if who not in self._logs:
            self._logs[who] = DecisionLog(
                self._store, user=user, dataset=info.name, version=info.version
            )
        return self._logs[who]

    def close(self) -> None:
        """Wait for writes in progress and let others have the file. May be called twice."""
        self._closing.close()
