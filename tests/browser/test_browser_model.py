"""Another model is taken up from the page, with the mouse and the keyboard."""

from __future__ import annotations

import pytest
from browser_harness import Tab

pytestmark = pytest.mark.browser


def use(tab: Tab, folder: str) -> None:
    tab.page.locator("cb2-models input").fill(folder)
    tab.page.keyboard.press("Enter")
    tab.settle()


def test_another_model_is_used_without_a_restart_and_the_one_before_again(listed: Tab) -> None:
    models = listed.page.locator("cb2-models")
    assert models.locator("summary").inner_text() == "answers: toy-model · use another …"
    models.locator("summary").click()
    use(listed, "/elsewhere")
    listed.until("() => cb2.page.status.line.textContent === 'There is no model at /elsewhere.'")
    assert models.locator("summary").inner_text().startswith("answers: toy-model")
    # typed keys are letters of the folder's name here, not verdicts
    assert listed.verdicts == {}
    use(listed, "/models/new-model")
    listed.until("() => cb2.page.view.list?.model.name === 'new-model' && !cb2.page.view.busy_with")
    listed.until("() => !document.querySelector('cb2-models details').open")
    assert models.locator("summary").inner_text().startswith("answers: new-model")
    assert "new-model" in listed.page.locator("cb2-header .model").inner_text()
    models.locator("summary").click()
    models.get_by_role("button", name="toy-model").click()
    listed.until("() => cb2.page.view.list?.model.name === 'toy-model' && !cb2.page.view.busy_with")
    listed.settle()
    assert listed.snapshot["list"]["model"]["name"] == "toy-model"
