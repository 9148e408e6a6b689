"""Several engines, each in a process of its own, asked in turn.

Every round asks every contestant once, each round beginning with another one, so
that whatever disturbs the machine disturbs all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from benchmarks.llm.worker import Opened, Turn

ROOT = Path(__file__).parents[2]
# Idle worker threads of the last contestant may still spin for a moment.
SETTLE_SECONDS = 0.1
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "PYTHONDONTWRITEBYTECODE": "",  # an installed package comes compiled; a checkout is, once run
}


@dataclass(frozen=True)
class Contestant:
    """One engine over one model file.

    Attributes:
        name: Name in the results.
        python: Interpreter of the environment it runs in.
        module: Its worker.
        settings: What the worker is opened with.
        environment: Variables of its own.
    """

    name: str
    python: Path
    module: str
    settings: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


class Worker:
    """A contestant that runs."""

    def __init__(self, contestant: Contestant, prefix: Sequence[str] = ()) -> None:
        """Starts it and waits until its model is loaded.

        Args:
            contestant: Which one.
            prefix: Command that runs it, for example inside a control group.
        """
        settings = json.dumps(contestant.settings)
        command = [str(contestant.python), "-m", contestant.module, settings]
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [*prefix, *command], cwd=ROOT, text=True,
            env={**os.environ, **ENVIRONMENT, **contestant.environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.opened = Opened(**self._read())
        self.start_ms = (time.perf_counter() - started) * 1e3

    def turn(self, prompt: Sequence[int], new_tokens: int) -> Turn:
        """One prompt answered."""
        return Turn(**self.ask({"prompt": prompt, "new_tokens": new_tokens}))

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One line in, one line out."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # reading says what it died of
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self._read()

    def memory(self) -> Memory:
        """What it occupies now."""
        return Memory.of(self.process.pid)

    def stop(self) -> None:
        """Ends it, if it still runs."""
        if self.process.returncode is None:
            self.process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, errors = self.process.communicate()
            raise DiedError(f"exit code {self.process.returncode}: {errors[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found


class DiedError(RuntimeError):
    """A worker ended where an answer was expected."""


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process, in bytes.

    Attributes:
        rss: Resident, shared pages in full.
        private: Pages of its own that the kernel can only swap: heap, stacks, written mappings.
        pss: Resident, each shared page divided among the processes that map it.
        peak: Largest ``rss`` so far.
    """

    rss: int
    private: int
    pss: int
    peak: int

    @staticmethod
    def of(pid: int) -> Memory:
        """Asks the kernel."""
        rollup = _fields(Path(f"/proc/{pid}/smaps_rollup"))
        return Memory(
            rss=rollup["Rss"],
            private=rollup["Anonymous"],
            pss=rollup["Pss"],
            peak=_fields(Path(f"/proc/{pid}/status"))["VmHWM"],
        )


def _fields(path: Path) -> dict[str, int]:
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {key: int(value.split()[0]) << 10 for key, _, value in lines if value.endswith("kB")}


@dataclass
class Series:
    """All turns of one contestant."""

    turns: list[Turn] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> tuple[float, float]:
        """Best and median decoding speed."""
        speeds = [turn.tokens_per_second for turn in self.turns]
        return max(speeds), median(speeds)

    @property
    def ttft_ms(self) -> tuple[float, float]:
        """Best and median time to the first token."""
        times = [turn.ttft_ms for turn in self.turns]
        return min(times), median(times)


@contextmanager
def running(contestants: Sequence[Contestant]) -> Iterator[dict[str, Worker]]:
    """Contestants by name, all loaded; ended on the way out."""
    workers: dict[str, Worker] = {}
    try:
        for contestant in contestants:
            workers[contestant.name] = Worker(contestant)
        yield workers
    finally:
        for worker in workers.values():
            worker.stop()


def prompt_of(tokens: int, vocab: int, number: int = 0) -> list[int]:
    """A prompt of some length; another number differs from its first token on."""
    random = Random(number)
    return [random.randrange(vocab // 2, vocab) for _ in range(tokens)]


def contest(
    workers: Mapping[str, Worker], prompts: Sequence[Sequence[int]], new_tokens: int
) -> dict[str, Series]:
    """Asks everyone in turn; the first prompt warms up and does not count.

    Prompts differ, so that nobody answers from a cache of the one before.
    """
    names = list(workers)
    found = {name: Series() for name in names}
    for number, prompt in enumerate(prompts):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(SETTLE_SECONDS)
            turn = workers[name].turn(prompt, new_tokens)
            if number:
                found[name].turns.append(turn)
    return found
