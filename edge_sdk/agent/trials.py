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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_sdk.agent.delivery import Delivery
from edge_sdk.agent.plan import Target
from edge_sdk.bundle.measurements import DeviceFigures
from edge_sdk.bundle.store import Store
from edge_sdk.errors import EdgeSdkError
from edge_sdk.runtime import trial as runtime
from edge_sdk.runtime.trial import Question
from edge_sdk.shadow.trials import Trial, TrialResult

log = logging.getLogger(__name__)

ROUNDS = 3
_RETRY_S = 30.0
_RESERVE = 32 << 20  # bytes that stay free beside a candidate
_LEAST = 48 << 20  # what Python and an engine take with no model at all
Measure = Callable[[Question, Callable[[], bool]], DeviceFigures]


class Trials:
    """One trial at a time.

    Args:
        folder: Where candidates are kept while they are measured.
        delivery: Where they come from.
        clock: Seconds, monotonic.
        memory: Bytes that a candidate's process may use.
        about: What the device is, and its engines.
        measure: Measures one candidate.
    """

    def __init__(
        self,
        folder: Path,
        delivery: Delivery,
        *,
        clock: Callable[[], float],
        memory: Callable[[], int | None],
        about: Callable[[], tuple[str, dict[str, str]]],
        measure: Measure = runtime.measure,
    ) -> None:
        self._folder = folder
        self._delivery = delivery
        self._clock = clock
        self._memory = memory
        self._about = about
        self._measure = measure
        self._wanted: Trial | None = None
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
        if wanted != self._wanted:
            self.cancel()
            self._wanted, self._not_before = wanted, 0.0
        if done and wanted and done.id == wanted.id and done.status in ("done", "failed"):
            self.result = done
        elif wanted and (self.result is None or self.result.id != wanted.id):
            self.result = TrialResult(id=wanted.id, status="waiting")
        elif wanted is None:
            self.result = None

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

    def perform(self) -> None:
        """Measures all candidates; what goes wrong is recorded."""
        wanted = self._wanted
        if wanted is None:
            return
        self._cancelled = False
        try:
            machine, engines = self._about()
            self.result = TrialResult(
                id=wanted.id, status="measuring", machine=machine, engines=engines
            )
            bundles = {name: self._fetch(wanted, name) for name in wanted.candidates}
            self._say(wanted, status="done", figures=self._rounds(wanted, bundles), candidate=None)
        except (EdgeSdkError, OSError) as error:
            if self._cancelled or getattr(error, "passing", False):
                self._not_before = self._clock() + (0.0 if self._cancelled else _RETRY_S)
                self._say(wanted, status="waiting", candidate=None)
                return
            log.warning("the trial %s failed: %s", wanted.id, error)
            self._say(wanted, status="failed", error=str(error), candidate=None)
        self._clean()

    def _clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _fetch(self, wanted: Trial, name: str) -> Path:
        """Brings a candidate; the path by which the runtime opens it."""
        self._say(wanted, candidate=name)
        candidate = wanted.candidates[name]
        target = Target(digest=candidate.digest, version=name, ref=candidate.ref)
        store = Store(self._folder / candidate.digest.removeprefix("sha256:")[:16])
        found = self._delivery.fetch(
            target, lambda progress: None, lambda: self._cancelled, into=store.root
        )
        entry = store.enter(found.descriptor, candidate.digest)
        return Path(f"{store.root}#{entry.name}:{entry.version}")

    def _rounds(self, wanted: Trial, bundles: Mapping[str, Path]) -> dict[str, DeviceFigures]:
        found: dict[str, list[DeviceFigures]] = {name: [] for name in bundles}
        for _ in range(ROUNDS):
            for name, bundle in bundles.items():
                if any(figures.error for figures in found[name]):
                    continue
                self._say(wanted, candidate=name)
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
        known = self.result
        if known is None or known.id != wanted.id:
            return  # another trial is wanted meanwhile, or none
        self.result = msgspec.structs.replace(known, **changes)


def _median(rounds: list[DeviceFigures]) -> DeviceFigures:
    """One candidate's figures over all rounds; the first load is the one that counts."""
    failed = next((figures for figures in rounds if figures.error), None)
    if failed:
        return failed
    return msgspec.structs.replace(
        rounds[0],
        p50_ms=round(statistics.median(figures.p50_ms for figures in rounds), 4),
        p95_ms=round(statistics.median(figures.p95_ms for figures in rounds), 4),
        load_ms=round(rounds[0].load_ms, 2),
        calls=sum(figures.calls for figures in rounds),
        peak_rss_bytes=max(figures.peak_rss_bytes for figures in rounds),
    )
