"""What must hold in every label database besides what the server checks itself."""

from __future__ import annotations

from collections.abc import Iterator

from cb2_assist.labels.checks import problems_of_events
from cb2_assist.labels.database import Readers
from cb2_assist.labels.postgres_schema import columns, parts
from cb2_assist.labels.postgres_sql import layout_to_postgres


def problems_of_database(readers: Readers) -> Iterator[str]:
    """What is wrong, in words.

    Raises:
        LabelError: The database cannot be read.
    """
    yield from _changed_layout(readers)
    ((n, given),) = readers.rows("SELECT count(*), (SELECT id - 1 FROM next_event) FROM events")
    if n != given:
        yield f"{given - n} of {given} events are missing: the log has a gap or lost its end"
    ((version,),) = readers.rows("SELECT max(version) FROM migrations")
    yield from problems_of_events(readers.stream, version)


def _changed_layout(readers: Readers) -> Iterator[str]:
    """Tables with their columns, views, and the triggers that let the events only grow."""
    ((version,),) = readers.rows("SELECT max(version) FROM migrations")
    found = {
        name
        for (name,) in readers.rows(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = current_schema()"
            " UNION ALL SELECT t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = current_schema() AND t.tgenabled <> 'D'"
        )
    }
    for part in parts(version):
        if layout_to_postgres(part.sql) and part.name not in found:
            yield f"the {part.kind} {part.name} is missing"
    held = set(
        readers.rows(
            "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = current_schema() AND a.attnum > 0 AND NOT a.attisdropped"
        )
    )
    for table, names in columns(version).items():
        for name in names:
            if table in found and (table, name) not in held:
                yield f"the table {table} has lost its column {name}"
