"""Opens the labels of a team."""

from __future__ import annotations

from cb2_assist.core.errors import LabelsUnreachableError
from cb2_assist.labels.journal import Journal
from cb2_assist.labels.journaled import JournaledStore
from cb2_assist.labels.postgres import PostgresLabelStore
from cb2_assist.labels.store import LabelStore
from cb2_assist.labels.team_url import TeamUrl, team_url


def journal_of(team: TeamUrl) -> Journal:
    """What is kept on this machine while these labels are out of reach."""
    return Journal(team.home / "journal.sqlite")


def open_team_store(url: str, *, read_only: bool = False) -> LabelStore:
    """See `labels.store.open_store`."""
    if read_only:
        return PostgresLabelStore(url, read_only=True)
    journal = journal_of(team_url(url))
    try:
        store = PostgresLabelStore(url)
    except LabelsUnreachableError as error:
        n = len(journal.waiting())
        if not n:
            raise
        raise LabelsUnreachableError(
            f"{error} {n} verdicts that were given while it was away wait in {journal.path}; they "
            "are delivered at the next start with it."
        ) from error
    try:
        return JournaledStore(store, journal)
    except BaseException:
        store.close()
        raise
