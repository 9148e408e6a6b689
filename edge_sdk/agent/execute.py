"""Does one step at a time, and remembers what came of it.

A step that fails leaves what serves as it is. Whatever goes wrong becomes part of what the
planner sees: a version not to be tried again, a bundle that is damaged, a download that waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from edge_sdk.agent import history, plan
from edge_sdk.agent.config import AgentConfig
from edge_sdk.agent.delivery import Delivery
from edge_sdk.agent.installing import Installer
from edge_sdk.agent.journal import Failure, Journal, JournalFile, ModelEntry, Release
from edge_sdk.agent.loading import Loader
from edge_sdk.agent.outbox import Outbox
from edge_sdk.agent.plan import Present, Serving, Step, Verdict
from edge_sdk.agent.watch import Watch, health_of
from edge_sdk.bundle.store import Store
from edge_sdk.errors import BundleError, EdgeSdkError, TransferError
from edge_sdk.serving.drift import Histogram
from edge_sdk.serving.router import Router
from edge_sdk.serving.served import Served
from edge_sdk.shadow.models import Desired
from edge_sdk.transport.backoff import Backoff

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0  # between two looks at a version that is watched
_SAID = 240  # characters of an error that are remembered and reported

Observer = Callable[[Step, str], None]
"""Told of every step: ``begin``, then ``done``, ``failed`` or ``waits``."""


class Executor:
    """Executes steps; one at a time, in whatever thread.

    Args:
        config: What the agent was told.
        journal: What survives.
        outbox: Where what happens is noted.
        store: Where bundles are.
        router: What serves.
        delivery: Where bundles come from.
        clock: Seconds, monotonic.
        backoff: Makes the delays of one model's retries.
        observer: Told of every step before and after it.

    Attributes:
        step: The step under way.
        problems: Model -> why what failed is tried again later.
        unloadable: Bundles that this process could not load, and why.
    """

    def __init__(
        self,
        config: AgentConfig,
        journal: JournalFile,
        outbox: Outbox,
        store: Store,
        router: Router,
        delivery: Delivery,
        *,
        clock: Callable[[], float],
        backoff: Callable[[], Backoff],
        observer: Observer,
    ) -> None:
        self._config = config
        self._journal = journal
        self._outbox = outbox
        self._router = router
        self._clock = clock
        self._make_backoff = backoff
        self._observer = observer
        self._loader = Loader(config, store, journal, clock)
        self._installer = Installer(store, self._loader, delivery)
        self._prepared: dict[str, Served] = {}
        self._watches: dict[tuple[str, str], Watch] = {}
        self._delays: dict[str, Backoff] = {}
        self._until: dict[str, float] = {}
        self.step: Step | None = None
        self.problems: dict[str, str] = {}
        self.unloadable: dict[str, str] = {}

    @property
    def journal(self) -> Journal:
        """What is remembered."""
        return self._journal.journal

    @property
    def progress(self) -> float | None:
        """Share of the download under way, 0 to 1."""
        progress = self._installer.progress
        return None if progress is None else progress.bytes_done / max(1, progress.bytes_total)

    @property
    def due(self) -> float | None:
        """When to look again though nothing comes; ``None`` for never."""
        now = self._clock()
        moments = [until for until in tuple(self._until.values()) if until > now]
        if self._watches:
            moments.append(now + _LOOK_SECONDS)
        return min(moments, default=None)

    def desire(self, desired: Desired) -> None:
        """Takes a new wish; what had failed for it or waited is tried anew."""
        before = (self.journal.desired or Desired()).models
        changed = {name for name, model in desired.models.items() if before.get(name) != model}
        for name in changed:
            self._until.pop(name, None)
            self.problems.pop(name, None)
            self.unloadable.pop(desired.models[name].digest, None)
        self._journal.note(lambda journal: _desired(journal, desired, changed))

    def cancel(self) -> None:
        """Ends the download under way at its next piece; it can be resumed."""
        self._installer.cancel()

    def present(self) -> Present:
        """What the planner must know; not while a step is under way."""
        now = self._clock()
        self._free_stale()
        return Present(
            installed=self._installer.installed,
            fetched=self._installer.fetched,
            admitted=frozenset(self._installer.admitted),
            prepared={name: served.digest for name, served in self._prepared.items()},
            serving=serving(self._router),
            verdicts=self._verdicts(now),
            unloadable=frozenset(self.unloadable),
            waiting=frozenset(name for name, until in self._until.items() if now < until),
            litter=self._installer.litter,
        )

    def perform(self, step: Step) -> None:
        """Does a step; what goes wrong is recorded."""
        self.step = step
        self._observer(step, "begin")
        try:
            ACTIONS[type(step)](self, step)
            self._until.pop(step.model, None)
            self.problems.pop(step.model, None)
            moment = "done"
        except (EdgeSdkError, OSError) as error:
            moment = self._failed(step, error)
        except Exception as error:  # a step's edge: it is recorded, and what serves goes on
            log.exception("%s of %s failed", type(step).__name__, step.model)
            moment = self._failed(step, error)
        finally:
            self.step = None
        self._outbox.note(self.journal, history.of_step(step, moment, self.unloadable))
        self._observer(step, moment)

    def close(self) -> None:
        """Frees what was prepared and does not serve, and connections of downloads."""
        self._installer.close()
        for name, digest in self._watches:
            self._loader.passed(name, digest)
        for served in self._prepared.values():
            served.retire()
        self._prepared.clear()

    # What each step does.

    def _load(self, step: plan.Load) -> None:
        entry, digest = self.journal.model(step.model), step.release.digest
        others = {r.digest for r in (entry.running, entry.previous) if r} - {digest}
        served = self._loader.open(
            step.model,
            digest,
            verify=True,
            beside=self._beside(step.model),
            on_trial=entry.on_trial,
            at_any_rate=not others,
        )
        self._router.swap(step.model, served)
        served.compare_with(Histogram(entry.outputs))
        if entry.on_trial:
            self._watch(step.model, served)

    def _fetch(self, step: plan.Fetch) -> None:
        self._installer.fetch(step.model, step.target, self.journal)
        self._delays.pop(step.model, None)

    def _verify(self, step: plan.Verify) -> None:
        self._installer.verify(step.model, step.target, self.journal)

    def _prepare(self, step: plan.Prepare) -> None:
        name, digest = step.model, step.target.digest
        model = (self.journal.desired or Desired()).models.get(name)
        trial = plan.on_trial(model) if model else None
        on_trial = trial is not None and trial.digest == digest
        self._prepared[name] = self._loader.open(
            name,
            digest,
            verify=False,
            beside=self._beside(None if on_trial else name),
            on_trial=on_trial,
        )

    def _swap(self, step: plan.Swap) -> None:
        target, name = step.target, step.model
        route = self._router.routes.get(name)
        trial = route.canary if route and route.canary else None
        served = trial if trial and trial.digest == target.digest else self._prepared[name]
        before = route.stable if route else None
        self._journal.change(lambda journal: self._swapped(journal, name, target.release, before))
        self._prepared.pop(name, None)
        self._installer.admitted.clear()  # by the rules of a version that is replaced now
        self._router.swap(name, served)
        if before is not None:
            self._watch(name, served)

    def _start_canary(self, step: plan.StartCanary) -> None:
        served = self._prepared.pop(step.model, None)
        route = self._router.routes[step.model]
        if route.canary and route.canary.digest == step.target.digest:
            served = route.canary
        assert served is not None, "the planner starts what is prepared"
        self._router.canary(step.model, served, step.percent)
        if (step.model, served.digest) not in self._watches:
            self._watch(step.model, served)

    def _end_canary(self, step: plan.EndCanary) -> None:
        served = self._router.end_canary(step.model)
        watch = self._watches.pop((step.model, served.digest), None) if served else None
        failure = watch.explained(step.failure) if watch and step.failure else step.failure
        if failure is not None:
            self._journal.note_model(step.model, lambda entry: entry.failed(failure))

    def _confirm(self, step: plan.Confirm) -> None:
        digest = self._router.routes[step.model].stable.digest
        self._watches.pop((step.model, digest), None)
        self._journal.note_model(
            step.model, lambda entry: msgspec.structs.replace(entry, on_trial=False)
        )

    def _roll_back(self, step: plan.RollBack) -> None:
        served = self._loader.open(
            step.model, step.release.digest, verify=True, beside=self._beside(step.model)
        )
        bad = self._router.routes[step.model].stable
        health, failure = health_of(bad), step.failure
        if watch := self._watches.get((step.model, bad.digest)):
            failure = watch.explained(failure)

        def changed(entry: ModelEntry) -> ModelEntry:
            went_back = msgspec.structs.replace(
                entry, running=step.release, previous=None, on_trial=False, before=health
            )
            return went_back.failed(failure)

        self._journal.note_model(step.model, changed)
        self._router.swap(step.model, served)
        # With itself as it was, and not with the version that was no good.
        served.compare_with(Histogram(self.journal.model(step.model).outputs))
        self._watches.pop((step.model, bad.digest), None)

    def _remove(self, step: plan.Remove) -> None:
        self._journal.change(lambda journal: journal.with_model(step.model, None))
        self._router.remove(step.model)

    def _collect(self, step: plan.Collect) -> None:
        self._installer.collect(step.digests)

    # What they have in common.

    def _free_stale(self) -> None:
        """Frees what was prepared for a wish that is no more."""
        needed = plan.needed(self.journal)
        for name, served in list(self._prepared.items()):
            if served.digest not in needed:
                self._prepared.pop(name).retire()

    def _beside(self, replaced: str | None) -> list[str]:
        """Bundles that stay loaded when a model's version is replaced, or none."""
        return [
            served.digest
            for name, route in self._router.routes.items()
            for served in route.versions
            if name != replaced or served is not route.stable
        ]

    def _watch(self, name: str, served: Served) -> None:
        self._watches[name, served.digest] = Watch.begin(served, self._clock)

    def _verdicts(self, now: float) -> dict[tuple[str, str], Verdict]:
        routed = {served for route in self._router.routes.values() for served in route.versions}
        self._watches = {key: w for key, w in self._watches.items() if w.served in routed}
        found = {key: w.verdict(self._config.gate, now) for key, w in self._watches.items()}
        for (name, digest), verdict in found.items():
            if verdict == "good":
                self._loader.passed(name, digest)
        return {key: verdict for key, verdict in found.items() if verdict is not None}

    def _swapped(
        self, journal: Journal, name: str, release: Release, before: Served | None
    ) -> Journal:
        entry = journal.model(name)
        previous = next(
            (old for old in (entry.running, entry.previous)
             if old and before and old.digest == before.digest),
            None,
        )  # fmt: skip
        return journal.with_model(
            name,
            msgspec.structs.replace(
                entry,
                running=release,
                previous=previous,
                on_trial=previous is not None,
                managed=entry.managed or name in (journal.desired or Desired()).models,
                fetched=self._installer.fetched_bytes(release.digest),
                before=health_of(before) if before else None,
                outputs=before.outputs.counts if before else (),
                failures=tuple(f for f in entry.failures if f.digest != release.digest),
            ),
        )

    # What is made of failures.

    def _failed(self, step: Step, error: Exception) -> str:
        if isinstance(error, TransferError) and error.passing:
            if not self._installer.cancelled:
                self._wait(step, error)
            return "waits"
        log.warning("%s of %s: %s", type(step).__name__, step.model or "the store", error)
        if isinstance(step, plan.Load | plan.RollBack):
            self._not_loaded(step.release.digest, error)
        elif isinstance(step, plan.ToInstall):
            self._not_installed(step, error)
        else:
            self._wait(step, error)
            return "waits"
        return "failed"

    def _wait(self, step: Step, error: Exception) -> None:
        delays = self._delays.setdefault(step.model, self._make_backoff())
        self._until[step.model] = self._clock() + delays.delay()
        self.problems[step.model] = _said(error)

    def _not_loaded(self, digest: str, error: Exception) -> None:
        if isinstance(error, BundleError):
            self._installer.damaged.add(digest)
        else:
            self.unloadable[digest] = _said(error)

    def _not_installed(self, step: plan.ToInstall, error: Exception) -> None:
        target = step.target
        known = target.digest in self._installer.installed - self._installer.fetched
        if isinstance(step, plan.Verify) and isinstance(error, BundleError) and known:
            self._installer.damaged.add(target.digest)  # it was whole once
            return
        self._installer.give_up(target)
        failure = Failure(
            digest=target.digest, generation=target.generation, status="failed", error=_said(error)
        )
        self._journal.note_model(step.model, lambda entry: entry.failed(failure))


