from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import EngineError, MissingEngineError
from edge_sdk.runtime import process
from edge_sdk.runtime.engine import SessionOptions, find_engine
from edge_sdk.runtime.engines.litert import LiteRtEngine
from tests.runtime.bundles import spec

ENGINE = LiteRtEngine()
FIXTURE = Path(__file__).parent / "dense.tflite"  # what tflite_bytes.dense() writes

pytestmark = pytest.mark.skipif(ENGINE.version() is None, reason="LiteRT is not installed")


def batch(rows: int, seed: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((rows, 8)).astype(np.float32)}


def test_engine_is_found_by_name():
    assert isinstance(find_engine("litert"), LiteRtEngine)
    assert ENGINE.version()


def test_signature_names_inputs_and_outputs():
    session = ENGINE.open(FIXTURE, SessionOptions())
    assert session.inputs == (spec("x", ("x_0", 8), "float32"),)
    assert session.outputs == (spec("y", ("y_0", 4), "float32"),)
    assert session.notes == ()


def test_rows_do_not_depend_on_the_calls_before_of_other_shapes():
    session = ENGINE.open(FIXTURE, SessionOptions())
    one, five = batch(1), batch(5)
    expected = session.run(one)["y"]
    for _ in range(3):
        assert session.run(five)["y"].shape == (5, 4)
        assert np.array_equal(session.run(one)["y"], expected)


def test_result_stays_what_it_was_after_the_next_call():
    session = ENGINE.open(FIXTURE, SessionOptions())
    first = session.run(batch(2))["y"]
    kept = first.copy()
    session.run(batch(2, seed=2))
    assert np.array_equal(first, kept)


def test_callers_of_several_threads_get_their_own_rows():
    session = ENGINE.open(FIXTURE, SessionOptions())
    calls = [batch(1 + seed % 3, seed) for seed in range(64)]
    expected = [session.run(call)["y"] for call in calls]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda call: session.run(call)["y"], calls))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_reference_kernels_and_optimized_ones_agree():
    reference = ENGINE.open(FIXTURE, SessionOptions(options={"resolver": "reference"}))
    plain = ENGINE.open(FIXTURE, SessionOptions(optimize=False))
    expected = ENGINE.open(FIXTURE, SessionOptions(threads=2)).run(batch(3))["y"]
    assert np.allclose(reference.run(batch(3))["y"], expected, atol=1e-5)
    assert np.allclose(plain.run(batch(3))["y"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"x": np.ones((1, 8))}, "FLOAT64"),
        ({"x": np.ones((1, 9), np.float32)}, "dimension"),
        ({"z": np.ones((1, 8), np.float32)}, "inputs are x, and not z"),
    ],
)
def test_call_that_does_not_fit_is_refused_and_the_next_one_answered(feeds, message):
    session = ENGINE.open(FIXTURE, SessionOptions())
    expected = session.run(batch(1))["y"]
    with pytest.raises(EngineError, match=message):
        session.run(feeds)
    assert np.array_equal(session.run(batch(1))["y"], expected)


def test_absent_delegate_is_a_note_and_the_cpu_works(tmp_path, recwarn):
    options = SessionOptions(options={"delegate": str(tmp_path / "no.so"), "delegate.device": "0"})
    session = ENGINE.open(FIXTURE, options)
    assert "no.so is left out" in session.notes[0]
    assert session.run(batch(1))["y"].shape == (1, 4)


def test_library_that_is_no_delegate_is_a_note():
    import _ctypes

    session = ENGINE.open(FIXTURE, SessionOptions(options={"delegate": _ctypes.__file__}))
    assert "no delegate" in session.notes[0]


@pytest.mark.parametrize("options", [{"threads": "2"}, {"resolver": "fastest"}])
def test_unknown_option_is_refused(options):
    with pytest.raises(EngineError, match="unknown engine option"):
        ENGINE.open(FIXTURE, SessionOptions(options=options))


def test_damaged_file_is_refused(tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(FIXTURE.read_bytes()[:400])
    with pytest.raises(EngineError, match="cannot open") as error:
        ENGINE.open(path, SessionOptions())
    assert error.value.where == str(path)


def test_absent_library_names_the_extra_and_the_vendors_build(monkeypatch):
    monkeypatch.setattr("edge_sdk.runtime.engines.litert.LIBRARIES", ("no_such_library",))
    assert ENGINE.version() is None
    with pytest.raises(MissingEngineError) as error:
        ENGINE.open(FIXTURE, SessionOptions())
    assert "edge-sdk[litert]" in error.value.remedy
    assert "tflite-runtime" in error.value.remedy


def test_engine_imports_nothing_of_its_library_but_the_interpreter():
    script = (
        "import sys; from tests.runtime.test_litert_engine import *;"
        "ENGINE.open(FIXTURE, SessionOptions());"
        "assert 'onnxruntime' not in sys.modules;"
        "print(*(m for m in sys.modules if m.startswith('ai_edge_litert.')))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "ai_edge_litert.schema_py_generated" not in found
    assert "ai_edge_litert.compiled_model" not in found


def test_weights_are_mapped_and_their_pages_dropped_once_packed(tmp_path):
    tflite_bytes = pytest.importorskip("tests.runtime.tflite_bytes")
    path = tmp_path / "large.tflite"
    path.write_bytes(tflite_bytes.dense((1024, 2048, 2048, 1024)))  # 32 MiB
    before = process.rss()
    session = ENGINE.open(path, SessionOptions())
    grown = process.rss() - before
    assert process.mappings(path)
    assert grown < 1.5 * path.stat().st_size  # the packed copy, and not the file beside it
    assert session.run({"x": np.ones((1, 1024), np.float32)})["y"].shape == (1, 1024)
