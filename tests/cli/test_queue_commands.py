"""`queue fill`, `queue status`, `queue next`: documents, exit codes, one-line errors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from label_makers import queue_item
from neurites import DUMBBELL, PARTNER
from test_suggest_and_score import one_line, refused

from cb2_assist.core.records import SegmentId
from cb2_assist.labels.queue_store import Scope
from cb2_assist.labels.store import open_store
from cb2_assist.model.card import check_card
from cb2_assist.model.shipped import shipped_models

pytestmark = pytest.mark.usefixtures("own_data_home")


@pytest.fixture
def where(neurites_file, tiny_model_folder):
    return ["--dataset-file", neurites_file, "--model", tiny_model_folder, "--device", "cpu"]


@pytest.fixture
def labels(tmp_path):
    return f"sqlite:///{tmp_path / 'labels.sqlite'}"


@pytest.fixture
def fill(call, where, labels):
    def run(*words):
        code, out, err = call("queue", "fill", *where, "--labels", labels, "--json", *words)
        assert code == 0, err
        assert out.count("\n") == 1
        assert "places" in err, "progress goes to stderr"
        return json.loads(out)

    return run


def status(call, labels, *words):
    code, out, err = call("queue", "status", "--labels", labels, "--json", *words)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_segment_is_filled_once(fill) -> None:
    first = fill("--segment", DUMBBELL)
    assert first["new"] == first["waiting"] > 1
    assert first["dataset"] == "neurites"
    again = fill("--segment", DUMBBELL)
    assert (again["new"], again["updated"]) == (0, 0)
    assert again["waiting"] == first["waiting"]


def test_status_and_next_agree_with_the_store(fill, call, labels) -> None:
    filled = fill("--segment", DUMBBELL)
    got = status(call, labels)
    assert got["labels"] == labels
    (part,) = got["queues"]
    assert part["total"] == filled["new"]
    assert sum(part["counts"]["open"].values()) == filled["new"]
    assert part["counts"]["open"]["join"] == 1
    assert part["counts"]["decided"] == {"join": 0, "cut": 0}
    assert part["base_rate"]["join"]["source"] == "default"
    assert part["fills"][0]["done"] == part["fills"][0]["total"] == filled["stops"]["total"]
    assert part["leases"] == []
    assert part["oldest_waiting"] is not None
    code, out, _ = call("queue", "next", "--labels", labels, "--json")
    assert code == 0
    site = json.loads(out)["next"]
    assert site == part["next"]
    assert site["segment"] in (str(DUMBBELL), str(PARTNER))
    assert site["propensity"]["n_open"] == filled["new"]
    with open_store(labels, read_only=True) as store:
        scope = Scope("neurites", part["version"], (SegmentId(DUMBBELL),))
        assert site["id"] in {w.site for w in store.queue.waiting(scope, now=0.0)}


def test_next_leases_only_when_asked(fill, call, labels) -> None:
    fill("--segment", DUMBBELL)
    ask = ("queue", "next", "--labels", labels, "--json", "--user", "ada")
    peeked = json.loads(call(*ask)[1])["next"]
    assert peeked["propensity"]["draw"] is None
    drawn = json.loads(call(*ask, "--lease")[1])["next"]
    assert drawn["id"] == peeked["id"]
    assert drawn["propensity"] == {**peeked["propensity"], "draw": 1}
    (part,) = status(call, labels)["queues"]
    ((lease),) = part["leases"]
    assert (lease["site"], lease["user"]) == (drawn["id"], "ada")
    other = json.loads(call(*ask[:-1], "bob", "--lease")[1])["next"]
    assert other["id"] != drawn["id"]


def test_words_for_people(fill, call, labels) -> None:
    fill("--segment", DUMBBELL)
    code, out, _ = call("queue", "status", "--labels", labels)
    assert code == 0
    for words in (
        "neurites (version",
        "open",
        "base rate of joins",
        "filled segment …",
        "next:",
    ):
        assert words in out
    code, out, _ = call("queue", "next", "--labels", labels)
    assert out.startswith(("join ", "cut "))


@pytest.mark.parametrize(
    "box", [("--box", "0,0,0,960,720,1120"), ("--unit", "voxel", "--box", "0,0,0,96,72,112")]
)
def test_a_box_and_its_unit(fill, box) -> None:
    got = fill(*box)
    assert got["scope"] == "the box"
    assert got["new"] > 1


def test_roots_come_from_a_file(fill, tmp_path) -> None:
    path = tmp_path / "roots.txt"
    path.write_text(f"# two\n{DUMBBELL}, 485, 365, 225  # with a point\n\n{PARTNER}\n")
    got = fill("--roots", path)
    assert got["scope"] == "2 segments"
    assert got["new"] > 1


def test_kind_and_limit(fill) -> None:
    got = fill("--segment", DUMBBELL, "--kind", "cut", "--limit", "1")
    assert (got["new"], got["waiting"]) == (1, 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "one of --segment"),
        (["--segment", DUMBBELL, "--box", "0,0,0,1,1,1"], "one of --segment"),
        (["--box", "0,0,0,960,720,1120", "--at", "1,2,3"], "--at goes with --segment"),
    ],
)
def test_wrong_usage_is_one_line(call, where, labels, words, says) -> None:
    one_line(call("queue", "fill", *where, "--labels", labels, *words), 2, says)


@pytest.mark.parametrize("box", ["1,2,3", "0,0,0,1,1,x", "5,0,0,1,1,1", "0,0,0,1,1,nan"])
def test_a_bad_box_is_refused(call, where, box) -> None:
    refused(call("queue", "fill", *where, "--box", box), 2, "--box")


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "12x\n", f"{DUMBBELL} 1 2\n", f"{DUMBBELL} a b c"]
)
def test_a_bad_roots_file_is_one_line(call, where, labels, tmp_path, text) -> None:
    path = tmp_path / "roots.txt"
    path.write_text(text)
    one_line(
        call("queue", "fill", *where, "--labels", labels, "--roots", path), 2, "Write", "ID X Y Z"
    )


def test_a_segment_that_is_not_there_is_one_line(call, where, labels) -> None:
    done = call("queue", "fill", *where, "--labels", labels, "--segment", 7)
    code, out, err = done
    assert (code, out) == (1, "")
    assert "Segment 7 was not found" in err.splitlines()[-1]


def test_a_queue_needs_a_place(call, tmp_path) -> None:
    one_line(call("queue", "status"), 2, "--labels URL")
    missing = f"sqlite:///{tmp_path / 'none.sqlite'}"
    one_line(call("queue", "next", "--labels", missing), 1, "no label file")


def test_an_empty_queue_is_no_error(call, labels) -> None:
    open_store(labels).close()
    assert status(call, labels)["queues"] == []
    assert call("queue", "next", "--labels", labels, "--json")[1] == '{"next": null}\n'
    assert "Nothing is queued" in call("queue", "status", "--labels", labels)[1]


def test_a_strategy_holds_from_its_fill_on_and_can_be_tried_for_one_draw(
    fill, call, labels
) -> None:
    assert fill("--segment", DUMBBELL)["strategy"] == "margin"
    filled = fill("--segment", DUMBBELL, "--strategy", "coreset")
    assert filled["strategy"] == "coreset"
    (part,) = status(call, labels)["queues"]
    assert part["strategy"] == part["next"]["propensity"]["strategy"] == "coreset"
    for name in ("value", "random", "disagreement"):
        code, out, err = call("queue", "next", "--labels", labels, "--strategy", name, "--json")
        assert code == 0, err
        drawn = json.loads(out)["next"]["propensity"]
        assert drawn["strategy"] == name
        if name == "random":
            assert drawn["probability"] == pytest.approx(1 / drawn["n_open"])
    code, _, err = call("queue", "next", "--labels", labels, "--strategy", "best")
    assert code == 2
    assert "no order 'best'" in err


def test_status_tells_what_is_left_once_something_was_asked_at_random(fill, call, labels) -> None:
    fill("--segment", DUMBBELL, "--strategy", "random")
    (part,) = status(call, labels)["queues"]
    for kind in ("join", "cut"):
        left = part["remaining"][kind]
        waiting = part["counts"]["open"][kind]
        assert (left["random_answers"], left["interval"]) == (0, [0, waiting])
        assert left["stop"]["stop"] == (sum(part["counts"]["open"].values()) == 0 or not waiting)


def test_status_tells_the_rate_of_the_model_that_judged(call, labels) -> None:
    rates = {}
    for model in map(check_card, shipped_models()):
        with open_store(labels) as store:
            judged = replace(queue_item(1), dataset="mine", model_sha256=model.sha256)
            scope = Scope(judged.dataset, judged.version)
            fill = store.queue.begin_fill(scope, None, judged.judge, 1, now=0.0)
            store.queue.put(fill.id, [judged], done=1, now=0.0)
        (part,) = status(call, labels)["queues"]
        rates[model.name] = part["base_rate"]["join"]["value"], model.card["base_rates"]["join"]
    assert all(told == own for told, own in rates.values())
    assert len(set(rates.values())) == 2
