"""Measuring: structure and bookkeeping; how long something takes is never asserted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from converters.dataset import Feeds, Outputs
from converters.materialize import open_path
from converters.measure import MIN_ROUNDS, footprint, latency, machine, peak_rss
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import EngineError
from edge_sdk.runtime.engine import SessionOptions
from tests.converters.small_graphs import EMBEDDER, LINEAR, write

X = {"x": np.ones((1, 4), np.float32)}


class Recording:
    """A real session that writes down who ran when."""

    def __init__(self, name: str, graph: Path, log: list[str]) -> None:
        self.session, self.name, self.log = open_path(graph), name, log

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.session.outputs

    def run(self, feeds: Feeds) -> Outputs:
        self.log.append(self.name)
        return self.session.run(feeds)


def test_sessions_run_in_turn_and_equally_often(tmp_path: Path) -> None:
    graph, log = write(LINEAR, tmp_path / "model.onnx"), list[str]()
    sessions = {name: Recording(name, graph, log) for name in "abc"}
    found = latency(sessions, [X], budget_seconds=0)
    assert {name: figures.rounds for name, figures in found.items()} == dict.fromkeys(
        "abc", MIN_ROUNDS
    )
    assert len(set(Counter(log).values())) == 1
    turns = [name for i, name in enumerate(log) if i == 0 or log[i - 1] != name]
    assert len(turns) >= 2 * MIN_ROUNDS, "nobody runs all of its rounds in one go"


def test_the_first_session_is_the_baseline(tmp_path: Path) -> None:
    graph = write(LINEAR, tmp_path / "model.onnx")
    sessions = {"source": open_path(graph), "same": open_path(graph)}
    found = latency(sessions, [X, X], budget_seconds=0.05)
    assert found["source"].speedup == 1
    assert found["same"].median_ms > 0


def test_an_engine_failure_while_timing_is_the_engines_error(tmp_path: Path) -> None:
    session = open_path(write(LINEAR, tmp_path / "model.onnx"))
    with pytest.raises(EngineError):
        latency({"a": session}, [{}], budget_seconds=0)


def test_peak_memory_grows_with_the_arrays_a_graph_holds(tmp_path: Path) -> None:
    graph = write(LINEAR, tmp_path / "model.onnx")
    rows = 2_000_000
    small, large = peak_rss(graph, X), peak_rss(graph, {"x": np.ones((rows, 4), np.float32)})
    assert large - small > rows * 4 * 4, "at least the input lies in memory"


def test_footprint_opens_the_graph_with_the_given_options(tmp_path: Path) -> None:
    graph = write(EMBEDDER, tmp_path / "model.onnx")
    ids = np.zeros((1, 3), np.int64)
    found = footprint(
        graph, {"input_ids": ids, "attention_mask": ids}, SessionOptions(arena=False, threads=2)
    )
    assert 0 < found.pss_bytes <= found.peak_rss_bytes
    assert found.first_run_ms > 0


def test_a_failure_in_the_process_is_reported_with_its_last_words(tmp_path: Path) -> None:
    graph = write(LINEAR, tmp_path / "model.onnx")
    with pytest.raises(EngineError, match="missing from input feed"):
        footprint(graph, {})


def test_the_machine_names_its_engine_and_architecture() -> None:
    found = machine()
    assert found.cores >= 1
    assert "onnx" in found.engines
    assert found.architecture in ("amd64", "arm64", "arm")
