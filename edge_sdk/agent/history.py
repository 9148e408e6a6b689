"""What has happened since it was last told: the difference of two journals. Pure.

So nothing is missed where a process is killed between what it did and the telling of it: the
next one finds the same difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from edge_sdk.agent import plan
from edge_sdk.agent.journal import Entry, Failure, Journal, ModelEntry, Release
from edge_sdk.shadow.events import Happening
from edge_sdk.shadow.models import Desired

ROUTINE = frozenset(("started", "canary_started", "canary_ended"))
"""Kinds that are dropped before others."""
CRASH_SECONDS = 3600.0
"""A process that dies again and again is told of so often."""


class ToldModel(Entry, frozen=True, kw_only=True):
    """What was told of one model.

    Attributes:
        running: The version that serves.
        failures: Versions that failed: digest and generation.
        canary: The version on trial.
    """

    running: Release | None = None
    failures: tuple[str, ...] = ()
    canary: Release | None = None


class Told(Entry, frozen=True, kw_only=True):
    """What was told so far.

    Attributes:
        models: By name.
        begun: Whether an agent has ever started here.
        ended: Whether the last one ended in good order.
        crashes: Bad ends that were not told yet.
        crash_told: When one was told last.
        dropped: Events that were lost.
    """

    models: dict[str, ToldModel] = msgspec.field(default_factory=dict)
    begun: bool = False
    ended: bool = False
    crashes: int = 0
    crash_told: float | None = None
    dropped: int = 0


_NOTHING = ToldModel()


def started(told: Told, now: float) -> tuple[tuple[Happening, ...], Told]:
    """Tells a start, where it is the first one or the end before was none in good order.

    Args:
        told: What was told so far.
        now: Seconds since 1970.

    Returns:
        What happened, and what is told then.
    """
    crashes = told.crashes + (told.begun and not told.ended)
    last = told.crash_told
    quiet = last is not None and 0 <= now - last < CRASH_SECONDS
    if told.begun and (told.ended or quiet):
        return (), msgspec.structs.replace(told, ended=False, crashes=crashes)
    after = msgspec.structs.replace(
        told, begun=True, ended=False, crashes=0, crash_told=now if crashes else last
    )
    return (Happening(kind="started", count=crashes),), after


def happened(
    told: Told, journal: Journal, news: Iterable[Happening] = ()
) -> tuple[tuple[Happening, ...], Told]:
    """What has happened since it was last told.

    Args:
        told: What was told so far.
        journal: As it is now.
        news: What no journal has: canaries that begin, versions that did not load.

    Returns:
        What happened, and what is told then.
    """
    found: list[Happening] = []
    models: dict[str, ToldModel] = {}
    for name in sorted(told.models.keys() | journal.models.keys()):
        was, entry = told.models.get(name, _NOTHING), journal.model(name)
        found += _differences(name, was, entry, journal)
        models[name] = ToldModel(
            running=entry.running,
            failures=tuple(map(_key, entry.failures)),
            canary=_canary(name, was, entry, journal),
        )
    for one in news:
        if one.kind == "canary_started":
            known, release = models.get(one.model, _NOTHING), _named(one)
            if known.canary == release:
                continue  # again, after a restart, or with another share
            models[one.model] = msgspec.structs.replace(known, canary=release)
        found.append(one)
    kept = {name: model for name, model in models.items() if model != _NOTHING}
    return tuple(found), msgspec.structs.replace(told, models=kept)


def of_step(step: plan.Step, moment: str, problems: Mapping[str, str]) -> tuple[Happening, ...]:
    """What no journal has of a step that was done, or failed.

    Args:
        step: The step.
        moment: What became of it.
        problems: Bundle -> why this process could not load it.
    """
    if isinstance(step, plan.StartCanary) and moment == "done":
        return (_of("canary_started", step.model, step.target.release),)
    if isinstance(step, plan.Load | plan.RollBack) and moment == "failed":
        problem = problems.get(step.release.digest)
        return (_of("failed", step.model, step.release, problem),) if problem else ()
    return ()


def _differences(
    name: str, was: ToldModel, entry: ModelEntry, journal: Journal
) -> Iterator[Happening]:
    running, before = entry.running, was.running
    went_back = False
    for failure in entry.failures:
        if _key(failure) not in was.failures:
            release = _release(name, failure.digest, was, entry, journal)
            yield _of(failure.status, name, release, failure.error)
            went_back |= before is not None and failure.digest == before.digest
    if running and (before is None or running.digest != before.digest) and not went_back:
        yield _of("installed", name, running)
    elif before and running is None:
        yield _of("removed", name, before)
    canary = was.canary
    if canary and not _canary(name, was, entry, journal):
        replaces = running is not None and running.digest == canary.digest
        failed = any(failure.digest == canary.digest for failure in entry.failures)
        if not replaces and not failed:
            yield _of("canary_ended", name, canary)


def _canary(name: str, was: ToldModel, entry: ModelEntry, journal: Journal) -> Release | None:
    """The version that was told to be on trial, while it is meant to be."""
    model = (journal.desired or Desired()).models.get(name)
    trial = plan.on_trial(model) if model else None
    if trial is None or was.canary is None or trial.digest != was.canary.digest:
        return None
    return None if entry.failure(trial.digest, trial.generation) else was.canary


def _release(
    name: str, digest: str, was: ToldModel, entry: ModelEntry, journal: Journal
) -> Release:
    """A version by its digest, as far as anything here still knows it."""
    model = (journal.desired or Desired()).models.get(name)
    targets = (plan.wanted(model), plan.on_trial(model)) if model else ()
    known = (entry.running, entry.previous, was.running, was.canary)
    releases = (*(target.release for target in targets if target), *filter(None, known))
    unknown = Release(digest=digest, version="")
    return next((release for release in releases if release.digest == digest), unknown)


def _named(one: Happening) -> Release:
    return Release(digest=one.digest, version=one.version)


def _key(failure: Failure) -> str:
    return f"{failure.digest} {failure.generation}"


def _of(kind: str, name: str, release: Release, error: str | None = None) -> Happening:
    return Happening(
        kind=kind, model=name, version=release.version, digest=release.digest, error=error or ""
    )
