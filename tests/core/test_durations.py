"""Lengths of time in words."""

from __future__ import annotations

import pytest

from cb2_assist.core.durations import duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (120, "2 min"), (7800, "2.2 h")]
)
def test_durations_are_as_exact_as_estimates_are(seconds: float, text: str) -> None:
    assert duration(seconds) == text
