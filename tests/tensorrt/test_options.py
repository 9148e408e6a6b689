"""What ONNX Runtime is told when it builds an engine, and when it opens one."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from device_profiles.loader import load_profile
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.engines import tensorrt
from edge_sdk.runtime.engines.onnx import OnnxEngine, split_options

ENGINE = load_profile("jetson-orin-nano").engines[0]
OPTIONS = SessionOptions(
    threads=2, providers=ENGINE.providers, options=ENGINE.options_for("int8-static")
)


def trt(options: SessionOptions) -> dict[str, str]:
    return split_options(options.options)[1][tensorrt.PROVIDER]


def test_an_engine_is_built_into_its_folder_beside_its_context_model(tmp_path: Path) -> None:
    found = trt(tensorrt.building(OPTIONS, tmp_path))
    assert found["trt_int8_enable"] == found["trt_fp16_enable"] == "1"
    assert found["trt_dump_ep_context_model"] == found["trt_engine_cache_enable"] == "1"
    assert found["trt_ep_context_file_path"] == found["trt_timing_cache_path"] == str(tmp_path)
    assert found["trt_ep_context_embed_mode"] == "0"
    # Relative to the context model, or ONNX Runtime refuses to write it.
    assert "trt_engine_cache_path" not in found


def test_a_context_model_is_opened_in_the_graphs_place(tmp_path: Path) -> None:
    (tmp_path / "graph_ctx.onnx").touch()
    path, options = tensorrt.built(tmp_path / "graph", OPTIONS, tmp_path)
    assert path == tmp_path / "graph_ctx.onnx"
    assert trt(options)["trt_dump_ep_context_model"] == "0"


def test_without_one_the_graph_is_opened_over_cached_engines(tmp_path: Path) -> None:
    path, options = tensorrt.built(tmp_path / "graph", OPTIONS, tmp_path)
    assert path == tmp_path / "graph"
    assert trt(options)["trt_engine_cache_path"] == str(tmp_path)
    assert trt(options)["trt_engine_cache_enable"] == "1"


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with TensorRT's library and a GPU, as far as is asked of them."""
    monkeypatch.setattr(tensorrt, "library_version", lambda: "100300")
    monkeypatch.setattr(tensorrt, "device", lambda: "Orin, compute 8.7, driver 12060")


@pytest.mark.usefixtures("board")
def test_cuda_and_the_cpu_serve_meanwhile() -> None:
    found = tensorrt.compilation(OPTIONS, "1.23.0")
    assert found is not None
    assert found.meanwhile.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert {key.partition(".")[0] for key in found.meanwhile.options} == {"CUDAExecutionProvider"}
    assert found.meanwhile.threads == 2
    assert found.identity == {
        "onnxruntime": "1.23.0", "tensorrt": "100300", "device": "Orin, compute 8.7, driver 12060",
    }  # fmt: skip


def test_where_tensorrt_is_not_here_nothing_is_compiled() -> None:
    if tensorrt.PROVIDER in onnxruntime.get_available_providers() and tensorrt.device():
        pytest.skip("TensorRT is here")
    engine = OnnxEngine()
    assert engine.compilation(OPTIONS) is None
    assert engine.compilation(SessionOptions()) is None


def test_nothing_of_a_machine_is_asked_unless_tensorrt_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(tensorrt, "compilation", asked)
    monkeypatch.setattr(onnxruntime, "get_available_providers", asked)
    assert OnnxEngine().compilation(SessionOptions(providers=("CPUExecutionProvider",))) is None
