"""Shadow updates per second, each durable before it is answered, against a bare echo."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import msgspec

from benchmarks.fleet import cloud, echo
from benchmarks.fleet.load import Answered, Settings
from benchmarks.result import Outcome, Row
from edge_sdk.errors import WorkError
from edge_sdk.shadow.topics import ROOTS

DEVICES = (1, 50, 500)
# One thing may have ten requests in flight; devices that are many have fewer each.
IN_FLIGHT = {1: 8, 50: 8, 500: 2}
SERVICE, ECHO = "service", "echo"


def run(quick: bool) -> Outcome:
    """The service and an echo in its place, in turn, by as many devices."""
    seconds, rounds = (2.0, 1) if quick else (6.0, 3)
    rows: list[Row] = []
    figures: dict[str, float] = {}
    with cloud.cloud() as here, _echo(here.broker):
        for devices in DEVICES:
            found: dict[str, list[Answered]] = {SERVICE: [], ECHO: []}
            for _ in range(rounds):
                for name, root in ((SERVICE, ROOTS[0]), (ECHO, echo.ROOT)):
                    in_flight = IN_FLIGHT[devices]
                    settings = Settings(here.broker, root, devices, in_flight, seconds)
                    found[name].append(_load(settings))
            rows.append(_row(devices, found))
            figures |= _figures(devices, found)
    return Outcome(rows=tuple(rows), figures=figures)


def _load(settings: Settings) -> Answered:
    command = [sys.executable, "-m", "benchmarks.fleet.load"]
    done = subprocess.run(
        [*command, msgspec.json.encode(settings).decode()],
        cwd=cloud.ROOT, stdout=subprocess.PIPE, check=True, timeout=cloud.PATIENCE,
    )  # fmt: skip
    answered = msgspec.json.decode(done.stdout, type=Answered)
    if answered.rejected:
        raise WorkError(f"{answered.rejected} updates were rejected")
    return answered


@contextmanager
def _echo(broker: str) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.fleet.echo", broker]
    process = subprocess.Popen(command, cwd=cloud.ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield
    finally:
        process.terminate()
        process.communicate()


def _row(devices: int, found: dict[str, list[Answered]]) -> Row:
    service, bare = (median(one.per_second for one in found[name]) for name in (SERVICE, ECHO))
    p99 = median(one.p99_ms for one in found[SERVICE])
    return Row(
        f"shadow updates from {devices} device{'s' * (devices > 1)}, at most "
        f"{IN_FLIGHT[devices]} of each in flight, durable in SQLite before they are answered",
        f"{service:,.0f}/s, p99 {p99:.0f} ms ({service / bare:.0%} of a service that only echoes)",
    )


def _figures(devices: int, found: dict[str, list[Answered]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, answers in found.items():
        rates = [one.per_second for one in answers]
        figures |= {
            f"{name}_{devices}_per_second_best": round(max(rates)),
            f"{name}_{devices}_per_second_median": round(median(rates)),
            f"{name}_{devices}_p50_ms": round(median(one.p50_ms for one in answers), 2),
            f"{name}_{devices}_p99_ms": round(median(one.p99_ms for one in answers), 2),
        }
    return figures
