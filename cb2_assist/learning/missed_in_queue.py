"""How many errors a part of the queue still holds, by kind."""

from __future__ import annotations

from typing import Any

from cb2_assist.core.records import Kind, Verdict
from cb2_assist.labels.queue_store import QueueStore, Scope
from cb2_assist.learning.missed import RandomDraw, advice, remaining

_POINTS = 10
"""Of a history."""


def missed_in(
    queue: QueueStore, scope: Scope, *, now: float, with_history: bool = False
) -> dict[str, Any]:
    """Estimate, interval and stop rule of a scope, as in `queue status --json`.

    Only draws since a site was last added count: before, they were drawn from fewer. A draw whose
    site was skipped, left unsure or undone says nothing.

    Args:
        queue: To look into.
        scope: Sites that are drawn from together.
        now: Unix time.
        with_history: Also tell what could be said after fewer random answers.
    """
    since = queue.last_added(scope)
    drawn = [d for d in queue.drawn_at_random(scope) if since is not None and d.at >= since]
    answers = {a.site: a for a in queue.answered(scope)}
    waiting = queue.waiting(scope, now=now)
    out: dict[str, Any] = {}
    for kind in Kind:
        accepted = sorted(
            a.at for a in answers.values() if a.kind is kind and a.verdict is Verdict.ACCEPT
        )
        draws = [
            RandomDraw(
                d.n_open,
                sum(at < d.at for at in accepted),
                answers[d.site].kind is kind and answers[d.site].verdict is Verdict.ACCEPT,
            )
            for d in drawn
            if d.site in answers and answers[d.site].at >= d.at
        ]
        n_open = sum(w.kind is kind for w in waiting)
        out[kind.value] = {
            **remaining(draws, len(accepted), n_open).to_json(),
            "found": len(accepted),
            "stop": advice(draws, len(accepted), n_open).to_json(),
        }
        if with_history:
            out[kind.value]["history"] = _history(draws)
    return out


def _history(draws: list[RandomDraw]) -> list[dict[str, Any]]:
    """What was found and left after some of the random answers, as it could be said then."""
    parts = min(_POINTS, len(draws))
    out = []
    for k in range(1, parts + 1):
        some = draws[: round(len(draws) * k / parts)]
        found = some[-1].found_before + some[-1].is_true
        left = remaining(some, found, some[-1].n_open - some[-1].is_true).to_json()
        out.append({**left, "found": found})
    return out
