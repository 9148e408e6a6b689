from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import edge_sdk
from device_profiles import procfs
from edge_sdk.bundle import record as rec
from edge_sdk.errors import (
    BundleError,
    DataError,
    DigestError,
    EngineError,
    MemoryLimitError,
    MissingEngineError,
    ProfileError,
)
from edge_sdk.runtime import sessions
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import HERE, Builder, counter, linear, plan, spec

ONES = np.ones((1, 2), np.float32)


def test_runs_a_graph_over_its_weight_blobs(tmp_path):
    model = edge_sdk.load(linear(tmp_path / "b"), HERE)
    assert model.run({"x": ONES})["y"].tolist() == [[3, 5, 7]]
    assert [s.name for s in model.inputs] == ["x"]
    assert [s.name for s in model.outputs] == ["y"]


def test_wrong_input_never_reaches_the_engine(tmp_path):
    model = edge_sdk.load(linear(tmp_path / "b"), HERE)
    with pytest.raises(DataError, match=r"expected float32 \[batch, 2\], given float64 \[1, 2\]"):
        model.run({"x": np.ones((1, 2))})


def test_nan_policy_is_chosen_at_load(tmp_path):
    path = linear(tmp_path / "b")
    given = {"x": np.full((1, 2), np.nan, np.float32)}
    with pytest.raises(DataError, match="NaN"):
        edge_sdk.load(path, HERE).run(given)
    assert np.isnan(edge_sdk.load(path, HERE, nan="allow").run(given)["y"]).all()


def test_run_is_safe_from_several_threads(tmp_path):
    model = edge_sdk.load(linear(tmp_path / "b"), HERE)

    def call(number: int) -> bool:
        given = np.full((number + 1, 2), number, np.float32)
        expected = np.tile(np.float32([3, 5, 7]) * number, (number + 1, 1))
        return all(np.array_equal(model.run({"x": given})["y"], expected) for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(8)))


@pytest.mark.parametrize("which", ["graph", "weight"])
def test_damaged_blob_is_named_before_anything_is_loaded(tmp_path, monkeypatch, which):
    path = linear(tmp_path / "b")
    graph = edge_sdk.load(path, HERE).record.graphs[0]
    blob = (graph.parts if which == "graph" else graph.weights)[0]
    file = path / "blobs" / "sha256" / blob.digest.removeprefix("sha256:")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    monkeypatch.setattr(sessions, "find_engine", lambda name: pytest.fail("an engine was asked"))
    with pytest.raises(DigestError) as error:
        edge_sdk.load(path, HERE)
    assert blob.digest in error.value.where


def test_graph_that_the_engine_refuses_is_an_engine_error(tmp_path):
    with Builder(tmp_path / "b") as builder:
        builder.opaque("onnx", [b"no graph"], [spec("x")], [spec("y")])
        builder.variant()
    with pytest.raises(EngineError, match="INVALID_PROTOBUF"):
        edge_sdk.load(tmp_path / "b", HERE)


def test_missing_profile_lists_those_there_are(tmp_path):
    with pytest.raises(BundleError) as error:
        edge_sdk.load(linear(tmp_path / "b"), "there")
    assert HERE in error.value.remedy


def test_auto_takes_the_variant_for_this_machine(tmp_path):
    with Builder(tmp_path / "b") as builder:
        builder.graph([ob.node("Neg", ["x"], ["y"])], [spec("x")], [spec("y")])
        builder.variant("on-x86", architecture="amd64")
        builder.variant("on-arm", architecture="arm64")
    expected = {"x86_64": "on-x86", "aarch64": "on-arm"}[platform.machine()]
    assert edge_sdk.load(tmp_path / "b").record.profile == expected


def test_auto_refuses_a_bundle_for_other_machines(tmp_path):
    foreign = "amd64" if platform.machine() == "aarch64" else "arm64"
    with Builder(tmp_path / "b") as builder:
        builder.graph([ob.node("Neg", ["x"], ["y"])], [spec("x")], [spec("y")])
        builder.variant(architecture=foreign)
    with pytest.raises(ProfileError, match=HERE):
        edge_sdk.load(tmp_path / "b")


def test_unknown_engine_is_named(tmp_path):
    path = linear(tmp_path / "b", engine=rec.Engine(name="abacus"))
    with pytest.raises(MissingEngineError, match=r"'abacus'.*onnx"):
        edge_sdk.load(path, HERE)


def test_format_that_the_engine_does_not_read_is_refused(tmp_path):
    with Builder(tmp_path / "b") as builder:
        builder.opaque("tflite", [b"bytes"], [spec("x")], [spec("y")])
        builder.variant()
    with pytest.raises(BundleError, match="'tflite'"):
        edge_sdk.load(tmp_path / "b", HERE)


def test_model_that_cannot_fit_is_refused_before_it_is_loaded(tmp_path, monkeypatch):
    path = linear(tmp_path / "b")
    monkeypatch.setattr(sessions, "find_engine", lambda name: pytest.fail("an engine was asked"))
    with pytest.raises(MemoryLimitError, match=r"short by\s+1\.0 MiB"):
        edge_sdk.load(path, HERE, "60MiB")


