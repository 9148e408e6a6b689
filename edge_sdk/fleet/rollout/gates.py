"""What a version must show on the devices that have it before others get it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median

import msgspec

from edge_sdk.errors import ConfigError
from edge_sdk.shadow.models import Health


class Gates(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a rollout. One that is exceeded ends it, and takes the version back.

    Those that another version of this product has are ignored.

    Attributes:
        max_failed: Share of devices that may fail: not install it, roll it back by themselves,
            or fall silent over it.
        max_error_rate: Share of requests that may fail, over all devices.
        max_p95_ratio: How many times slower the 95th percentile of latency may be than with the
            version before, in the median of the devices.
        p95_slack_ms: Milliseconds by which it may be slower however fast the version before
            was: between fractions of a millisecond the ratio is noise.
        max_drift: Population stability index of the outputs against the version before, in the
            median of the devices; ``None`` judges no drift, as a new version may mean to differ.
            Above 0.25 is commonly taken for a shift.
        min_requests: A device's health counts from this many requests on; the error rate from
            as many over all devices.
        min_devices: As many devices must run the version before a stage is passed, and have
            answered before ``max_failed`` is judged.
        soak_s: Seconds for which all must hold before the next stage.
        max_wait_s: A device that shows no sign of progress for so long has failed if it was
            reached, and is left out if it was offline all along.
    """

    max_failed: float = 0.05
    max_error_rate: float | None = 0.02
    max_p95_ratio: float | None = 1.5
    p95_slack_ms: float = 5.0
    max_drift: float | None = None
    min_requests: int = 20
    min_devices: int = 1
    soak_s: float = 30.0
    max_wait_s: float = 600.0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{value} is not from {low:g} to {high:g}", where=name)


_RANGES = (
    ("max_failed", 0, 1),
    ("max_error_rate", 0, 1),
    ("max_p95_ratio", 0, 1000),
    ("p95_slack_ms", 0, 1_000_000),
    ("max_drift", 0, 1000),
    ("min_requests", 1, 1_000_000_000),
    ("min_devices", 1, 1_000_000_000),
    ("soak_s", 0, 30 * 86400),
    ("max_wait_s", 1, 30 * 86400),
)


def changed(gates: Gates, settings: Iterable[str]) -> Gates:
    """Gates with some limits set by ``name=value``; ``none`` switches one off.

    Raises:
        ConfigError: There is no such limit, or the value is none for it.
    """
    values = msgspec.to_builtins(gates)
    known = ", ".join(values)
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in values:
            raise ConfigError(f"there is no limit {name!r}", where="gate", remedy=f"use {known}")
        values[name] = None if text == "none" else text
    try:
        return msgspec.convert(values, Gates, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{', '.join(settings)}: {error}",
            where="gate",
            remedy=f"write name=value; there are {known}",
        ) from error


def breaches(gates: Gates, pairs: Iterable[tuple[Health, Health | None]]) -> Iterator[str]:
    """What the health of the devices that run a version shows against it.

    Args:
        gates: The limits.
        pairs: Per device the version's health, and that of the version before it.

    Yields:
        Each limit that is exceeded, as a sentence's beginning.
    """
    known = [(new, old) for new, old in pairs if new.requests]
    requests = sum(new.requests for new, _ in known)
    errors = sum(new.errors for new, _ in known)
    if gates.max_error_rate is not None and requests >= gates.min_requests:
        rate = errors / requests
        if rate > gates.max_error_rate:
            yield f"fails {rate:.1%} of {requests} requests (limit {gates.max_error_rate:.1%})"
    enough = [(new, old) for new, old in known if new.requests >= gates.min_requests]
    yield from _slower(gates, enough)
    drifts = [new.drift for new, _ in enough if new.drift is not None]
    if gates.max_drift is not None and drifts and median(drifts) > gates.max_drift:
        yield f"outputs drift by {median(drifts):.2f} (limit {gates.max_drift:g})"


def _slower(gates: Gates, pairs: Iterable[tuple[Health, Health | None]]) -> Iterator[str]:
    times = [
        (new.p95_ms, old.p95_ms)
        for new, old in pairs
        if old and old.requests >= gates.min_requests and new.p95_ms is not None and old.p95_ms
    ]
    if gates.max_p95_ratio is None or not times:
        return
    ratio = median(new / old for new, old in times)
    slower = median(new - old for new, old in times)
    if ratio > gates.max_p95_ratio and slower > gates.p95_slack_ms:
        yield (
            f"latency p95 is {ratio:.2f} times that of the version before, {slower:.3g} ms more "
            f"(limits {gates.max_p95_ratio:g} and {gates.p95_slack_ms:g} ms)"
        )
