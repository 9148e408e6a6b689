"""Files with operators that ONNX lacks: they run as they are, or are refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edge_sdk
from converters import convert
from converters.opaque.source import OpaqueSource
from converters.source import open_source
from edge_sdk.errors import ConversionError, EdgeSdkError, InputError, SourceError
from tests.runtime.tflite_bytes import File

pytestmark = pytest.mark.converts


def symmetric_padding() -> bytes:
    """LiteRT mirrors the edge too; ONNX knows no such padding."""
    file = File()
    value, result = file.tensor("value", (-1, 4)), file.tensor("result", (-1, 6))
    pads = file.constant("pads", np.array([[0, 0], [1, 1]], np.int32))
    file.op("MIRROR_PAD", [value, pads], [result], "MirrorPadOptions", mode=1)
    return file.write({"value": value}, {"result": result})


def save(folder: Path, data: bytes) -> Path:
    path = folder / "padding.tflite"
    path.write_bytes(data)
    return path


def test_file_without_a_form_in_onnx_is_packed_as_it_is_and_verified(tmp_path):
    path, out = save(tmp_path, symmetric_padding()), tmp_path / "out.bundle"
    report = convert(path, ["armv7-512mb", "x86-64"], out)
    assert [v.report.chosen for v in report.variants] == ["source@litert"] * 2
    assert "MIRROR_PAD is not supported" in report.variants[0].notes[0]
    with edge_sdk.load(out, "x86-64") as model:
        assert model.self_test().cases == 2
        rows = np.array([[1, 2, 3, 4]], np.float32)
        assert model.run({"value": rows})["result"].tolist() == [[1, 1, 2, 3, 4, 4]]


def test_source_says_why_it_has_no_graph(tmp_path):
    source = open_source(save(tmp_path, symmetric_padding()))
    assert isinstance(source, OpaqueSource)
    assert "symmetric" in source.why
    assert source.inputs[0].shape == ("batch", 4)


def test_profile_without_an_engine_for_it_is_told_the_operator(tmp_path):
    with pytest.raises(ConversionError) as error:
        convert(save(tmp_path, symmetric_padding()), ["jetson-orin-nano"], tmp_path / "o")
    assert "MIRROR_PAD" in str(error.value)
    assert "jetson-orin-nano" in str(error.value)
    assert not (tmp_path / "o").exists()


def test_file_that_keeps_state_within_itself_is_refused(tmp_path):
    file = File()
    value, handle = file.tensor("value", (1, 4)), file.tensor("handle", (1,), "int32")
    file.op("VAR_HANDLE", [], [handle], "VarHandleOptions")
    file.op("ASSIGN_VARIABLE", [handle, value], [], "AssignVariableOptions")
    with pytest.raises(SourceError, match="keeps state"):
        open_source(save(tmp_path, file.write({"value": value}, {"value": value})))


def test_custom_operator_that_nothing_here_runs_is_named(tmp_path):
    file = File()
    value, result = file.tensor("value", (1, 4)), file.tensor("result", (1, 4))
    file.op("AcmeWobble", [value], [result])
    with pytest.raises(EdgeSdkError, match="AcmeWobble"):
        convert(
            save(tmp_path, file.write({"value": value}, {"result": result})), ["x86-64"],
            tmp_path / "out.bundle",
        )  # fmt: skip


def test_option_that_could_change_nothing_is_refused(tmp_path):
    with pytest.raises(InputError) as error:
        convert(
            save(tmp_path, symmetric_padding()), ["x86-64"], tmp_path / "o", fixed={"value": 1}
        )  # fmt: skip
    assert error.value.where == "--fix"
