"""w: a note is typed, recorded, shown; Escape records nothing. Keyboard only."""

from __future__ import annotations

import pytest
from browser_harness import Tab

pytestmark = pytest.mark.browser

FOCUS = "() => document.activeElement === document.querySelector('cb2-note input')"


def test_a_flag_is_typed_recorded_shown_and_undone(tab: Tab) -> None:
    tab.point_at()
    tab.propose()
    chosen = tab.selected_id
    tab.press("w")
    tab.until(FOCUS)
    tab.page.keyboard.type("fdq soma?")
    tab.press("Escape")
    assert not tab.page.locator("cb2-note").is_visible()
    tab.settle()
    assert (tab.verdicts, tab.snapshot["flags"]) == ({}, {}), "letters were no keys"
    assert tab.status == "No flag: nothing was recorded."

    tab.press("w")
    tab.until(FOCUS)
    assert tab.page.locator("cb2-note input").input_value() == ""
    tab.press("Enter")
    assert "needs a note" in tab.status
    tab.page.keyboard.type("is this the soma?")
    tab.press("Enter")
    tab.settle()
    assert tab.status.startswith("Flagged: join of")
    assert tab.selected_id == chosen
    assert (tab.row(chosen)["verdict"], tab.row(chosen)["flag"]) == ("flag", "is this the soma?")
    row = tab.page.locator(f"#option-{chosen}")
    assert "⚑ is this the soma?" in row.inner_text()

    assert tab.decide("f") == chosen, "the keys are the page's again"
    assert tab.row(chosen)["verdict"] == "accept"
    assert "⚑ is this the soma?" in row.inner_text()
    tab.decide("u")
    assert tab.row(chosen)["verdict"] == "flag"
    tab.reload()
    assert tab.row(chosen)["flag"] == "is this the soma?"
    tab.press("u")
    tab.settle()
    assert tab.row(chosen)["flag"] == ""
