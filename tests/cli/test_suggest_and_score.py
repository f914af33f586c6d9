"""`suggest` and `score` on the command line: documents, exit codes, one-line errors."""

import io
import json

import pytest
from neurites import DUMBBELL, LONE, PARTNER

import cb2_assist.model.encoders
from cb2_assist.settings import BACKENDS

pytestmark = pytest.mark.usefixtures("own_data_home")
AT = "485,365,625"


@pytest.fixture
def where(neurites_file, tiny_model_folder):
    return ["--dataset-file", neurites_file, "--model", tiny_model_folder, "--device", "cpu"]


def refused(done, code, *says):
    got, out, err = done
    assert got == code
    assert out == ""
    assert "Traceback" not in err
    for words in says:
        assert words in err
    return err


def one_line(done, code, *says):
    err = refused(done, code, *says)
    assert err.startswith("cb2-assist: ")
    assert err.count("\n") == 1


@pytest.fixture
def document(call, where):
    code, out, err = call("suggest", *where, "--at", AT, "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    return json.loads(out)


def test_json_is_one_document_with_ids_as_text(document):
    assert document["segment"] == str(DUMBBELL)
    assert {s["partner"] for s in document["suggestions"]} == {str(PARTNER), None}
    assert {s["kind"] for s in document["suggestions"]} == {"join", "cut"}
    assert set(document) >= {
        "dataset",
        "segment",
        "at_nm",
        "model",
        "calibrator",
        "base_rate",
        "timing_ms",
        "suggestions",
        "none_of_these",
    }


def test_voxels_mean_their_centres(call, where, document):
    _, out, _ = call("suggest", *where, "--at", "48,36,62", "--unit", "voxel", "--json")

    assert json.loads(out)["at_nm"] == document["at_nm"]


def test_kind_limit_and_segment_are_heeded(call, where):
    words = ["--kind", "cut", "--limit", 1, "--segment", DUMBBELL, "--json"]
    _, out, _ = call("suggest", *where, "--at", AT, *words)

    assert [s["kind"] for s in json.loads(out)["suggestions"]] == ["cut"]


def test_without_json_each_suggestion_is_a_line(call, where):
    code, out, _ = call("suggest", *where, "--at", AT)

    assert code == 0
    assert f"join {DUMBBELL} + {PARTNER}" in out
    assert f"cut {DUMBBELL}" in out


def test_an_empty_list_has_a_reason(call, where):
    code, out, _ = call("suggest", *where, "--at", "105,105,105", "--json")

    assert code == 0
    assert json.loads(out)["suggestions"] == []
    assert "no contact or neck" in json.loads(out)["note"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--at", "905,605,55"], 1, "no segment at"),
        (["--at", "-5,0,0"], 1, "utside"),
        (["--at", AT, "--segment", 77], 1, "Segment 77 is not within"),
        (["--at", AT, "--device", "cuda:99"], 1, "CUDA devices here"),
        (["--at", AT, "--model", "/nowhere"], 1, "no model at /nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line(call, where, words, code, says):
    one_line(call("suggest", *where, *words), code, says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--at", "1,2"], "not three numbers"),
        (["--at", "1,2,x"], "not three numbers"),
        (["--at", "nan,0,0"], "finite"),
        ([], "--at"),
        (["--at", AT, "--segment", "-4"], "segment id"),
        (["--at", AT, "--segment", 2**64], "64 bits"),
        (["--at", AT, "--kind", "fold"], "fold"),
        (["--at", AT, "--limit", 0], "limit"),
        (["--at", AT, "--wings"], "--wings"),
    ],
)
def test_wrong_usage_is_two(call, where, words, says):
    refused(call("suggest", *where, *words), 2, says)


def test_exactly_one_dataset(call, where):
    one_line(call("suggest", "--at", AT), 2, "Name one dataset")
    one_line(call("suggest", *where, "--dataset", "demo", "--at", AT), 2, "Name one dataset")


def test_unknown_dataset_names_the_known_ones(call):
    one_line(call("suggest", "--dataset", "moon", "--at", AT), 1, "no dataset 'moon'", "demo")


def test_unreadable_dataset_file(call, tmp_path):
    (tmp_path / "bad.toml").write_text("[dataset\n")
    one_line(call("suggest", "--dataset-file", tmp_path / "bad.toml", "--at", AT), 1, "bad.toml")
    one_line(call("suggest", "--dataset-file", tmp_path / "no.toml", "--at", AT), 1, "no.toml")


def test_unknown_command(call):
    refused(call("sugest"), 2, "sugest")


@pytest.fixture
def scored(call, where, tmp_path):
    def run(lines, *words):
        sites, out = tmp_path / "sites.jsonl", tmp_path / "scores.jsonl"
        sites.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        code, printed, err = call("score", *where, "--sites", sites, "--out", out, *words)
        assert (code, printed, err) == (0, "", "")
        return [json.loads(line) for line in out.read_text().splitlines()]

    return run


def sites_of(document):
    keys = ("id", "kind", "segment", "partner", "point_nm")
    return [{k: s[k] for k in keys} for s in document["suggestions"]]


def test_scores_of_suggested_sites_are_the_suggested_scores(document, scored):
    rows = scored([json.dumps(s) for s in sites_of(document)])

    for row, suggestion in zip(rows, document["suggestions"], strict=True):
        for key in ("id", "kind", "segment", "partner", "point_nm"):
            assert row[key] == suggestion[key]
        for key in ("score", "confidence", "interval", "ood"):
            assert row[key] == suggestion[key]
        assert row["base_rate"] == document["base_rate"]["by_kind"][row["kind"]]


@pytest.mark.parametrize("words", [["--batch", 1], ["--batch", 64], ["--threads", 1]])
def test_batch_and_threads_do_not_show(document, scored, words):
    lines = [json.dumps(s) for s in sites_of(document)] * 3
    plain, other = scored(lines), scored(lines, *words)

    for a, b in zip(plain, other, strict=True):
        for key in ("score", "confidence"):
            assert a[key] == pytest.approx(b[key], abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_runs_the_network_hardly_shows(document, scored, backend, monkeypatch):
    # what needs no C++ compiler
    monkeypatch.setattr(cb2_assist.model.encoders, "COMPILER", "aot_eager")
    coarse = "bf16" in backend or backend == "torch-compiled"
    lines = [json.dumps(s) for s in sites_of(document)]
    plain, other = scored(lines), scored(lines, "--backend", backend)

    for a, b in zip(plain, other, strict=True):
        assert a["score"] == pytest.approx(b["score"], abs=1e-2 if coarse else 1e-5)


def test_bad_lines_become_errors_in_their_place(document, scored):
    good = sites_of(document)[0] | {"id": "good"}
    lines = [
        json.dumps(good),
        "{",
        "[1]",
        json.dumps({"id": 7, "kind": "fold", "segment": "1", "partner": None, "point_nm": [0] * 3}),
        json.dumps(good | {"id": "no partner", "kind": "join", "partner": None}),
        json.dumps(good | {"id": "float", "segment": 1.5e18}),
        json.dumps(good | {"id": "two", "point_nm": [1, 2]}),
        json.dumps({"id": "bare"}),
        "",
        json.dumps(good | {"id": "out", "point_nm": [-1e6, 0, 0]}),
        json.dumps(good | {"id": "far", "kind": "join", "partner": str(LONE)}),
        "[" * 100_000,
        "\ud7ff\x00",
        json.dumps(good | {"id": "last"}),
    ]
    rows = scored(lines, "--batch", 3)

    assert len(rows) == len(lines) - 1
    ok = [r.get("id") for r in rows if "score" in r]
    assert ok == ["good", "last"]
    assert all(("error" in r) != ("score" in r) for r in rows)
    assert [r["id"] for r in rows[3:8]] == [7, "no partner", "float", "two", "bare"]
    by_id = {r["id"]: r["error"] for r in rows if "error" in r}
    assert "outside" in by_id["out"]
    assert "not within" in by_id["far"]
    assert "a join has a partner" in by_id["no partner"].lower()
    assert "missing" in by_id["bare"]
    assert rows[0]["score"] == rows[-1]["score"]


def test_a_byte_that_is_no_text_spoils_its_line_only(call, where, document, tmp_path):
    good = json.dumps(sites_of(document)[0]).encode()
    sites, out = tmp_path / "sites.jsonl", tmp_path / "scores.jsonl"
    sites.write_bytes(b"\xff\xfe\n" + good + b"\n")

    assert call("score", *where, "--sites", sites, "--out", out)[0] == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert ["error" in r for r in rows] == [True, False]


def test_dash_reads_stdin_and_writes_stdout(call, where, document, monkeypatch):
    lines = "".join(json.dumps(s) + "\n" for s in sites_of(document))
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    code, out, err = call("score", *where, "--sites", "-", "--out", "-")

    assert (code, err) == (0, "")
    assert [json.loads(x)["id"] for x in out.splitlines()] == [
        s["id"] for s in document["suggestions"]
    ]


def test_a_given_base_rate_moves_the_confidence(document, scored):
    lines = [json.dumps(s) for s in sites_of(document)]
    even = scored(lines, "--base-rate", 0.5)

    assert all(r["confidence"] == r["score"] for r in even)
    assert [r["score"] for r in even] == [s["score"] for s in document["suggestions"]]
    assert even[0]["base_rate"] == {"value": 0.5, "source": "given", "n": 0}


def test_an_estimate_that_is_refused_says_so_and_keeps_the_saved_rate(
    call, where, document, tmp_path
):
    sites, out = tmp_path / "s.jsonl", tmp_path / "o.jsonl"
    sites.write_text("".join(json.dumps(s) + "\n" for s in sites_of(document)))
    words = ["--sites", sites, "--out", out, "--base-rate", "auto"]
    code, _, err = call("score", *where, *words)
    rows = [json.loads(line) for line in out.read_text().splitlines()]

    assert code == 0
    for kind in ("join", "cut"):
        assert f"{kind}: no estimate from these sites" in err
    assert [r["confidence"] for r in rows] == [s["confidence"] for s in document["suggestions"]]


@pytest.mark.parametrize("rate", ["0", "1", "1.5", "often", "nan", "AUTO"])
def test_base_rates_that_cannot_be_are_wrong_usage(call, where, tmp_path, rate):
    words = ["--sites", tmp_path / "s", "--out", tmp_path / "o", "--base-rate", rate]
    one_line(call("score", *where, *words), 2, "--base-rate takes")


def test_sites_and_scores_must_be_places_that_work(call, where, tmp_path):
    sites = tmp_path / "sites.jsonl"
    sites.write_text("")
    one_line(call("score", *where, "--sites", tmp_path / "no", "--out", "-"), 2, "cannot be read")
    one_line(
        call("score", *where, "--sites", sites, "--out", tmp_path / "no" / "o"), 2, "cannot be"
    )
    one_line(call("score", *where, "--sites", sites, "--out", sites), 2, "another file")
    assert sites.exists()
