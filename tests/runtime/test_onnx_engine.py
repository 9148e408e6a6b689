from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import EngineError, MissingEngineError
from edge_sdk.runtime.engine import SessionOptions, find_engine
from edge_sdk.runtime.engines.onnx import CPU, OnnxEngine, choose_providers, split_options
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import onnx, spec

ENGINE = OnnxEngine()


def write(folder: Path, data: bytes) -> Path:
    path = folder / hashlib.sha256(data).hexdigest()  # as a blob: no suffix
    path.write_bytes(data)
    return path


def identity(folder: Path, dtype: str, shape: tuple[int | str, ...]) -> Path:
    nodes = [ob.node("Identity", ["x"], ["y"])]
    return write(folder, onnx(nodes, [spec("x", shape, dtype)], [spec("y", shape, dtype)]))


def test_engine_is_found_by_name():
    engine = find_engine("onnx")
    assert isinstance(engine, OnnxEngine)
    assert engine.version()


@pytest.mark.parametrize("dtype", sorted(ob.ELEMENTS))
def test_signature_has_numpy_dtype_names(tmp_path, dtype):
    session = ENGINE.open(identity(tmp_path, dtype, ("batch", 2)), SessionOptions())
    assert session.inputs == (spec("x", ("batch", 2), dtype),)
    assert session.outputs == (spec("y", ("batch", 2), dtype),)


def test_unnamed_dimensions_are_free_of_one_another(tmp_path):
    session = ENGINE.open(identity(tmp_path, "float32", ("", "")), SessionOptions())
    rows, columns = session.inputs[0].shape
    assert rows != columns


def test_sequence_output_is_described_and_returned(tmp_path):
    data = ob.model(
        [ob.node("SequenceConstruct", ["x", "x"], ["y"])],
        [ob.value("x", "float32", [2])],
        [ob.sequence_value("y", "float32")],
    )
    session = ENGINE.open(write(tmp_path, data), SessionOptions())
    assert session.outputs[0].dtype == "seq(tensor(float))"
    assert session.outputs[0].shape is None
    (found,) = session.run({"x": np.ones(2, np.float32)}).values()
    assert [list(item) for item in found] == [[1, 1], [1, 1]]


def test_weights_are_mapped_from_their_file_and_not_copied(tmp_path):
    table = np.ones((2**22, 4), np.float32)  # 64 MiB
    name = "a" * 64
    (tmp_path / name).write_bytes(table.tobytes())
    graph = ob.model(
        [ob.node("Gather", ["table", "i"], ["y"])],
        [ob.value("i", "int64", ["n"])],
        [ob.value("y", "float32", ["n", 4])],
        [ob.tensor("table", table, name)],
    )
    before = anonymous_bytes()
    session = ENGINE.open(write(tmp_path, graph), SessionOptions())
    found = session.run({"i": np.array([0, 2**22 - 1])})["y"]
    grown = anonymous_bytes() - before
    assert found.tolist() == [[1, 1, 1, 1]] * 2
    assert str(tmp_path / name) in Path("/proc/self/maps").read_text()
    assert grown < table.nbytes // 2


def anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


def test_runs_from_several_threads_do_not_mix(tmp_path):
    session = ENGINE.open(identity(tmp_path, "int64", ("n",)), SessionOptions())

    def call(number: int) -> bool:
        given = np.full(1000, number)
        return all(np.array_equal(session.run({"x": given})["y"], given) for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(8)))


def test_absent_provider_is_left_out_and_noted(tmp_path):
    options = SessionOptions(providers=("TensorrtExecutionProvider", CPU))
    session = ENGINE.open(identity(tmp_path, "float32", (1,)), options)
    assert session.providers == (CPU,)
    assert session.notes == (
        "TensorrtExecutionProvider is not available here; continuing without it",
    )


def test_cpu_provider_comes_last():
    assert choose_providers((CPU, "A"), ["A", CPU]) == (["A", CPU], ())
    assert choose_providers((), ["A", CPU]) == ([CPU], ())


def test_options_are_sorted_by_prefix():
    config, providers = split_options(
        {"session.use_env_allocators": "1", "CUDAExecutionProvider.device_id": "0"}
    )
    assert config == {"session.use_env_allocators": "1"}
    assert providers == {"CUDAExecutionProvider": {"device_id": "0"}}


def test_option_without_prefix_is_refused_and_not_ignored(tmp_path):
    with pytest.raises(EngineError, match="unknown engine option 'threads'"):
        ENGINE.open(identity(tmp_path, "float32", (1,)), SessionOptions(options={"threads": "2"}))


def test_session_options_reach_the_engine(tmp_path):
    path = identity(tmp_path, "float32", (1,))
    with pytest.raises(EngineError, match="ORT"):
        ENGINE.open(path, SessionOptions(options={"session.load_model_format": "ORT"}))


@pytest.mark.parametrize("flags", [{"optimize": False}, {"arena": False}, {"threads": 0}])
def test_opens_with_each_option(tmp_path, flags):
    session = ENGINE.open(identity(tmp_path, "float32", (2,)), SessionOptions(**flags))
    assert session.run({"x": np.ones(2, np.float32)})["y"].tolist() == [1, 1]


def test_corrupted_graph_names_the_file_and_the_engines_reason(tmp_path, capfd):
    path = identity(tmp_path, "float32", (1,))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(EngineError, match="INVALID_PROTOBUF") as error:
        ENGINE.open(path, SessionOptions())
    assert error.value.where == str(path)
    assert capfd.readouterr().err == ""


def test_failure_while_running_says_what_the_engine_says(tmp_path, capfd):
    nodes = [ob.node("MatMul", ["x", "x"], ["y"])]
    data = onnx(nodes, [spec("x", ["a", "b"])], [spec("y", ["a", "b"])])
    session = ENGINE.open(write(tmp_path, data), SessionOptions())
    with pytest.raises(EngineError, match="MatMul"):
        session.run({"x": np.ones((2, 3), np.float32)})
    assert capfd.readouterr().err == ""


def test_missing_onnxruntime_names_the_extra_and_the_vendor_route(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert ENGINE.version() is None
    with pytest.raises(MissingEngineError, match="not installed") as error:
        ENGINE.open(tmp_path / "any", SessionOptions())
    assert "edge-sdk[onnx]" in error.value.remedy
    assert "onnxruntime-gpu" in error.value.remedy
