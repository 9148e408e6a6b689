"""Measures one variant of a bundle on this machine, against its source where that is given.

Two models run in turn on the same inputs, so that what disturbs the machine
for longer than a turn disturbs both, and their ratio is the median over pairs
of turns. Loading, first run and memory are measured in a fresh process each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from edge_sdk.bundle.reader import Variant, open_bundle
from edge_sdk.bundle.record import Frozen
from edge_sdk.errors import EngineError, InputError
from edge_sdk.runtime.arrays import read_arrays
from edge_sdk.runtime.engine import SessionOptions, find_engine
from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.opening import load
from edge_sdk.runtime.sessions import choose_variant, default_threads

Call = Mapping[str, Array]
Run = Callable[[Call], object]

# The engine of a plain model file, by its suffix.
FILE_ENGINES = {".onnx": "onnx", ".tflite": "litert"}
MIN_TURNS, MAX_TURNS = 5, 5000
# A turn lasts at least this long: shorter ones would time cold caches.
TURN_SECONDS, MAX_CALLS = 1e-3, 200


class Latency(Frozen, frozen=True, kw_only=True):
    """Percentiles of the time of one call, after warm-up."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    calls: int


class FreshStart(Frozen, frozen=True, kw_only=True):
    """What a process of its own needed to load the model and run it.

    Attributes:
        load_ms: From the path to a loaded model, digests checked; imports excluded.
        first_run_ms: The first call after that.
        peak_rss_bytes: Largest resident memory, loading included.
        rss_bytes: Resident memory after three calls.
        pss_bytes: The same, shared pages divided among the processes that map them.
    """

    load_ms: float
    first_run_ms: float
    peak_rss_bytes: int
    rss_bytes: int
    pss_bytes: int


class Subject(Frozen, frozen=True, kw_only=True):
    """The figures of one model."""

    path: str
    latency: Latency
    start: FreshStart


class Throughput(Frozen, frozen=True, kw_only=True):
    """Calls per second of one caller, by the session's number of threads."""

    threads: int
    calls_per_second: float
    against_calls_per_second: float | None = None


