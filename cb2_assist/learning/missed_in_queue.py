"""How many errors a part of the queue still holds, by kind."""

from __future__ import annotations

from typing import Any

from cb2_assist.core.records import Kind, Verdict
from cb2_assist.labels.queue_store import QueueStore, Scope
from cb2_assist.learning.missed import RandomDraw, advice, remaining


def missed_in(queue: QueueStore, scope: Scope, *, now: float) -> dict[str, Any]:
    """Estimate, interval and stop rule of a scope, as in `queue status --json`.

    Only draws since a site was last added count: before, they were drawn from fewer. A draw whose
    site was skipped, left unsure or undone says nothing.

    Args:
        queue: To look into.
        scope: Sites that are drawn from together.
        now: Unix time.
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
    return out
