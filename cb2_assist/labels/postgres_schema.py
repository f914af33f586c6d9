"""Tables of a label database on a PostgreSQL server, made from the steps of `labels.schema`.

Step for step the same: a database of schema 7 here and a file of schema 7 hold the same. What was
released before there were databases is made at once, as a file has it after those steps; each later
step is put in PostgreSQL's words when it comes, so that a table is written down once.
"""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from functools import lru_cache
from typing import NamedTuple

from cb2_assist.labels.database import Connection
from cb2_assist.labels.postgres_sql import layout_to_postgres
from cb2_assist.labels.schema import MIGRATIONS
from cb2_assist.labels.schema import migrate as migrate_file

FIRST = 5
"""The oldest schema that a database can have."""

LOCK = 0x43423241
"""Key of the advisory lock of every writer, ``CB2A``: one transaction at a time, as in a file."""

_OURS = (
    "CREATE TABLE next_event (id BIGINT NOT NULL)",
    "INSERT INTO next_event VALUES (1)",
    "CREATE FUNCTION next_event_id() RETURNS BIGINT LANGUAGE sql VOLATILE AS"
    " 'UPDATE next_event SET id = id + 1 RETURNING id - 1'",
    "CREATE FUNCTION text_items(items TEXT) RETURNS TABLE (value TEXT) LANGUAGE sql IMMUTABLE AS"
    " 'SELECT jsonb_array_elements_text(items::jsonb)'",
    "CREATE FUNCTION only_grows() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION '% only grows', TG_TABLE_NAME USING ERRCODE = '23000'; END $$",
)


class Part(NamedTuple):
    """A table, view, index or trigger."""

    kind: str
    name: str
    sql: str
    """For SQLite."""


@lru_cache
def parts(version: int) -> tuple[Part, ...]:
    """What a schema has, each after what it refers to."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        migrate_file(conn, MIGRATIONS[:version])
        found = [
            Part(*row)
            for row in conn.execute(
                "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
                " AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
            )
        ]
    tables = [p for p in found if p.kind == "table"]
    placed: list[Part] = []
    while tables:
        left = {t.name for t in tables}
        ready = [t for t in tables if not (left - {t.name}) & _named_by(t.sql)]
        placed += ready
        tables = [t for t in tables if t not in ready]
    return (*placed, *(p for p in found if p.kind != "table"))


def _named_by(sql: str) -> set[str]:
    return set(re.findall(r"REFERENCES (\w+)", sql))


@lru_cache
def columns(version: int) -> dict[str, tuple[str, ...]]:
    """Columns of each table, the tables in an order in which they can be filled."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        migrate_file(conn, MIGRATIONS[:version])
        return {
            p.name: tuple(
                name for _, name, *_ in conn.execute(f"PRAGMA table_info({p.name})").fetchall()
            )
            for p in parts(version)
            if p.kind == "table"
        }


def schema_version(conn: Connection) -> int:
    """How many steps the database has had; 0 for one that is empty."""
    is_there = conn.execute("SELECT to_regclass('migrations') IS NOT NULL").fetchone()[0]
    if not is_there:
        return 0
    return int(conn.execute("SELECT coalesce(max(version), 0) FROM migrations").fetchone()[0])


def is_foreign(conn: Connection) -> bool:
    """Whether tables with names of ours were made by another program."""
    names = list(columns(len(MIGRATIONS)))
    taken = conn.execute(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = current_schema() AND c.relname IN"
        " (SELECT jsonb_array_elements_text(CAST(? AS jsonb)))",
        (json.dumps(names),),
    ).fetchone()[0]
    if not taken:
        return False
    if conn.execute("SELECT to_regclass('next_event') IS NULL").fetchone()[0]:
        return True
    return schema_version(conn) == 0


def migrate(conn: Connection) -> None:
    """Bring a database up to date, inside a transaction that holds the lock."""
    done = schema_version(conn)
    if done == 0:
        for statement in _OURS:
            conn.execute(statement)
        for part in parts(FIRST):
            for statement in layout_to_postgres(part.sql):
                conn.execute(statement)
        for step in MIGRATIONS[:FIRST]:
            if step.then is not None:
                step.then(conn)
        _record(conn, 0, FIRST)
        done = FIRST
    for step in MIGRATIONS[done:]:
        for sql in step.statements:
            for statement in layout_to_postgres(sql):
                conn.execute(statement)
        if step.then is not None:
            step.then(conn)
    _record(conn, done, len(MIGRATIONS))


def _record(conn: Connection, done: int, now: int) -> None:
    conn.executemany(
        "INSERT INTO migrations (version, name) VALUES (?, ?)",
        [(n, MIGRATIONS[n - 1].name) for n in range(done + 1, now + 1)],
    )


def count_on(conn: Connection) -> None:
    """After rows came with ids of their own: the next ones get larger ones."""
    conn.execute("UPDATE next_event SET id = (SELECT coalesce(max(id), 0) + 1 FROM events)")
    for table, names in columns(len(MIGRATIONS)).items():
        if names[0] == "id" and table != "events":
            conn.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"  # noqa: S608
                " HAVING max(id) IS NOT NULL"
            )
