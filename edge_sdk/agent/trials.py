"""Measures candidates that a workstation asks about, when there is nothing else to do.

::

    desired.trial -> fetched into a store of its own -> measured in a child process -> reported

Candidates take turns: each is measured in several short rounds, so that what disturbs the
device for a while disturbs all of them. Their store goes when the trial is over.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_sdk.agent.delivery import Delivery
from edge_sdk.agent.plan import Target
from edge_sdk.bundle.blobs import hex_of
from edge_sdk.bundle.measurements import DeviceFigures
from edge_sdk.bundle.store import Store
from edge_sdk.errors import EdgeSdkError
from edge_sdk.runtime import trial as runtime
from edge_sdk.runtime.trial import Question
from edge_sdk.shadow.trials import Trial, TrialCandidate, TrialResult

log = logging.getLogger(__name__)

ROUNDS = 3
_RETRY_S = 30.0
_RESERVE = 32 << 20  # bytes that stay free beside a candidate
_LEAST = 48 << 20  # what Python and an engine take with no model at all
_MOST_RESTARTS = 2
_FIELD = 200  # characters of a text that is reported: shadows are small
Measure = Callable[[Question, Callable[[], bool]], DeviceFigures]


class Trials:
    """One trial at a time; wished for and begun by one thread, measured by another.

    Args:
        folder: Where candidates are kept while they are measured.
        delivery: Where they come from.
        clock: Seconds, monotonic.
        memory: Bytes that a candidate's process may use.
        about: What the device is.
        measure: Measures one candidate.
    """

    def __init__(
        self,
        folder: Path,
        delivery: Delivery,
        *,
        clock: Callable[[], float],
        memory: Callable[[], int | None],
        about: Callable[[], str],
        measure: Measure = runtime.measure,
    ) -> None:
        self._folder = folder
        self._delivery = delivery
        self._clock = clock
        self._memory = memory
        self._about = about
        self._measure = measure
        self._lock = threading.Lock()  # of what both threads change
        self._wanted: Trial | None = None
        self._under_way = False
        self._cancelled = False
        self._not_before = 0.0
        self.result: TrialResult | None = None

    def desire(self, desired: Mapping[str, Any], reported: Mapping[str, Any]) -> None:
        """Takes what the shadow says; a trial that was measured before is not done again."""
        try:
            wanted = msgspec.convert(desired["trial"], Trial) if desired.get("trial") else None
            done = msgspec.convert(reported["trial"], TrialResult) if "trial" in reported else None
        except msgspec.ValidationError as error:
            log.error("the trial that is desired cannot be read: %s", error)
            return
        with self._lock:
            changed = wanted != self._wanted
            if changed:
                self.cancel()
                self._wanted, self._not_before = wanted, 0.0
            if wanted is None:
                self.result = None
            elif self.result is None or self.result.id != wanted.id:
                self.result = _taken_up(wanted, done)
            if not self._under_way and (changed or not self.waits):
                self._clean()

    @property
    def due(self) -> float | None:
        """When to go on though nothing comes; ``None`` for never."""
        return self._not_before if self._not_before > self._clock() and self.waits else None

    @property
    def waits(self) -> bool:
        """Whether there is a trial that is not over."""
        wanted, result = self._wanted, self.result
        return wanted is not None and (
            result is None or result.id != wanted.id or result.status in ("waiting", "measuring")
        )

    @property
    def ready(self) -> bool:
        """Whether there is something to do now."""
        return self.waits and self._clock() >= self._not_before

    def cancel(self) -> None:
        """Ends what is under way soon; from any thread. It is begun again later."""
        self._cancelled = True

    def begin(self) -> Callable[[], None]:
        """What measures all candidates, for another thread; what goes wrong is recorded.

        From here on, :meth:`cancel` ends it.
        """
        wanted = self._wanted
        assert wanted is not None, "nothing is ready"
        self._cancelled, self._under_way = False, True
        return lambda: self._perform(wanted)

    def _perform(self, wanted: Trial) -> None:
        try:
            self._say(wanted, status="measuring", machine=self._about())
            bundles = {one.name: self._fetch(wanted, one) for one in wanted.candidates}
            figures = self._rounds(wanted, bundles)
            self._say(wanted, status="done", figures=figures, candidate=None)
        except (EdgeSdkError, OSError) as error:
            if self._cancelled or getattr(error, "passing", False):
                self._not_before = self._clock() + (0.0 if self._cancelled else _RETRY_S)
                self._say(wanted, status="waiting", candidate=None)
            else:
                self._failed(wanted, error)
        except Exception as error:  # a trial's edge: it is recorded, and what serves goes on
            log.exception("the trial %s failed", wanted.id)
            self._failed(wanted, error)
        with self._lock:
            self._under_way = False
            goes_on = self._wanted == wanted and self.waits
        if not goes_on:
            self._clean()

    def _failed(self, wanted: Trial, error: Exception) -> None:
        log.warning("the trial %s failed: %s", wanted.id, error)
        self._say(wanted, status="failed", error=str(error)[:_FIELD], candidate=None)

    def _clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _fetch(self, wanted: Trial, candidate: TrialCandidate) -> Path:
        """Brings a candidate; the path by which the runtime opens it."""
        target = Target(digest=candidate.digest, version=candidate.name, ref=candidate.ref)
        store = Store(self._folder / hex_of(candidate.digest))
        found = self._delivery.fetch(
            target,
            lambda so_far: self._say(
                wanted, candidate=candidate.name, fetched_bytes=so_far.bytes_done
            ),
            lambda: self._cancelled,
            into=store.root,
        )
        entry = store.enter(found.descriptor, candidate.digest)
        return Path(f"{store.root}#{entry.name}:{entry.version}")

    def _rounds(self, wanted: Trial, bundles: Mapping[str, Path]) -> dict[str, DeviceFigures]:
        found: dict[str, list[DeviceFigures]] = {name: [] for name in bundles}
        for _ in range(ROUNDS):
            for name, bundle in bundles.items():
                if any(figures.error for figures in found[name]):
                    continue
                self._say(wanted, candidate=name, fetched_bytes=0)
                found[name].append(self._measured(wanted, bundle))
        return {name: _median(rounds) for name, rounds in found.items()}

    def _measured(self, wanted: Trial, bundle: Path) -> DeviceFigures:
        limit = self._memory()
        if limit is not None:
            limit -= _RESERVE
            if limit < _LEAST:
                return DeviceFigures(error=f"only {max(0, limit) >> 20} MiB of memory are left")
        question = Question(bundle, wanted.seconds / ROUNDS, wanted.threads, limit)
        return self._measure(question, lambda: self._cancelled)

    def _say(self, wanted: Trial, **changes: Any) -> None:
        with self._lock:
            known = self.result
            if known is not None and known.id == wanted.id:  # else another is wanted meanwhile
                self.result = msgspec.structs.replace(known, **changes)


def _taken_up(wanted: Trial, reported: TrialResult | None) -> TrialResult:
    """Where a trial stands that this process hears of for the first time."""
    known = reported if reported and reported.id == wanted.id else None
    if known is None or known.status in ("done", "failed"):
        return known or TrialResult(id=wanted.id, status="waiting")
    restarts = known.restarts + (known.status == "measuring")
    if restarts > _MOST_RESTARTS:
        error = f"the agent ended {restarts} times while it measured"
        return TrialResult(id=wanted.id, status="failed", error=error)
    return TrialResult(id=wanted.id, status="waiting", restarts=restarts)


def _median(rounds: list[DeviceFigures]) -> DeviceFigures:
    """One candidate's figures over all rounds; the first load is the one that counts."""
    failed = next((figures.error for figures in rounds if figures.error), None)
    if failed:
        return DeviceFigures(error=failed[:_FIELD])

    def middle(field: str) -> float | None:
        values = [getattr(figures, field) for figures in rounds]
        return None if None in values else round(statistics.median(values), 4)

    return msgspec.structs.replace(
        rounds[0],
        **{field: middle(field) for field in ("p50_ms", "p95_ms", "tokens_per_second", "ttft_ms")},
        load_ms=round(rounds[0].load_ms, 2),
        calls=sum(figures.calls for figures in rounds),
        peak_rss_bytes=max(figures.peak_rss_bytes for figures in rounds),
        notes=tuple(note[:_FIELD] for note in rounds[0].notes[:2]),
    )
