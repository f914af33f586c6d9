"""Edits in a team's database: the contract, and tables that only grow."""

from __future__ import annotations

import pytest
from contracts.edit_store import EditStoreContract, edit
from contracts.reopening import reopening

from cb2_assist.core.errors import LabelError
from cb2_assist.labels.postgres import PostgresLabelStore


class TestPostgresEdits(EditStoreContract):
    @pytest.fixture
    def reopen(self, postgres):
        url = postgres.url(postgres.new_schema())
        with reopening(lambda: PostgresLabelStore(url)) as again:
            yield again


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE edits SET kind = 'cut'",
        "DELETE FROM edits",
        "UPDATE edit_steps SET state = 'applied'",
        "DELETE FROM edit_steps",
    ],
)
def test_what_was_kept_of_an_edit_is_never_changed(postgres, change):
    with PostgresLabelStore(postgres.url(postgres.new_schema())) as store:
        kept = store.edits.add(edit(0))
        with pytest.raises(LabelError):
            store.write(lambda conn: conn.execute(change))

        assert store.edits.get(kept.edit.key) == kept