def serving(router: Router) -> dict[str, Serving]:
    """What a router lets answer."""
    return {
        name: Serving(
            route.stable.digest, route.canary.digest if route.canary else None, route.percent
        )
        for name, route in router.routes.items()
    }


def _said(error: Exception) -> str:
    """An error in one line, without its remedy, as far as a shadow has room for it."""
    known = isinstance(error, EdgeSdkError | OSError)
    text = str(error).partition("\n  remedy:")[0] if known else repr(error)
    text = " ".join(text.split())
    return text if len(text) <= _SAID else text[: _SAID - 1] + "…"


def _desired(journal: Journal, desired: Desired, changed: Collection[str]) -> Journal:
    for name in desired.models:
        entry = msgspec.structs.replace(journal.model(name), managed=True)
        if name in changed:
            entry = msgspec.structs.replace(entry, attempts={})
        journal = journal.with_model(name, entry)
    return msgspec.structs.replace(journal, desired=desired)


ACTIONS: dict[type[Step], Callable[[Executor, Any], None]] = {
    plan.Load: Executor._load,
    plan.Fetch: Executor._fetch,
    plan.Verify: Executor._verify,
    plan.Prepare: Executor._prepare,
    plan.Swap: Executor._swap,
    plan.StartCanary: Executor._start_canary,
    plan.EndCanary: Executor._end_canary,
    plan.Confirm: Executor._confirm,
    plan.RollBack: Executor._roll_back,
    plan.Remove: Executor._remove,
    plan.Collect: Executor._collect,
}
