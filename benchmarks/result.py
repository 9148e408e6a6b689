"""What a benchmark gives, and the file its result is kept in."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

import msgspec

from converters.measure import machine
from edge_sdk.bundle.measurements import Machine

RESULTS = Path(__file__).with_name("results")
PACKAGES = ("ai-edge-litert", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")


class Row(msgspec.Struct, frozen=True):
    """One line of the README's table."""

    what: str
    measured: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a benchmark measured.

    Attributes:
        rows: Lines for the README.
        figures: The numbers behind them, by name; units are in the names.
    """

    rows: tuple[Row, ...]
    figures: dict[str, float]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome, and under which circumstances it was measured."""

    name: str
    command: str
    outcome: Outcome
    machine: Machine
    versions: dict[str, str]
    commit: str
    quick: bool
    seconds: float


def write(name: str, outcome: Outcome, *, quick: bool, seconds: float) -> Path:
    """Writes ``results/<name>.json``; a quick run goes to ``<name>-quick.json``."""
    result = Result(
        name=name,
        command=f"python -m benchmarks {name}",
        outcome=outcome,
        machine=machine(),
        versions={package: version(package) for package in PACKAGES},
        commit=_commit(),
        quick=quick,
        seconds=round(seconds, 1),
    )
    path = RESULTS / f"{name}{'-quick' if quick else ''}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return path


def read_all() -> list[Result]:
    """The results of full runs, by name."""
    found = [msgspec.json.decode(path.read_bytes(), type=Result) for path in RESULTS.glob("*.json")]
    return sorted((result for result in found if not result.quick), key=lambda r: r.name)


def _commit() -> str:
    root = Path(__file__).parent
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True
    )
    return done.stdout.strip()
