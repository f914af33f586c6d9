"""A share of the sites whose numbers stay hidden until the answer.

Whoever sees the model's number first tends to follow it. On a share of the sites, chosen by chance
and not by what they are, the page is sent no score, confidence, interval or view score until the
person has answered; the label says so (`Decision.score_hidden`), and `report` and `agreement`
compare answers with and without. The order of the list and that a site was proposed at all still
tell something.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from cb2_assist.core.records import Suggestion, SuggestionList

_NO_OOD = {"percentile": None, "flag": False}


class Blind:
    """Which suggestions one person does not see the numbers of."""

    def __init__(self, share: float, user: str, was_answered: Callable[[str], bool]) -> None:
        """Nothing is kept: the choice follows from the names alone, so a restart changes none.

        Args:
            share: 0..1.
            user: Each person has a choice of their own.
            was_answered: Whether the person has ever answered a suggestion, undone or not: they
                have seen its numbers since.
        """
        self._share, self._user, self._was_answered = share, user, was_answered

    def hidden(self, shown: SuggestionList | None) -> frozenset[str]:
        """Ids of the suggestions of a list whose numbers are hidden now."""
        if shown is None or self._share <= 0:
            return frozenset()
        return frozenset(
            s.id
            for s in shown.suggestions
            if self._is_chosen(shown, s) and not self._was_answered(s.id)
        )

    def _is_chosen(self, shown: SuggestionList, s: Suggestion) -> bool:
        """All joins at one end, or none: they are one question."""
        name = f"blind|{self._user}|{shown.dataset}|{shown.version}|{s.joint or s.id}"
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 < self._share


def without_numbers(document: dict[str, Any], hidden: frozenset[str]) -> dict[str, Any]:
    """A list's document as the page may see it.

    Args:
        document: As `SuggestionList.to_json` writes it.
        hidden: Ids of suggestions whose numbers are left out.
    """
    if not hidden:
        return document
    joint_sets = [
        {**one, "none_of_these": None} if hidden & set(one["members"]) else one
        for one in document["joint_sets"]
    ]
    ends = [one for one in joint_sets if one["joint"] is not None]
    return {
        **document,
        "suggestions": [_bare(s) if s["id"] in hidden else s for s in document["suggestions"]],
        "joint_sets": joint_sets,
        "none_of_these": ends[0]["none_of_these"] if ends else document["none_of_these"],
    }


def _bare(suggestion: dict[str, Any]) -> dict[str, Any]:
    return {
        **suggestion,
        "score": None,
        "confidence": None,
        "interval": None,
        "ood": _NO_OOD,
        "prior": None,
        "evidence": {"views": []},
        "score_hidden": True,
    }
