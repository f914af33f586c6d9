"""A team at the page: people on one database, and what a page does while it is out of reach."""

from __future__ import annotations

import pytest
from test_walk import BOX, World

from cb2_assist.core.errors import LabelsUnreachableError
from cb2_assist.core.records import Verdict
from cb2_assist.labels.journal import Journal
from cb2_assist.labels.journaled import JournaledStore
from cb2_assist.labels.postgres import PostgresLabelStore

NEVER_S = 3600.0


@pytest.fixture
def url(postgres) -> str:
    return postgres.url(postgres.new_schema())


@pytest.fixture
def person(url, tmp_path):
    """Makes a page of a person, with a connection and a journal of their own."""
    worlds = []

    def made(user: str) -> World:
        journal = Journal(tmp_path / user / "journal.sqlite")
        store = JournaledStore(PostgresLabelStore(url), journal, retry_s=NEVER_S)
        (tmp_path / user).mkdir(exist_ok=True)
        worlds.append(World(tmp_path / user, user, store))
        return worlds[-1]

    yield made
    for world in worlds:
        world.stop()
        world.store.close()


def test_two_people_get_different_sites_and_see_what_the_other_decided(person) -> None:
    ada, bob = person("ada"), person("bob")
    ada.fill()
    ada.q()
    bob.q()
    assert ada.site != bob.site
    ada.decide()
    first = ada.mark
    assert bob.states()["decided"] == 1
    for _ in range(2):
        bob.q()
        assert bob.site not in (None, first)
    assert ada.store.verify() == []


def test_the_page_goes_on_while_the_labels_are_out_of_reach(person, postgres) -> None:
    ada = person("ada")
    ada.fill()
    ada.q()
    site = ada.session.screen.selected
    with postgres.cut_off():
        ada.decide(Verdict.REJECT)
        status = ada.session.snapshot()["status"]
        assert "1 waiting" in status["text"] or "cannot be reached" in status["text"]
        assert ada.session.screen.verdicts[site] is Verdict.REJECT
        with pytest.raises(LabelsUnreachableError, match="cannot be reached"):
            ada.q()
        ada.session.undo("u")
        assert site not in ada.session.screen.verdicts
        ada.session.redo("r")
        ada.p()
        assert ada.session.screen.suggestions, "p needs no labels"
    assert ada.store.deliver()
    assert ada.session.screen.newest_event == 3
    assert "3 events" in ada.session.snapshot()["status"]["text"]
    ada.q()
    assert ada.site is not None
    assert [e.event for e in ada.store.events()] == ["decision", "undo", "redo"]
    assert BOX.dataset == ada.last_decision().dataset
