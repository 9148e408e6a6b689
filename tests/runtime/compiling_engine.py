"""An engine that compiles, as a plug-in: what a real one does in minutes, on command.

Options: ``slow.control``, a folder with a file ``mode`` that says how compiling goes and in
which it reports, and ``slow.budget``, seconds. Compiled sessions take four samples at most.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_sdk.errors import EngineError
from edge_sdk.runtime.engine import Compilation, Session, SessionOptions
from edge_sdk.runtime.engines.onnx import OnnxEngine

MOST_SAMPLES = 4


class SlowEngine:
    """Runs graphs on ONNX Runtime, and says which kind of session answered."""

    name = "slow"
    formats = ("onnx",)

    def version(self) -> str:
        return "1"

    def open(self, graph: Path, options: SessionOptions) -> Session:
        return OnnxEngine().open(graph, replace(options, options={}))

    def compilation(self, options: SessionOptions) -> Compilation | None:
        control = _control(options)
        if not control.is_dir():
            return None
        return Compilation(
            {"driver": (control / "driver").read_text()},
            replace(options, options={}),
            float(options.options["slow.budget"]),
        )

    def compile(
        self,
        graph: Path,
        options: SessionOptions,
        folder: Path,
        calls: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        control = _control(options)
        (control / f"compiling-{os.getpid()}").touch()
        (folder / "timing.cache").write_bytes(b"half")
        mode = (control / "mode").read_text()
        if mode == "crash":
            os.abort()
        if mode == "refuse":
            raise EngineError("the builder found no kernel", where="node 'm'")
        while mode == "wait" and not (control / "go").exists():
            time.sleep(0.01)
        self.open(graph, options).run(calls[0])
        (folder / "engine").write_text("wrong" if mode == "wrong" else "right")

    def open_compiled(self, graph: Path, options: SessionOptions, folder: Path) -> Session:
        control = _control(options)
        if (control / "deadly").exists():
            os.abort()
        (control / f"opened-{os.getpid()}").touch()
        factor = 1 if (folder / "engine").read_text() == "right" else 2
        return Compiled(self.open(graph, options), factor)


class Compiled:
    """What the engine made of a graph."""

    notes = ("compiled",)

    def __init__(self, session: Session, factor: int) -> None:
        self._session = session
        self._factor = factor
        self.inputs = session.inputs
        self.outputs = session.outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(feeds["x"]) > MOST_SAMPLES:
            raise EngineError("x has 5 samples, of at most 4")
        return {name: y * self._factor for name, y in self._session.run(feeds).items()}


def _control(options: SessionOptions) -> Path:
    return Path(options.options["slow.control"])
