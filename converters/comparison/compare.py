"""The protocol: the same data, turns in time, and a fresh process for memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.comparison import arrays, dialogue, writing
from converters.comparison.model import Comparison, Row
from converters.comparison.subject import ARRAYS, WRITING, Subject, open_subject
from converters.measure import machine
from converters.metrics import find_metric
from device_profiles.machine import detect_machine
from edge_sdk.errors import InputError, MemoryLimitError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to compare, and on what.

    Attributes:
        subjects: Model files, bundles or variants (``BUNDLE@profile``), the baseline first.
        data: ``.npz``, folder of ``.npz`` or ``.jsonl``; generated inputs when ``None``.
        metric: Task metric, by name or ``module:function``.
        profile: Variant of bundles that name none.
        threads: Numbers of threads; latency is of the first. All cores when empty.
        seconds: Time per model for latency, and again for throughput.
    """

    subjects: tuple[str, ...]
    data: Path | None = None
    metric: str | None = None
    profile: str = "auto"
    threads: tuple[int, ...] = ()
    seconds: float = 2.0


def compare(request: Request, say: Say = lambda message: None) -> Comparison:
    """Compares models under one protocol.

    Args:
        request: What to compare.
        say: Told what happens, for progress display.

    Raises:
        InputError: There are fewer than two models, they are not of one kind, or the
            data does not fit them.
        EngineError: A model does not run.
        MemoryLimitError: Together they would not fit this machine.
    """
    started = time.perf_counter()
    if len(request.subjects) < 2:
        raise InputError("there is nothing to compare with", remedy="name at least two models")
    subjects = [open_subject(given, request.profile) for given in request.subjects]
    _check_memory(subjects)
    threads = request.threads or (len(os.sched_getaffinity(0)),)
    found = _found(request, subjects, threads, say)
    return Comparison(
        rows=found.rows,
        data=str(request.data) if request.data else "generated",
        samples=found.samples,
        threads=threads[0],
        machine=machine(),
        notes=found.notes,
        seconds=round(time.perf_counter() - started, 1),
    )


def _check_memory(subjects: Sequence[Subject]) -> None:
    """All of them are open while they take turns: as files, and packed."""
    needed = sum(2 * subject.size_bytes for subject in subjects) >> 20
    here = detect_machine(engines=False).memory_mib
    if needed > here:
        raise MemoryLimitError(
            f"{len(subjects)} models that take turns need about {needed} MiB at once, "
            f"and this machine has {here}",
            remedy="compare fewer at a time, each with the same first one",
        )


@dataclass(frozen=True)
class Found:
    """What any kind of comparison gives.

    Attributes:
        rows: The models.
        samples: How many samples were compared.
        notes: What to bear in mind.
    """

    rows: tuple[Row, ...]
    samples: int
    notes: tuple[str, ...]


def _found(
    request: Request, subjects: Sequence[Subject], threads: Sequence[int], say: Say
) -> Found:
    first, data, seconds = subjects[0], request.data, request.seconds
    for other in subjects:
        if other.kind != first.kind:
            raise InputError(
                f"{first.given} is {first.kind} and {other.given} is {other.kind}",
                remedy="compare models of one kind",
            )
    metric = find_metric(request.metric) if request.metric else None
    if first.kind == ARRAYS:
        return Found(*arrays.compare(subjects, data, metric, threads, seconds, say))
    if data is None:
        raise InputError(
            "texts or sounds are needed to compare models that write",
            where="--data",
            remedy="give a .jsonl file",
        )
    if first.kind == WRITING:
        return Found(*writing.compare(subjects, data, metric, threads[0], seconds, say))
    if metric:
        raise InputError(
            "dialogue models are compared by perplexity", where="--metric", remedy="leave it out"
        )
    return Found(*dialogue.compare(subjects, data, threads[0], seconds, say))
