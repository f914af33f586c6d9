"""What runs the image encoder: the same numbers from each, and the choice between them."""

import sys
from dataclasses import replace

import pytest
import torch
from fixtures_model import tiny_model

import cb2_assist.model.encoders
from cb2_assist.core.errors import ModelError
from cb2_assist.model.checkpoint import load_model
from cb2_assist.model.encoders import AUTO_ON_CPU, ImageEncoder, make_encoder
from cb2_assist.settings import BACKENDS

CPU = torch.device("cpu")
COARSE = ("torch-bf16", "torch-compiled", "openvino-bf16")
EXPORTED = [name for name in BACKENDS if not name.startswith("torch")]


@pytest.fixture(scope="module")
def model(tiny_model_folder):
    return load_model(tiny_model_folder)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One place for what is exported, apart from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CB2_ASSIST_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def encoders(model):
    """One of each; made once, since both runtimes compile the network first."""
    with pytest.MonkeyPatch.context() as patch:
        # what needs no C++ compiler; the graph is captured and run all the same
        patch.setattr(cb2_assist.model.encoders, "COMPILER", "aot_eager")
        return {name: make_encoder(model, CPU, 1, name) for name in BACKENDS}


def images(decisions, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shapes = (3 * decisions, 7, 32, 32), (3 * decisions, 3, 32, 32)
    return [torch.randn(*shape, generator=draw) for shape in shapes]


def encoded(model, backend, given):
    with torch.inference_mode():
        return make_encoder(model, CPU, 1, backend)(*given)


@pytest.mark.parametrize("decisions", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_gives_torch_s_numbers(model, encoders, backend, decisions):
    given = images(decisions)
    with torch.inference_mode():
        got = encoders[backend](*given)
        wanted = ImageEncoder(model.network)(*given)

    assert encoders[backend].backend == backend
    assert got.dtype == torch.float32
    # bfloat16 has three digits
    torch.testing.assert_close(got, wanted, atol=5e-2 if backend in COARSE else 1e-5, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_earlier_answer_stays_when_the_next_is_asked(encoders, backend):
    with torch.inference_mode():
        first = encoders[backend](*images(1))
        before = first.clone()
        encoders[backend](*images(1, seed=1))

    assert torch.equal(first, before)


def test_the_fastest_that_is_installed_is_taken(model, monkeypatch):
    for name, package in zip(AUTO_ON_CPU, ("onnxruntime", "openvino", None), strict=True):
        assert make_encoder(model, CPU, 1, "auto").backend == name
        if package is not None:
            monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("backend", EXPORTED)
def test_a_package_that_is_not_there_is_told_in_words(model, backend, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=f"--backend {backend} needs .*: pip install "):
        make_encoder(model, CPU, 1, backend)


def test_a_compiler_that_cannot_is_told_in_words(model, monkeypatch):
    def no_compiler(_graph, _inputs):
        raise FileNotFoundError("no compiler anywhere")

    monkeypatch.setattr(cb2_assist.model.encoders, "COMPILER", no_compiler)
    with pytest.raises(ModelError, match=r"cannot compile .*no compiler anywhere.*torch-bf16"):
        make_encoder(model, CPU, 1, "torch-compiled")


def test_what_is_no_backend_is_refused_in_words(model):
    with pytest.raises(ModelError, match=r"takes auto, torch, torch-bf16, torch-comp.*got 'tpu'"):
        make_encoder(model, CPU, 1, "tpu")


@pytest.mark.parametrize("backend", EXPORTED)
def test_what_runs_on_the_cpu_alone_is_not_taken_to_a_gpu(model, backend):
    with pytest.raises(ModelError, match=f"{backend} runs on the CPU: add --device cpu"):
        make_encoder(model, torch.device("cuda"), 1, backend)


def test_the_network_is_exported_once(model, encoders, cache, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *_args, **_words: 1 / 0)
    given, kept = images(1), sorted((cache / "encoders").iterdir())

    assert torch.equal(encoded(model, "onnx", given), encoders["onnx"](*given))
    assert sorted((cache / "encoders").iterdir()) == kept
    assert {f.suffix for f in kept} == {".onnx"}


def test_other_weights_are_exported_anew(tmp_path, encoders):
    other = load_model(tiny_model(tmp_path, seed=1))
    given = images(1)

    apart = encoded(other, "onnx", given) - encoders["onnx"](*given)
    assert apart.abs().max() > 0.1


def test_without_a_place_to_keep_it_it_is_made_each_time(model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CB2_ASSIST_CACHE", str(tmp_path / "file"))

    assert torch.isfinite(encoded(model, "onnx", images(1))).all()


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_damaged_file_is_told_and_auto_goes_on(model, monkeypatch, backend):
    monkeypatch.setattr("cb2_assist.model.exported.exported", lambda _model: b"\x08 no network")
    with pytest.raises(ModelError, match=f"--backend {backend} cannot be used: .*--backend torch"):
        make_encoder(model, CPU, 1, backend)
    assert make_encoder(model, CPU, 1, "auto").backend == "torch"


def test_a_network_that_cannot_be_exported_is_told_in_words(model, monkeypatch):
    def fails(*_args, **_words):
        raise RuntimeError("no such operator\nat some line")

    monkeypatch.setattr(torch.onnx, "export", fails)
    other = replace(model, sha256="0" * 64)
    with pytest.raises(ModelError, match=r"cannot be written as ONNX: no such operator\. Use"):
        make_encoder(other, CPU, 1, "onnx")