class BenchReport(Frozen, frozen=True, kw_only=True):
    """What ``edge-sdk bench --json`` prints.

    Attributes:
        name: The model's name.
        version: The model's version.
        profile: Device profile of the variant.
        recipe: How it was made.
        threads: Threads of the sessions whose latency is given.
        inputs: ``golden`` (the bundle's own) or the file they came from.
        bundle: Figures of the variant.
        against: Figures of the model it is compared with.
        speedup: Median over pairs of turns of the other model's time over the variant's.
        throughput: By number of threads.
        machine: CPU or board.
        engines: Engine -> version.
        seconds: Time taken.
    """

    name: str
    version: str
    profile: str
    recipe: str
    threads: int
    inputs: str
    bundle: Subject
    against: Subject | None
    speedup: float | None
    throughput: tuple[Throughput, ...]
    machine: str
    engines: dict[str, str]
    seconds: float
    schema: str = "org.edge-sdk.bench/1"


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        bundle: The bundle's directory.
        profile: Its variant; ``auto`` picks the one for this machine.
        against: A model file to compare with.
        calls: Inputs of single calls; the variant's golden inputs where empty.
        inputs: Where the calls came from, for the report.
        threads: Numbers of threads; the first is the one whose latency is measured.
            Empty means the profile's, then powers of two up to the cores there are.
        seconds: Time for latency, and again for throughput.
    """

    bundle: Path
    profile: str = "auto"
    against: Path | None = None
    calls: Sequence[Call] = ()
    inputs: str = "golden"
    threads: Sequence[int] = ()
    seconds: float = 3.0


@dataclass(frozen=True)
class Target:
    """A model that can be opened here or in a fresh process.

    Attributes:
        path: Bundle directory or model file.
        profile: The bundle's variant; ``None`` for a model file.
    """

    path: Path
    profile: str | None

    def open(self, threads: int, *, verify: bool = False) -> Run:
        """Loads the model.

        Raises:
            EdgeSdkError: It cannot be loaded.
        """
        if self.profile is not None:
            model = load(self.path, self.profile, threads=threads, verify=verify, nan="allow")
            model.settle()  # what serves later is measured, not what serves meanwhile
            return model.run
        engine = FILE_ENGINES.get(self.path.suffix, "onnx")
        session = find_engine(engine).open(self.path, SessionOptions(threads=threads))
        names = {spec.name for spec in session.inputs}
        return lambda call: session.run({k: v for k, v in call.items() if k in names})


@dataclass
class Timed:
    """A warm model with the times of its calls."""

    run: Run
    calls: Sequence[Call]
    repeats: int = 1
    times: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)

    def warm_up(self) -> float:
        """Runs every call once (new shapes allocate) and times the quickest of them again."""
        for call in self.calls:
            self.run(call)
        return min(self._time(call) for call in self.calls[:4])

    def turn(self, number: int) -> None:
        """Runs one call ``repeats`` times."""
        call = self.calls[number % len(self.calls)]
        taken = [self._time(call) for _ in range(self.repeats)]
        self.times += taken
        self.turns.append(sum(taken))

    def latency(self) -> Latency:
        """Percentiles over all calls."""
        p50, p95, p99 = (float(v) * 1e3 for v in np.percentile(self.times, (50, 95, 99)))
        return Latency(p50_ms=p50, p95_ms=p95, p99_ms=p99, calls=len(self.times))

    def rate(self) -> float:
        """Calls per second."""
        return round(len(self.times) / sum(self.times), 1)

    def speedup(self, baseline: Timed) -> float:
        """Median over pairs of turns of the baseline's time over this one's."""
        ratios = [b / a for a, b in zip(self.turns, baseline.turns, strict=True)]
        return round(float(np.median(ratios)), 3)

    def _time(self, call: Call) -> float:
        started = time.perf_counter()
        self.run(call)
        return time.perf_counter() - started


def bench(request: Request) -> BenchReport:
    """Measures a variant.

    Raises:
        InputError: The bundle, the inputs or the other model are wrong.
        EngineError: A model cannot be loaded or run.
    """
    from device_profiles.machine import detect_machine

    started = time.perf_counter()
    variant = choose_variant(open_bundle(request.bundle), request.profile)
    record, machine = variant.record, detect_machine()
    calls = list(request.calls) or golden_calls(variant)
    threads = tuple(request.threads) or _thread_counts(default_threads(record.profile))
    targets = [Target(request.bundle, record.profile)]
    if request.against is not None:
        targets.append(Target(request.against, None))
    timed = in_turns(_opened(targets, calls, threads[0]), request.seconds)
    subjects = [
        Subject(
            path=str(target.path),
            latency=one.latency(),
            start=fresh_start(target, calls[0], threads[0]),
        )
        for target, one in zip(targets, timed, strict=True)
    ]
    each = request.seconds / len(threads)
    return BenchReport(
        name=record.name,
        version=record.version,
        profile=record.profile,
        recipe=record.recipe.name,
        threads=threads[0],
        inputs=request.inputs,
        bundle=subjects[0],
        against=subjects[1] if len(subjects) > 1 else None,
        speedup=timed[0].speedup(timed[1]) if len(timed) > 1 else None,
        throughput=tuple(_throughput(targets, calls, n, each) for n in sorted(set(threads))),
        machine=machine.title,
        engines={engine.name: engine.version for engine in machine.engines},
        seconds=round(time.perf_counter() - started, 2),
    )


def golden_calls(variant: Variant) -> list[Call]:
    """The variant's golden inputs, as calls.

    Raises:
        InputError: It has none that are a caller's.
    """
    first = variant.record.graphs[0]
    wanted = {spec.name for spec in variant.record.inputs if spec.required}
    cases = [case.inputs for case in variant.record.golden if case.graph == first.name]
    if variant.record.generation is not None:  # the runtime itself feeds a decoder's other inputs
        wanted = {"input_ids"}
        cases = [{name: inputs[name] for name in wanted & inputs.keys()} for inputs in cases]
    if variant.record.decoding is not None and variant.record.golden:
        # An input and its output's tokens, through both graphs.
        wanted -= {state.input for state in variant.record.states}
        both = {**variant.record.golden[-1].inputs, **variant.record.golden[0].inputs}
        cases = [{name: ref for name, ref in both.items() if name in wanted}]
    calls: list[Call] = [
        {name: np.array(array) for name, array in read_arrays(inputs, variant.blobs).items()}
        for inputs in cases
        if wanted <= inputs.keys()
    ]
    if not calls:
        raise InputError(
            "the variant has no golden inputs to run",
            where=f"{variant.record.name} ({variant.record.profile})",
            remedy="give inputs with --input X.npz",
        )
    return calls


def fresh_start(target: Target, call: Call, threads: int) -> FreshStart:
    """Loads and runs a model in a process of its own.

    Raises:
        EngineError: The process failed; says what it printed last.
    """
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        inputs = Path(folder) / "call.npz"
        # An engine's strings are objects; as such they would be pickled.
        np.savez(inputs, *(a.astype(str) if a.dtype == object else a for a in call.values()))
        settings = json.dumps([str(target.path), target.profile, threads, str(inputs), list(call)])
        done = subprocess.run(
            [sys.executable, "-m", "edge_sdk.runtime.bench_process", settings],
            capture_output=True,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
    if done.returncode:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise EngineError(f"failed in a fresh process: {last}", where=str(target.path))
    return msgspec.json.decode(done.stdout, type=FreshStart)


def in_turns(timed: Sequence[Timed], seconds: float) -> Sequence[Timed]:
    """Times models in turn, so that what disturbs the machine disturbs all of them.

    Args:
        timed: The models.
        seconds: Stop after this long, but not before five turns of each.

    Returns:
        The same, with their times.
    """
    slowest = max(one.warm_up() for one in timed)
    for one in timed:
        one.repeats = max(1, min(MAX_CALLS, round(TURN_SECONDS / max(slowest, 1e-6))))
    deadline = time.perf_counter() + seconds
    for number in range(MAX_TURNS):
        if number >= MIN_TURNS and time.perf_counter() > deadline:
            break
        for one in timed if number % 2 else reversed(timed):
            one.turn(number)
    return timed


def _opened(targets: Sequence[Target], calls: Sequence[Call], threads: int) -> list[Timed]:
    return [Timed(target.open(threads), calls) for target in targets]


def _throughput(
    targets: Sequence[Target], calls: Sequence[Call], threads: int, seconds: float
) -> Throughput:
    rates = [one.rate() for one in in_turns(_opened(targets, calls, threads), seconds)]
    return Throughput(
        threads=threads,
        calls_per_second=rates[0],
        against_calls_per_second=rates[1] if len(rates) > 1 else None,
    )


def _thread_counts(usual: int) -> tuple[int, ...]:
    """The usual number first, then powers of two up to the cores this process may use."""
    cores = len(os.sched_getaffinity(0))
    powers = [2**power for power in range(cores.bit_length()) if 2**power <= cores]
    return tuple(dict.fromkeys((usual, *powers)))
