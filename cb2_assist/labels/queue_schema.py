"""Tables of the queue in a label file.

``queue_items`` says what is asked and who has it; ``queue_draws``, ``queue_trail`` and
``queue_asks`` (sites that want the answers of several people) only grow. Whether a site is decided,
implied or skipped is worked out from the label events in ``queue_states``.
"""

from __future__ import annotations

_FILLS = """
CREATE TABLE queue_fills (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  scope TEXT NOT NULL,
  kind TEXT NOT NULL,
  judge TEXT NOT NULL,
  done INTEGER NOT NULL,
  total INTEGER NOT NULL,
  updated_at REAL NOT NULL,
  UNIQUE (dataset, version, scope, kind)
)"""

_ITEMS = """
CREATE TABLE queue_items (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  site TEXT NOT NULL,
  kind TEXT NOT NULL,
  segment TEXT NOT NULL,
  partner TEXT,
  x_nm REAL NOT NULL,
  y_nm REAL NOT NULL,
  z_nm REAL NOT NULL,
  reason TEXT NOT NULL,
  prior REAL,
  joint TEXT,
  score REAL NOT NULL,
  confidence REAL NOT NULL,
  low REAL NOT NULL,
  high REAL NOT NULL,
  ood REAL NOT NULL,
  is_ood INTEGER NOT NULL,
  base_rate REAL NOT NULL,
  model_sha256 TEXT NOT NULL,
  calibrator TEXT NOT NULL,
  fill INTEGER NOT NULL REFERENCES queue_fills (id),
  added_at REAL NOT NULL,
  scored_at REAL NOT NULL,
  stale TEXT,
  lease_user TEXT,
  lease_until REAL,
  lease_draw INTEGER REFERENCES queue_draws (id),
  UNIQUE (dataset, version, site)
)"""

_DRAWS = """
CREATE TABLE queue_draws (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  user TEXT NOT NULL,
  number INTEGER NOT NULL,
  scope TEXT NOT NULL,
  strategy TEXT NOT NULL,
  floor REAL NOT NULL,
  seed INTEGER NOT NULL,
  n_open INTEGER NOT NULL,
  place INTEGER NOT NULL,
  explore INTEGER NOT NULL,
  probability REAL NOT NULL,
  site TEXT NOT NULL,
  UNIQUE (dataset, version, user, number)
)"""

_TRAIL = """
CREATE TABLE queue_trail (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  item INTEGER NOT NULL REFERENCES queue_items (id),
  what TEXT NOT NULL CHECK (what IN ('leased', 'released', 'stale', 'found')),
  user TEXT,
  detail TEXT NOT NULL
)"""

# a join between two segments may be at an end of either; a fill sees one after the other
_ENDS = """
CREATE TABLE queue_ends (
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  site TEXT NOT NULL,
  joint TEXT NOT NULL,
  PRIMARY KEY (dataset, version, site, joint)
) WITHOUT ROWID"""

# a skip is no answer: it sends a site to the next round
_STATES = """
CREATE VIEW queue_states AS
SELECT q.*,
  EXISTS (
    SELECT 1 FROM event_sites s JOIN decisions_in_force d ON d.id = s.event_id
    WHERE s.dataset = q.dataset AND s.version = q.version AND s.site = q.site AND s.is_answer = 1
  ) AS is_decided,
  EXISTS (
    SELECT 1 FROM queue_ends mine
    JOIN queue_ends r ON r.dataset = mine.dataset AND r.version = mine.version
      AND r.joint = mine.joint AND r.site <> mine.site
    JOIN current_labels a ON a.dataset = r.dataset AND a.version = r.version AND a.site = r.site
    WHERE mine.dataset = q.dataset AND mine.version = q.version AND mine.site = q.site
      AND a.verdict = 'accept'
  ) AS is_implied,
  (
    SELECT count(*) FROM event_sites s JOIN decisions_in_force d ON d.id = s.event_id
    WHERE s.dataset = q.dataset AND s.version = q.version AND s.site = q.site AND s.is_answer = 0
  ) AS skips
FROM queue_items q"""


def _only_grows(table: str) -> tuple[str, ...]:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} only grows'); END"
    return (
        f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}",
    )


QUEUE_STATEMENTS: tuple[str, ...] = (
    _FILLS,
    _DRAWS,
    _ITEMS,
    _TRAIL,
    _ENDS,
    "CREATE INDEX queue_items_by_segment ON queue_items (dataset, version, segment)",
    "CREATE INDEX queue_items_by_partner ON queue_items (dataset, version, partner)",
    "CREATE INDEX queue_ends_by_joint ON queue_ends (dataset, version, joint)",
    "CREATE INDEX queue_items_by_lease ON queue_items (lease_user) WHERE lease_user IS NOT NULL",
    _STATES,
    *_only_grows("queue_draws"),
    *_only_grows("queue_trail"),
)
"""One migration's worth."""


