"""The one table of reasons that a person gives for a reject or an unsure, each on one key.

The key table has a binding for each, the status line offers them and the stored events name them.
Names are stored for good: add, never rename.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a suggestion was not accepted."""

    name: str
    """As it is stored and exported."""
    key: str
    """The digit that gives it."""

    @property
    def words(self) -> str:
        """For a person; the page derives them alike."""
        return self.name.replace("_", " ")


REASONS: tuple[Reason, ...] = (
    Reason("mitochondrion", "1"),
    Reason("other_neuron", "2"),
    Reason("artefact", "3"),
    Reason("cannot_see", "4"),
)

REASON_NAMES: frozenset[str] = frozenset(reason.name for reason in REASONS)


def reason_offer() -> str:
    """All of them with their keys, for the status line."""
    return "Why? " + ", ".join(f"{reason.key} {reason.words}" for reason in REASONS)
