"""How versions do: the watch over one that has just begun to serve, and what is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from edge_sdk.agent.health_gate import Gate, judge
from edge_sdk.agent.journal import Failure
from edge_sdk.agent.plan import Verdict
from edge_sdk.serving.served import Served
from edge_sdk.shadow.models import Health


@dataclass(frozen=True)
class Watch:
    """The watch over one version; only requests since its beginning count.

    Attributes:
        served: The version.
        begun: When, by the agent's clock.
        answered: Requests that had gone well by then.
        errors: Requests that had failed by then.
    """

    served: Served
    begun: float
    answered: int
    errors: int

    @classmethod
    def begin(cls, served: Served, clock: Callable[[], float]) -> Watch:
        """Begins to watch now."""
        totals = served.health.totals()
        return cls(served, clock(), totals.answered, totals.errors)

    def verdict(self, gate: Gate, now: float) -> Verdict | None:
        """What to think of the version; ``None`` while it must be watched on."""
        requests, errors = self._counts()
        return judge(gate, requests, errors, now - self.begun)

    def explained(self, failure: Failure) -> Failure:
        """What the watch ended with, and the figures of it."""
        requests, errors = self._counts()
        error = f"{failure.error}: {errors} of {requests}"
        return msgspec.structs.replace(failure, error=error)

    def _counts(self) -> tuple[int, int]:
        totals = self.served.health.totals()
        errors = totals.errors - self.errors
        return totals.answered - self.answered + errors, errors


def health_of(served: Served) -> Health | None:
    """How a version did over the last window; ``None`` where there is nothing to say."""
    figures, drift, notes = served.figures(), served.drift, served.model.notes
    if not figures.requests and not notes:
        return None
    return Health(
        requests=figures.requests,
        errors=figures.errors,
        p50_ms=_rounded(figures.p50_ms),
        p95_ms=_rounded(figures.p95_ms),
        drift=_rounded(drift),
        window_s=round(figures.window_s, 1),
        notes=notes,
    )


def _rounded(value: float | None) -> float | None:
    """Three digits say all that is known."""
    return None if value is None else float(f"{value:.3g}")
