"""What an agent does next: a function of what is desired, remembered and there. Pure.

Of everything that could be done the most urgent step is named; it is asked again after each
step, with what is there then. So there is no plan to keep over a restart, and a new wish
takes effect between any two steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from edge_sdk.agent.journal import Failure, Journal, ModelEntry, Release
from edge_sdk.shadow.models import Desired, DesiredModel

Verdict = Literal["good", "bad"]
"""What the watch over a new version found."""


@dataclass(frozen=True)
class Target:
    """A version that is to be installed.

    Attributes:
        digest: Of its bundle's image index.
        version: Its version.
        ref: Where it is.
        allow_older: Whether it may be older than what runs.
        generation: Raised to try again what failed.
    """

    digest: str
    version: str
    ref: str
    allow_older: bool = False
    generation: int = 0

    @property
    def release(self) -> Release:
        """What the journal keeps of it."""
        return Release(digest=self.digest, version=self.version, ref=self.ref)


@dataclass(frozen=True)
class Step:
    """One thing to do about one model.

    Attributes:
        model: The model's name; empty where it is about all of them.
    """

    model: str


@dataclass(frozen=True)
class ToInstall(Step):
    """A step on the way of a version into service."""

    target: Target


@dataclass(frozen=True)
class Load(Step):
    """Serve a version that was installed before, at start."""

    release: Release


@dataclass(frozen=True)
class Fetch(ToInstall):
    """Bring the blobs that are missing."""


@dataclass(frozen=True)
class Verify(ToInstall):
    """Hash what is there, decide on admission, and list the bundle in the store."""


@dataclass(frozen=True)
class Prepare(ToInstall):
    """Load it beside what serves, pack its weights, and let it pass its self-test."""


@dataclass(frozen=True)
class Swap(ToInstall):
    """Let the prepared version serve."""


@dataclass(frozen=True)
class StartCanary(ToInstall):
    """Let the prepared version answer some of the requests."""

    percent: int


@dataclass(frozen=True)
class EndCanary(Step):
    """Let the serving version answer all requests again; a failure is why, if it failed."""

    failure: Failure | None = None


@dataclass(frozen=True)
class Confirm(Step):
    """A new version has done well for long enough."""


@dataclass(frozen=True)
class RollBack(Step):
    """Let the version before serve again."""

    release: Release
    failure: Failure


@dataclass(frozen=True)
class Remove(Step):
    """Serve the model no longer and forget it."""


@dataclass(frozen=True)
class Collect(Step):
    """Take bundles off the store's list, and free what nothing else needs."""

    digests: frozenset[str]


@dataclass(frozen=True)
class Serving:
    """What answers requests for a model.

    Attributes:
        digest: The version's bundle.
        canary: The bundle of a second one.
        percent: Share of requests that the second one answers.
    """

    digest: str
    canary: str | None = None
    percent: int = 0


@dataclass(frozen=True)
class Present:
    """What is there: on the disk, and in this process.

    Attributes:
        installed: Bundles on the store's list, whole as far as is known.
        fetched: Bundles whose blobs have just come.
        admitted: Targets that may be loaded.
        prepared: Model -> bundle that is loaded beside what serves.
        serving: Model -> what answers.
        verdicts: (Model, bundle) -> what the watch over it found.
        unloadable: Bundles that this process could not load.
        waiting: Models about which what failed is tried again later.
        litter: Whether downloads may have left something that nothing needs.
    """

    installed: frozenset[str] = frozenset()
    fetched: frozenset[str] = frozenset()
    admitted: frozenset[Target] = frozenset()
    prepared: Mapping[str, str] = field(default_factory=dict)
    serving: Mapping[str, Serving] = field(default_factory=dict)
    verdicts: Mapping[tuple[str, str], Verdict] = field(default_factory=dict)
    unloadable: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    litter: bool = False


def wanted(model: DesiredModel) -> Target:
    """The version that should serve."""
    return Target(model.digest, model.version, model.ref, model.allow_older, model.generation)


def on_trial(model: DesiredModel) -> Target | None:
    """The version that should answer some of the requests; one that serves all is not on trial."""
    canary = model.canary
    if canary is None or canary.digest == model.digest:
        return None
    # Older is fine: it takes little, and nothing is replaced.
    return Target(canary.digest, canary.version, canary.ref, True, model.generation)


def is_stale(journal: Journal, step: Step | None) -> bool:
    """Whether a download that is under way is not needed any more."""
    return isinstance(step, Fetch) and step.target.digest not in needed(journal)


def next_step(journal: Journal, present: Present) -> Step | None:
    """The most urgent step; ``None`` where all is as it should be, or must wait."""
    for step in _steps(journal, present):
        if step.model not in present.waiting or isinstance(step, _URGENT):
            return step
    return None


