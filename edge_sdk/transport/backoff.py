"""How long to wait before trying again, so that a crowd does not come back all at once."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """Delays that grow, each drawn at random between the shortest and three times the last.

    That is "decorrelated jitter" (M. Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015): of the schemes compared there, among those with the least load.

    Attributes:
        shortest: Seconds.
        longest: Seconds.
        source: Of randomness.
    """

    shortest: float = 1.0
    longest: float = 120.0
    source: random.Random = field(default_factory=random.Random)
    _last: float = 0.0

    def delay(self) -> float:
        """Seconds to wait before the next attempt."""
        upper = max(self.shortest, self._last) * 3
        self._last = min(self.longest, self.source.uniform(self.shortest, upper))
        return self._last

    def succeeded(self, seconds: float) -> None:
        """Begins with short delays again after a success that lasted.

        One that ended sooner than the delay before it does not count: two clients that push
        each other out must not do so ever faster.
        """
        if seconds > self._last:
            self._last = 0.0
