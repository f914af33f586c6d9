"""Opens the labels of a team."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cb2_assist.core.errors import LabelsUnreachableError
from cb2_assist.labels.journal import Journal
from cb2_assist.labels.journaled import JournaledStore
from cb2_assist.labels.postgres import PostgresLabelStore, schema_at
from cb2_assist.labels.store import LabelStore
from cb2_assist.labels.team_url import TeamUrl, team_url


def journal_of(team: TeamUrl) -> Journal:
    """What is kept on this machine while these labels are out of reach."""
    return Journal(team.home / "journal.sqlite")


@dataclass(frozen=True, slots=True)
class TeamFacts:
    """What is known of a team's labels.

    Attributes:
        place: Database and server.
        events: How many they hold; None while the database is empty.
        schema: Version of the tables; 0 while there are none.
        waiting: Events that are kept on this machine for them.
        journal: Where.
        notices: What a person should know of the server.
    """

    place: str
    events: int | None
    schema: int
    waiting: int
    journal: Path
    notices: tuple[str, ...]


def look_at_team(url: str) -> TeamFacts:
    """What is known of a team's labels; changes nothing.

    Raises:
        UsageError: The URL holds a password or cannot be understood.
        LabelError: They cannot be reached or read; says why and what to do.
    """
    team = team_url(url)
    journal = journal_of(team)
    schema = schema_at(team)
    events, notices = None, tuple[str, ...]()
    if schema:
        with PostgresLabelStore(url, read_only=True) as store:
            events, notices = store.count(), store.notices
    waiting = len(journal.waiting())
    return TeamFacts(team.name, events, schema, waiting, journal.path, notices)


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
