"""What ``edge-sdk demo --json`` prints."""

from __future__ import annotations

import msgspec

from edge_sdk.fleet.rollout.state import Status


class DemoVariant(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen for one profile.

    Attributes:
        profile: The device profile.
        recipe: The candidate that ships.
        size_bytes: Its weights.
        size_ratio: The source's size over that.
        speedup: Source latency over the variant's.
        speedup_measured: Whether it was measured here or is the profile's prediction.
        increase: Share by which perplexity rises.
    """

    profile: str
    recipe: str
    size_bytes: int
    size_ratio: float
    speedup: float | None
    speedup_measured: bool
    increase: float


class DemoBundle(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the model.

    Attributes:
        path: Where it is.
        version: Its version.
        size_bytes: Its blobs, each once.
        unshared_bytes: What its variants would take if each had blobs of its own.
        seconds: Time that making it took.
        variants: One per profile; none are listed of the one that was damaged on purpose.
    """

    path: str
    version: str
    size_bytes: int
    unshared_bytes: int
    seconds: float
    variants: tuple[DemoVariant, ...] = ()


class DemoRollout(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one version in the fleet.

    Attributes:
        version: The version.
        status: How the rollout ended.
        note: Why, in words.
        seconds: From asking for it to its end.
    """

    version: str
    status: Status
    note: str
    seconds: float


class DemoAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an application on a device was told.

    Attributes:
        thing: The device.
        version: The version that answered.
        question: What was asked.
        answer: What came back.
        ms: Milliseconds for the whole answer, over HTTP.
    """

    thing: str
    version: str
    question: str
    answer: str
    ms: float


class DemoDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device and what it had to fetch.

    Attributes:
        thing: Its name.
        profile: The profile whose variant it takes.
        labels: Its labels.
        first_bytes: Fetched for the first version.
        tuned_bytes: Fetched for the version in which one layer differs.
        version: What it runs in the end.
    """

    thing: str
    profile: str
    labels: dict[str, str]
    first_bytes: int
    tuned_bytes: int
    version: str


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """What ``edge-sdk demo --json`` prints.

    Attributes:
        folder: Where everything is.
        bundles: The versions, in the order in which they were made.
        rollouts: What became of each.
        answers: What devices answered, in the order of the story.
        devices: The fleet.
        away: The device that was killed and started again.
        caught_up_s: Seconds from its start to its running what it had missed.
        seconds: Time taken.
    """

    folder: str
    bundles: tuple[DemoBundle, ...]
    rollouts: tuple[DemoRollout, ...]
    answers: tuple[DemoAnswer, ...]
    devices: tuple[DemoDevice, ...]
    away: str
    caught_up_s: float
    seconds: float
    schema: str = "org.edge-sdk.demo/1"
