"""The PostgreSQL store: the contract, the tables themselves, and other programs."""

from __future__ import annotations

import pytest
from contracts.label_store import LabelStoreContract
from contracts.queue_store import QueueStoreContract

from cb2_assist.labels.postgres import PostgresLabelStore


@pytest.fixture
def schema(postgres) -> str:
    return postgres.new_schema()


@pytest.fixture
def url(postgres, schema: str) -> str:
    return postgres.url(schema)


@pytest.fixture
def store(url: str):
    with PostgresLabelStore(url) as opened:
        yield opened


@pytest.fixture
def reopen(store, url: str):
    opened = []

    def again():
        store.close()
        opened.append(PostgresLabelStore(url))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


class TestPostgresStore(LabelStoreContract):
    @pytest.fixture
    def store(self, url: str):
        with PostgresLabelStore(url) as opened:
            yield opened

    @pytest.fixture
    def reopen(self, reopen):
        return reopen


class TestPostgresQueue(QueueStoreContract):
    @pytest.fixture
    def store(self, url: str):
        with PostgresLabelStore(url) as opened:
            yield opened

    @pytest.fixture
    def reopen(self, reopen):
        return reopen
