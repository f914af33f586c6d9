"""Who may use the stand-ins of these tests."""

from __future__ import annotations

from cb2_assist.standin.deployment import Account

EDITOR = Account("a1" * 16, user_id="7", name="Ada", affiliation="Lab A")
SECOND = Account("a2" * 16, user_id="8", name="Ben", affiliation="Lab B")
READER = Account("a3" * 16, user_id="9", permissions=frozenset({"view"}))
NEWCOMER = Account("a4" * 16, user_id="10", accepted_terms=False)