def test_call_that_cannot_fit_is_refused_and_others_run(tmp_path):
    path = linear(tmp_path / "b", memory=plan(2**20, batch=1))
    model = edge_sdk.load(path, HERE, memory_limit=70 * 2**20)
    assert model.run({"x": np.ones((10, 2), np.float32)})["y"].shape == (10, 3)
    with pytest.raises(MemoryLimitError, match="short by"):
        model.run({"x": np.ones((11, 2), np.float32)})


def test_notes_say_which_provider_is_absent(tmp_path):
    engine = rec.Engine(name="onnx", providers=("TensorrtExecutionProvider",))
    model = edge_sdk.load(linear(tmp_path / "b", engine=engine), HERE)
    assert "TensorrtExecutionProvider" in model.notes[0]


def test_threads_are_the_profiles_within_the_cores_there_are(monkeypatch):
    monkeypatch.setattr(procfs, "cpu_quota", lambda _: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert 1 <= sessions.default_threads("arm64") < 64
    assert sessions.default_threads("not a profile here") == 64
    monkeypatch.setattr(procfs, "cpu_quota", lambda _: 1.5)
    assert sessions.default_threads("not a profile here") == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert sessions.default_threads("arm64") == 1


# --- recurrent states ---


def test_state_that_is_left_out_is_zero(tmp_path):
    model = edge_sdk.load(counter(tmp_path / "b"), HERE)
    found = model.run({"x": np.float32([1, 2])})
    assert found["y"].tolist() == [2, 4]
    assert found["sum"].tolist() == [1, 2]


def test_state_that_is_left_out_has_the_records_value(tmp_path):
    model = edge_sdk.load(counter(tmp_path / "b", initial=np.float32([10, 20])), HERE)
    assert model.run({"x": np.float32([1, 2])})["sum"].tolist() == [11, 22]


def test_state_can_be_given(tmp_path):
    model = edge_sdk.load(counter(tmp_path / "b"), HERE)
    found = model.run({"x": np.float32([1]), "total": np.float32([5])})
    assert found["sum"].tolist() == [6]


def test_stream_rolls_the_state_forward_until_reset(tmp_path):
    stream = edge_sdk.load(counter(tmp_path / "b"), HERE).stream()
    one = {"x": np.float32([1])}
    assert [stream.run(one)["sum"].item() for _ in range(3)] == [1, 2, 3]
    stream.reset()
    assert stream.run(one)["sum"].item() == 1


def test_streams_of_one_model_are_apart(tmp_path):
    model = edge_sdk.load(counter(tmp_path / "b"), HERE)
    one = {"x": np.float32([1])}
    first, second = model.stream(), model.stream()
    first.run(one)
    assert (first.run(one)["sum"].item(), second.run(one)["sum"].item()) == (2, 1)


# --- several graphs ---


def chain(path, **fields):
    """``a: h = -x``, ``b: y = h * scale`` with both taking ``x``."""
    with Builder(path) as builder:
        x, h = spec("x", ["n"]), spec("h", ["n"])
        builder.graph([ob.node("Neg", ["x"], ["h"])], [x], [h], name="a")
        nodes = [ob.node("Mul", ["h_in", "x"], ["y"])]
        builder.graph(nodes, [spec("h_in", ["n"]), x], [spec("y", ["n"])], name="b")
        wire = rec.Wire(source_graph="a", output="h", target_graph="b", input="h_in")
        builder.variant(**({"wiring": (wire,)} | fields))
    return path


def test_wired_graphs_run_as_one(tmp_path):
    model = edge_sdk.load(chain(tmp_path / "b"), HERE)
    assert [s.name for s in model.inputs] == ["x"]
    found = model.run({"x": np.float32([2, 3])})
    assert {name: array.tolist() for name, array in found.items()} == {"y": [-4, -9]}


@pytest.mark.parametrize(
    "wire",
    [
        rec.Wire(source_graph="b", output="y", target_graph="a", input="x"),
        rec.Wire(source_graph="a", output="nothing", target_graph="b", input="h_in"),
        rec.Wire(source_graph="a", output="h", target_graph="b", input="nothing"),
    ],
)
def test_wire_that_leads_nowhere_is_a_bundle_error(tmp_path, wire):
    path = chain(tmp_path / "b", wiring=(wire,))
    with pytest.raises(BundleError, match="does not lead from an earlier graph") as error:
        edge_sdk.load(path, HERE)
    assert wire.output in error.value.where


def test_outputs_of_the_same_name_are_a_bundle_error(tmp_path):
    with Builder(tmp_path / "b") as builder:
        for name in ("a", "b"):
            builder.graph([ob.node("Neg", ["x"], ["y"])], [spec("x")], [spec("y")], name=name)
        builder.variant()
    with pytest.raises(BundleError, match="several graphs have this output"):
        edge_sdk.load(tmp_path / "b", HERE)
