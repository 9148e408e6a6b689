"""What is watched of a version that has just begun to serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_sdk.agent.health_gate import Gate, judge
from edge_sdk.agent.plan import Verdict
from edge_sdk.serving.served import Served


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
        totals = self.served.health.totals()
        errors = totals.errors - self.errors
        return judge(gate, totals.answered - self.answered + errors, errors, now - self.begun)