_ASKS = """
CREATE TABLE queue_asks (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  site TEXT NOT NULL,
  source TEXT NOT NULL CHECK (source <> ''),
  people INTEGER NOT NULL CHECK (people > 0),
  after_event INTEGER NOT NULL,
  not_of TEXT NOT NULL
)"""

_OPEN_ASKS = """
CREATE VIEW queue_open_asks AS
SELECT a.* FROM queue_asks a
WHERE a.people > (
  SELECT count(DISTINCT s.user) FROM event_sites s JOIN decisions_in_force d ON d.id = s.event_id
  WHERE s.dataset = a.dataset AND s.version = a.version AND s.site = a.site AND s.is_answer = 1
    AND s.event_id > a.after_event)"""

# what waits for another person is neither decided nor implied, although it has an answer.
# Repeats parts of the view above on purpose: a migration that was released is never changed again.
_STATES_WITH_ASKS = """
CREATE VIEW queue_states AS
SELECT b.*,
  b.has_answer AND NOT b.is_asked AS is_decided,
  b.has_rival AND NOT (b.is_asked AND b.has_answer) AS is_implied
FROM (
  SELECT q.*,
    EXISTS (
      SELECT 1 FROM event_sites s JOIN decisions_in_force d ON d.id = s.event_id
      WHERE s.dataset = q.dataset AND s.version = q.version AND s.site = q.site
        AND s.is_answer = 1
    ) AS has_answer,
    EXISTS (
      SELECT 1 FROM queue_open_asks a
      WHERE a.dataset = q.dataset AND a.version = q.version AND a.site = q.site
    ) AS is_asked,
    EXISTS (
      SELECT 1 FROM queue_ends mine
      JOIN queue_ends r ON r.dataset = mine.dataset AND r.version = mine.version
        AND r.joint = mine.joint AND r.site <> mine.site
      JOIN current_labels a ON a.dataset = r.dataset AND a.version = r.version AND a.site = r.site
      WHERE mine.dataset = q.dataset AND mine.version = q.version AND mine.site = q.site
        AND a.verdict = 'accept'
    ) AS has_rival,
    (
      SELECT count(*) FROM event_sites s JOIN decisions_in_force d ON d.id = s.event_id
      WHERE s.dataset = q.dataset AND s.version = q.version AND s.site = q.site
        AND s.is_answer = 0
    ) AS skips
  FROM queue_items q
) b"""

ASK_STATEMENTS: tuple[str, ...] = (
    "DROP VIEW queue_states",
    _ASKS,
    "CREATE INDEX queue_asks_by_site ON queue_asks (dataset, version, site)",
    *_only_grows("queue_asks"),
    _OPEN_ASKS,
    _STATES_WITH_ASKS,
)
"""One migration's worth."""


# a flag sets a site aside until it is undone or somebody answers
_STATES_WITH_FLAGS = """
CREATE VIEW queue_states AS
SELECT b.*,
  b.has_answer AND NOT b.is_asked AS is_decided,
  b.has_rival AND NOT (b.is_asked AND b.has_answer) AS is_implied,
  b.has_flag AND NOT b.has_answer AS is_flagged
FROM (
  SELECT q.*,
    EXISTS (
      SELECT 1 FROM event_sites s JOIN decisions_in_force d ON d.id = s.event_id
      WHERE s.dataset = q.dataset AND s.version = q.version AND s.site = q.site
        AND s.is_answer = 1
    ) AS has_answer,
    EXISTS (
      SELECT 1 FROM queue_open_asks a
      WHERE a.dataset = q.dataset AND a.version = q.version AND a.site = q.site
    ) AS is_asked,
    EXISTS (
      SELECT 1 FROM queue_ends mine
      JOIN queue_ends r ON r.dataset = mine.dataset AND r.version = mine.version
        AND r.joint = mine.joint AND r.site <> mine.site
      JOIN current_labels a ON a.dataset = r.dataset AND a.version = r.version AND a.site = r.site
      WHERE mine.dataset = q.dataset AND mine.version = q.version AND mine.site = q.site
        AND a.verdict = 'accept'
    ) AS has_rival,
    EXISTS (
      SELECT 1 FROM event_sites s JOIN decisions_in_force d ON d.id = s.event_id
      WHERE s.dataset = q.dataset AND s.version = q.version AND s.site = q.site
        AND s.verdict = 'flag'
    ) AS has_flag,
    (
      SELECT count(*) FROM event_sites s JOIN decisions_in_force d ON d.id = s.event_id
      WHERE s.dataset = q.dataset AND s.version = q.version AND s.site = q.site
        AND s.verdict = 'skip'
    ) AS skips
  FROM queue_items q
) b"""

FLAG_STATEMENTS: tuple[str, ...] = (
    "DROP VIEW queue_states",
    # supervoxels of a graph nearest to the site, on its two sides
    "ALTER TABLE queue_items ADD COLUMN own_part TEXT",
    "ALTER TABLE queue_items ADD COLUMN other_part TEXT",
    _STATES_WITH_FLAGS,
)
"""One migration's worth."""
