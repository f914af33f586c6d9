"""Tables for edits of a graph that wait or were applied."""

from __future__ import annotations

_EDITS = """
CREATE TABLE edits (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE CHECK (key <> ''),
  kind TEXT NOT NULL CHECK (kind IN ('join', 'cut', 'undo', 'redo')),
  user TEXT NOT NULL,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  site TEXT NOT NULL,
  decision_key TEXT NOT NULL,
  body TEXT NOT NULL
)"""

# the newest of an edit counts; two writers cannot both take the same step
_EDIT_STEPS = """
CREATE TABLE edit_steps (
  edit_key TEXT NOT NULL REFERENCES edits (key),
  number INTEGER NOT NULL CHECK (number > 0),
  state TEXT NOT NULL CHECK (state IN ('staged', 'sent', 'unknown', 'applied', 'already',
                                       'refused', 'withdrawn', 'dropped', 'undone')),
  operation TEXT,
  body TEXT NOT NULL,
  PRIMARY KEY (edit_key, number)
)"""

EDIT_STATEMENTS: tuple[str, ...] = (
    _EDITS,
    "CREATE INDEX edits_by_site ON edits (dataset, user, site)",
    "CREATE INDEX edits_by_decision ON edits (decision_key)",
    _EDIT_STEPS,
)
"""One migration's worth; both tables only grow."""

IS_OLD_EDIT = "EXISTS (SELECT 1 FROM edits WHERE key = NEW.key)"
IS_OLD_STEP = (
    "EXISTS (SELECT 1 FROM edit_steps WHERE edit_key = NEW.edit_key AND number = NEW.number)"
)
