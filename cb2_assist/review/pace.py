"""A gentle word where answers come faster than anybody can look, or the same one runs long.

Two rules, both over the answers of this session (a skip or a flag is none, scripts give none):

- `HASTY` of the last `HASTY_OF` answers came within `HASTY_S` of their suggestion being shown;
- the same answer came `LONG_RUN` times or more in a row, and fewer than one in a hundred series of
  answers with the person's own earlier share of it would have a run as long (`report_times`). The
  share is (k + 1) / (n + 2) of the n answers before the run: whoever goes through sites that are
  nearly all wrong rejects many in a row and is left in peace.

After a word, the next `PAUSE` answers bring none.
"""

from __future__ import annotations

from collections import deque

from cb2_assist.core.records import Verdict
from cb2_assist.learning.report_times import HASTY_S, ODD_RUN

HASTY, HASTY_OF = 6, 8
LONG_RUN = 20
PAUSE = 40
_WORDS = {Verdict.ACCEPT: "accepts", Verdict.REJECT: "rejects"}


class Pace:
    """Follows one person's answers."""

    def __init__(self) -> None:
        """Nothing was answered yet."""
        self._fast: deque[bool] = deque(maxlen=HASTY_OF)
        self._before: dict[Verdict, int] = {}
        self._run: tuple[Verdict | None, int] = (None, 0)
        self._quiet = 0

    def note(self, verdict: Verdict, shown_ms: float) -> str:
        """Take notice of an answer; what to say about it, mostly nothing.

        Args:
            verdict: The answer; *none* counts as a reject.
            shown_ms: How long its suggestion had been the selected one.
        """
        if not verdict.is_answer:
            return ""
        self._fast.append(shown_ms < 1000 * HASTY_S)
        answer = Verdict.REJECT if verdict is Verdict.NONE else verdict
        last, n = self._run
        if answer is not last:
            if last is not None:
                self._before[last] = self._before.get(last, 0) + n
            n = 0
        self._run = answer, n + 1
        if self._quiet:
            self._quiet -= 1
            return ""
        words = self._word()
        if words:
            self._quiet = PAUSE
        return words

    def _word(self) -> str:
        if sum(self._fast) >= HASTY:
            return (
                f"{sum(self._fast)} of your last {len(self._fast)} answers came within "
                f"{HASTY_S:.0f} s: is there time to look?"
            )
        verdict, n = self._run
        if verdict in _WORDS and n >= LONG_RUN and self._is_odd(verdict, n):
            return (
                f"{n} {_WORDS[verdict]} in a row, more than your earlier answers would make "
                "likely: still looking at each?"
            )
        return ""

    def _is_odd(self, verdict: Verdict, n: int) -> bool:
        before = sum(self._before.values())
        share = (self._before.get(verdict, 0) + 1) / (before + 2)
        return ((before + n) * (1 - share) + 1) * share**n < ODD_RUN
