"""Times candidates against the source, in turn, and remembers the ratios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.dataset import Array, Feeds
from converters.materialize import open_path
from converters.measure import latency
from converters.workshop import Built
from edge_sdk.runtime.engine import SessionOptions

_QUICK_SECONDS = 0.25
_THOROUGH_SECONDS = 1.0
# Sessions that are open at once hold sources of this many bytes in all.
_OPEN_BYTES = 2 << 30


@dataclass(frozen=True)
class Timing:
    """One candidate's latency.

    Attributes:
        median_ms: Median of one call.
        speedup: Median over pairs of source latency / candidate latency.
    """

    median_ms: float
    speedup: float


class Stopwatch:
    """Interleaved timing on this host; profiles that share a candidate share its figures.

    The source runs on ONNX Runtime in every round, whatever engine a candidate runs on.

    Args:
        source: The source's graph file.
        source_bytes: Its size with weights.
        calls: Representative calls, states included.
        threads: Intra-op threads of every session.
    """

    def __init__(
        self, source: Path, source_bytes: int, calls: Sequence[Mapping[str, Array]], threads: int
    ) -> None:
        self.options = SessionOptions(threads=threads)
        self.source_path = source
        self.source = open_path(source, self.options)
        self.calls: Sequence[Feeds] = calls
        self.at_once = max(1, _OPEN_BYTES // max(source_bytes, 1))
        self._quick: dict[Path, Timing] = {}
        self._thorough: dict[Path, Timing] = {}

    def time(self, candidates: Sequence[Built], *, thorough: bool) -> dict[Path, Timing]:
        """Times candidates that were not timed before.

        Args:
            candidates: What to time; they and the source run in turn, as many at once as
                memory can be expected to hold.
            thorough: More repeats.

        Returns:
            Graph file -> timing.
        """
        known = self._thorough if thorough else self._quick
        engines = {built.path: built.host_engine for built in candidates}
        paths = [path for path in engines if path not in known]
        for start in range(0, len(paths), self.at_once):
            batch = paths[start : start + self.at_once]
            sessions = {str(self.source_path): self.source}
            for path in batch:
                session = open_path(path, self.options, engines[path])
                sessions.setdefault(str(path), session)
            seconds = _THOROUGH_SECONDS if thorough else _QUICK_SECONDS
            times = latency(sessions, self.calls, seconds * len(sessions))
            for path in batch:
                found = times[str(path)]
                known[path] = Timing(found.median_ms, found.speedup)
        return {built.path: known[built.path] for built in candidates}