_URGENT = (Load, RollBack, EndCanary)  # what keeps a model serving does not wait


def _steps(journal: Journal, present: Present) -> Iterator[Step]:
    desired = journal.desired or Desired()
    for name, entry in journal.models.items():
        yield from _serve_installed(name, entry, present)
    for name, entry in journal.models.items():
        yield from _judge(name, entry, desired.models.get(name), present)
    for name, model in sorted(desired.models.items()):
        yield from _install_main(name, model, journal.model(name), present)
    for name, model in sorted(desired.models.items()):
        yield from _install_canary(name, model, journal.model(name), present)
    for name, entry in journal.models.items():
        if name in desired.models:
            continue
        if entry.managed and journal.desired is not None:
            yield Remove(name)
        else:
            yield from _mend(name, entry, present)
    garbage = present.installed - needed(journal)
    if (garbage or present.litter) and not present.waiting:
        yield Collect("", garbage)


def needed(journal: Journal) -> frozenset[str]:
    """Bundles that serve, may have to serve again, or are on their way to."""
    found: set[str] = set()
    for entry in journal.models.values():
        found.update(release.digest for release in (entry.running, entry.previous) if release)
    for name, model in (journal.desired or Desired()).models.items():
        for target in (wanted(model), on_trial(model)):
            if target and not journal.model(name).failure(target.digest, target.generation):
                found.add(target.digest)
    return frozenset(found)


def _serve_installed(name: str, entry: ModelEntry, present: Present) -> Iterator[Step]:
    if name in present.serving:
        return
    for release in (entry.running, entry.previous):
        if release and release.digest in present.installed - present.unloadable:
            yield Load(name, release)


def _judge(
    name: str, entry: ModelEntry, model: DesiredModel | None, present: Present
) -> Iterator[Step]:
    """What follows from the watch over versions that serve since a short time."""
    serving = present.serving.get(name)
    if serving is None or entry.running is None:
        return
    generation = model.generation if model else 0
    if serving.canary and present.verdicts.get((name, serving.canary)) == "bad":
        yield EndCanary(name, _bad(serving.canary, generation))
    verdict = present.verdicts.get((name, serving.digest))
    if not entry.on_trial or serving.digest != entry.running.digest or verdict is None:
        return
    before = entry.previous
    if verdict == "bad" and before and before.digest in present.installed - present.unloadable:
        yield RollBack(name, before, _bad(serving.digest, generation))
    else:  # with nothing to go back to, a bad version is better than none
        yield Confirm(name)


def _bad(digest: str, generation: int) -> Failure:
    error = "too many of its requests failed"
    return Failure(digest=digest, generation=generation, status="rolled_back", error=error)


def _install_main(
    name: str, model: DesiredModel, entry: ModelEntry, present: Present
) -> Iterator[Step]:
    target = wanted(model)
    serving = present.serving.get(name)
    if serving and serving.digest == target.digest:
        return
    if _hopeless(target, entry, present):
        yield from _mend(name, entry, present)
    elif serving and serving.canary == target.digest:
        yield Swap(name, target)
    else:
        yield from _prepared(name, target, present, Swap(name, target))


def _install_canary(
    name: str, model: DesiredModel, entry: ModelEntry, present: Present
) -> Iterator[Step]:
    target = on_trial(model)
    serving = present.serving.get(name)
    percent = model.canary.percent if model.canary else 0
    if serving is None:
        return
    if target is None or _hopeless(target, entry, present):
        if serving.canary:
            yield EndCanary(name)
    elif (serving.canary, serving.percent) != (target.digest, percent):
        start = StartCanary(name, target, percent)
        loaded = serving.canary == target.digest
        yield from (start,) if loaded else _prepared(name, target, present, start)


def _mend(name: str, entry: ModelEntry, present: Present) -> Iterator[Step]:
    """Brings back what should serve and is damaged; another version may do so meanwhile."""
    release, serving = entry.running, present.serving.get(name)
    if release is None or not release.ref or release.digest in present.unloadable:
        return
    if entry.failure(release.digest):
        return
    if serving is None or serving.digest != release.digest:
        target = Target(release.digest, release.version, release.ref, allow_older=True)
        yield from _prepared(name, target, present, Swap(name, target))


def _hopeless(target: Target, entry: ModelEntry, present: Present) -> bool:
    failed = entry.failure(target.digest, target.generation) is not None
    return failed or target.digest in present.unloadable


def _prepared(name: str, target: Target, present: Present, then: Step) -> Iterator[Step]:
    """What must be done before a version can serve, and then that."""
    if present.prepared.get(name) == target.digest:
        yield then
    elif target in present.admitted:
        yield Prepare(name, target)
    elif target.digest in present.installed | present.fetched:
        yield Verify(name, target)
    else:
        yield Fetch(name, target)
