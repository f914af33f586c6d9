"""`serve --at --segment`: where a session starts, and what is said when it cannot."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from neurites import DUMBBELL, LONE, PARTNER

from cb2_assist import app_server
from cb2_assist.cli import main
from cb2_assist.core.geometry import PointNm

pytestmark = pytest.mark.usefixtures("own_data_home")
AT = "485,365,625"


@pytest.fixture
def serve(capsys, neurites_file, tiny_model_folder, tmp_path, monkeypatch):
    """Run `serve` up to the point where it is ready; where it starts, and what it printed."""
    started = []

    def run(*words):
        import cb2_assist.server.serve as serving

        def stand_in(*_parts, start_at, on_ready, **_rest):
            started.append(start_at)
            on_ready("http://127.0.0.1:1/?token=t")

        monkeypatch.setattr(serving, "serve", stand_in)
        monkeypatch.setattr(app_server, "warm_up", lambda *_: None)
        labels = f"sqlite:///{tmp_path / 'labels.sqlite'}"
        given = ["serve", "--dataset-file", neurites_file, "--model", tiny_model_folder]
        options = ["--device", "cpu", "--labels", labels, "--no-browser"]
        with pytest.raises(SystemExit) as stopped:
            main([str(w) for w in [*given, *options, *words]])
        # the network loads beside the start, and must not outlive the test
        for thread in threading.enumerate():
            if thread.name in ("load-model", "warm-up"):
                thread.join(60)
        printed = capsys.readouterr()
        return stopped.value.code, started[0] if started else None, printed.out + printed.err

    return run


def test_a_place_and_a_segment(serve) -> None:
    code, start, _ = serve("--at", AT, "--segment", DUMBBELL)
    assert code == 0
    assert (start.at, start.segment) == (PointNm(485, 365, 625), DUMBBELL)


def test_a_place_alone_proposes_nothing(serve) -> None:
    _, start, _ = serve("--at", AT)
    assert (start.at, start.segment) == (PointNm(485, 365, 625), None)


def test_voxels_are_the_viewers(serve) -> None:
    _, start, _ = serve("--at", "48,36,62", "--unit", "voxel", "--segment", DUMBBELL)
    assert start.at == PointNm(485, 365, 625)


@pytest.mark.parametrize("segment", [DUMBBELL, PARTNER, LONE])
def test_a_segment_alone_is_found(serve, segment, neurites_file) -> None:
    from cb2_assist.datasets.local import open_dataset_file

    code, start, _ = serve("--segment", segment)
    assert code == 0
    source = open_dataset_file(neurites_file)
    assert source.segment_at(start.at) == start.segment == segment
    source.close()


def test_without_either_the_last_session_goes_on(serve) -> None:
    code, start, _ = serve()
    assert (code, start) == (0, None)


def test_a_place_near_the_segment_will_do(serve) -> None:
    """As at the cursor: the surface that a person points at lies beside the voxels."""
    code, start, _ = serve("--at", "485,365,835", "--segment", DUMBBELL)
    assert (code, start.segment) == (0, DUMBBELL)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--at", "-5,0,0"], 1, "lies outside neurites"),
        (["--at", "485,365,625", "--unit", "voxel"], 1, "lies outside neurites"),
        (["--segment", "77"], 1, "Segment 77 was not found in neurites"),
        (["--segment", "0"], 2, "background"),
        (["--at", AT, "--segment", LONE], 1, "Leave out --at to start where the segment is"),
        (["--at", "1,2"], 2, "not three numbers"),
        (["--segment", "x"], 2, "segment id"),
        (["--user", "\udcff"], 2, "not one line of printable text"),
        (["--labels", "sqlite:///" + "x" * 300], 2, "cannot be looked at"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(serve, words, code, says) -> None:
    got, start, printed = serve(*words)
    assert (got, start) == (code, None)
    assert says in printed
    assert "Traceback" not in printed
    assert "serving" not in printed


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "--dataset", "demo"],
        ["queue", "fill", "--dataset", "demo"],
        ["evaluate", "--data", "x", "--out", "y"],
    ],
    ids=lambda words: words[0],
)
def test_a_backend_that_is_none_is_wrong_usage_at_once(words, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--backend", "tpu"])
    assert stopped.value.code == 2
    assert "is none of auto, torch, torch-bf16, torch-compiled, onnx" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["foo", "cuda:x", "CPU", "", "cuda:-1"])
@pytest.mark.parametrize(
    "words",
    [
        ["serve", "--dataset", "demo"],
        ["suggest", "--dataset", "demo", "--at", "1,2,3"],
        ["score", "--dataset", "demo", "--sites", "x", "--out", "y"],
        ["train", "--dataset-file", "x", "--out", "y", "--below-z", "5"],
        ["evaluate", "--data", "x", "--out", "y"],
    ],
    ids=lambda words: words[0],
)
def test_a_device_that_is_none_is_wrong_usage_at_once(words, device, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--device", device])
    assert stopped.value.code == 2
    assert "is not auto, cpu, cuda or cuda:N" in capsys.readouterr().err


def test_what_torch_says_of_exporting_stays_quiet_and_the_rest_does_not() -> None:
    program = (
        "import warnings\n"
        "from cb2_assist.cli import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
        "warnings.warn('this might cause the trace to be incorrect')\n"
        "warnings.warn('something else')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0
    assert "trace" not in done.stderr
    assert "something else" in done.stderr
