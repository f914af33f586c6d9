"""Another model is taken up over the WebSocket while the server runs."""

from __future__ import annotations

from page_fakes import BASE
from page_harness import Page, Served

AT = [480.0, 480.0, 480.0]


def model_of(page: Page) -> str:
    return page.snapshot["list"]["model"]["name"]


def list_by(page: Page, name: str) -> None:
    """Wait for the list that the newly asked model has made."""
    if model_of(page) != name:
        page.until("snapshot", lambda _: model_of(page) == name)


def test_the_next_list_and_its_decisions_are_of_the_model_that_was_taken_up(
    page: Page, served: Served
) -> None:
    assert [m["name"] for m in page.hello["models"]] == ["toy-model"]
    page.ask("propose", at_nm=AT, segment=str(BASE + 13))
    first = page.snapshot["list"]["suggestions"][0]["id"]
    told = page.ask("use_model", folder="/models/new-model")
    assert (told["ok"], told["error"]) == (True, None)
    assert told["text"].startswith("new-model (00000000) answers from now on")
    assert [m["name"] for m in told["data"]["models"] if m["in_use"]] == ["new-model"]
    # the place on screen is asked about again
    list_by(page, "new-model")
    assert page.decide(first)["ok"]
    assert served.log.events[-1].decision.model_name == "new-model"
    # and back
    assert page.ask("use_model", folder="/models/toy-model")["ok"]
    list_by(page, "toy-model")


def test_a_model_that_cannot_be_used_leaves_the_one_before_at_work(
    page: Page, served: Served
) -> None:
    told = page.ask("use_model", folder="/elsewhere")
    assert (told["ok"], told["error"]) == (False, "There is no model at /elsewhere.")
    assert page.snapshot["status"]["text"].startswith("The model stays what it was: There is no")
    assert served.assistant.models == ["toy-model"]
    for folder in ("", " ", 7, ["x"], "a\0b", "x" * 5000):
        assert page.ask("use_model", folder=folder)["error"].startswith("folder must name a model")
    page.ask("propose", at_nm=AT, segment=str(BASE + 13))
    assert model_of(page) == "toy-model"


def test_a_new_calibration_is_taken_up_and_a_doubtful_model_is_said_to_be_one(page: Page) -> None:
    told = page.ask("use_model", folder=None)["text"]
    assert told == "toy-model (00000000) answers with the calibration that is saved now."
    told = page.ask("use_model", folder="/models/worse-model")["text"]
    assert told.endswith("Its card says: worse than what it was made from.")


def test_every_tab_hears_of_the_change_and_only_the_holder_makes_it(
    page: Page, served: Served, loop
) -> None:
    other = Page(served, loop, "tab=other&load=1")
    try:
        refused = other.ask("use_model", folder="/models/new-model")
        assert refused["error"].startswith("NOT done: this session is open in another tab")
        page.ask("use_model", folder="/models/new-model")
        heard = other.until("models")["models"]
        assert [m["name"] for m in heard if m["in_use"]] == ["new-model"]
    finally:
        other.close()
