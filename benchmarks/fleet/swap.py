"""Versions swapped under load: what callers of an agent's local API notice."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import numpy as np

from benchmarks.fleet import cloud
from benchmarks.result import Outcome, Row
from edge_sdk.bundle.reader import Bundle

CALLERS = 4
BETWEEN_SECONDS = 1.0  # without a swap, to compare with


@dataclass(frozen=True)
class Answer:
    """One request as its caller saw it, in seconds.

    Attributes:
        begin: When it was sent.
        end: When it was answered.
        good: Whether that was with outputs.
    """

    begin: float
    end: float
    good: bool

    @property
    def taken(self) -> float:
        """How long it took."""
        return self.end - self.begin


def run(quick: bool) -> Outcome:
    """Two versions deployed in turn to an agent that answers all the time."""
    versions = cloud.bundles(2)
    swaps: list[tuple[float, float]] = []
    with cloud.cloud(versions) as here, cloud.agents(here, 1) as [agent]:
        here.deploy(versions[0])
        with _callers(agent.port, versions[0]) as answers:
            time.sleep(BETWEEN_SECONDS)
            for number in range(1, 4 if quick else 31):
                begin = time.perf_counter()
                here.deploy(versions[number % 2])
                swaps.append((begin, time.perf_counter()))
                time.sleep(BETWEEN_SECONDS)
    return _outcome(answers, swaps)


def _outcome(answers: Sequence[Answer], swaps: Sequence[tuple[float, float]]) -> Outcome:
    within: list[float] = []
    beside: list[float] = []
    for answer in answers:
        during = any(answer.end > begin and answer.begin < end for begin, end in swaps)
        (within if during else beside).append(answer.taken * 1e3)
    failed = sum(not answer.good for answer in answers)
    longest, p99 = max(within), float(np.percentile(within, 99))
    usual = float(np.percentile(beside, 99))
    return Outcome(
        rows=(
            Row(
                f"{len(swaps)} swaps of a model under the load of {CALLERS} callers, each from "
                "deploy to running: requests failed; p99 meanwhile and otherwise; longest of all",
                f"{failed} of {len(answers):,}; {p99:.1f} ms and {usual:.1f} ms; {longest:.0f} ms",
            ),
        ),
        figures={
            "swaps": len(swaps),
            "requests": len(answers),
            "failed": failed,
            "p50_ms": round(float(np.median(beside)), 2),
            "p99_ms": round(usual, 2),
            "swap_p50_ms": round(float(np.median(within)), 2),
            "swap_p99_ms": round(p99, 2),
            "longest_ms": round(longest, 1),
        },
    )


@contextmanager
def _callers(port: int, bundle: Bundle) -> Iterator[list[Answer]]:
    """Callers that send one request after the other; their answers, complete in the end."""
    body, stop = _request(bundle), threading.Event()
    answers: list[list[Answer]] = [[] for _ in range(CALLERS)]
    path = f"/v2/models/{bundle.name}/infer"
    threads = [
        threading.Thread(target=_call, args=(port, path, body, stop, mine)) for mine in answers
    ]
    found: list[Answer] = []
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        found += (answer for mine in answers for answer in mine)


def _call(port: int, path: str, body: bytes, stop: threading.Event, mine: list[Answer]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while not stop.is_set():
        begin, good = time.perf_counter(), False
        try:
            connection.request("POST", path, body)
            response = connection.getresponse()
            good = b'"outputs"' in response.read() and response.status == 200
        except (OSError, http.client.HTTPException):
            connection.close()
        mine.append(Answer(begin, time.perf_counter(), good))
    connection.close()


def _request(bundle: Bundle) -> bytes:
    """One digit of the example, in the words of the Open Inference Protocol."""
    [spec] = bundle.variant(cloud.PROFILE).record.inputs
    with np.load(cloud.DIGITS / "heldout.npz") as archive:
        digit = archive[spec.name][:1]
    tensor = {
        "name": spec.name, "shape": digit.shape, "datatype": "FP32", "data": digit.ravel().tolist(),
    }  # fmt: skip
    return msgspec.json.encode({"inputs": [tensor]})
