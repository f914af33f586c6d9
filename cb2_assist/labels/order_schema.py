"""Tables for the order of a queue: what strategies look at, and which one a part is asked by."""

from __future__ import annotations

_SIGNALS = """
CREATE TABLE queue_signals (
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  site TEXT NOT NULL,
  score REAL NOT NULL,
  contact REAL NOT NULL,
  small REAL NOT NULL,
  big REAL NOT NULL,
  views TEXT NOT NULL,
  embedding BLOB,
  PRIMARY KEY (dataset, version, site)
) WITHOUT ROWID"""

# the newest of a part counts
_ORDERS = """
CREATE TABLE queue_orders (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at REAL NOT NULL,
  dataset TEXT NOT NULL,
  version TEXT NOT NULL,
  scope TEXT NOT NULL,
  strategy TEXT NOT NULL
)"""

ORDER_STATEMENTS: tuple[str, ...] = (
    _SIGNALS,
    _ORDERS,
    "CREATE INDEX queue_orders_by_scope ON queue_orders (dataset, version, scope, id)",
)
"""One migration's worth."""
