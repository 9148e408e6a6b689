"""Several streams through one decoder: continuous batching.

A step (:mod:`edge_sdk.runtime.generation.turns`) draws one token of every running
stream in one call of the graph and computes at most one chunk of a prompt.
"""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING

from edge_sdk.runtime.generation.pace import Pace
from edge_sdk.runtime.generation.prefix import Rows
from edge_sdk.runtime.generation.stream import Stream
from edge_sdk.runtime.generation.turns import Turns

if TYPE_CHECKING:
    from edge_sdk.runtime.generation.decoders import Decoders


class Scheduler(Turns):
    """Runs streams over the rows of one decoder's KV cache. Safe to use from several threads.

    Streams beyond the number of rows wait their turn.

    Args:
        decoders: Run the graph.
    """

    def __init__(self, decoders: Decoders) -> None:
        super().__init__()
        self._decoders = decoders
        self._rows = Rows(decoders.cache.rows)
        self._pace = Pace()

    def _compute(self) -> None:
        """One step. It may be interrupted anywhere (Ctrl-C), and the next one goes on.

        What a stream lacks is what its row does not say to hold, so a row says so only
        after the tokens are there and the one that follows them is drawn.
        """
        self._admit()
        self._decode_all()
        self._prefill_one()

    def _release(self) -> None:
        self._decoders.close()

    def _give_back(self) -> None:
        super()._give_back()
        self._decoders.rest()

    def _admit(self) -> None:
        """Gives rows to waiting streams, first come, first served."""
        while (stream := self._next()) is not None:
            request = stream.request
            busy = {other.row for other in self._active}
            place = self._rows.take(request.prompt, request.adapter, busy)
            if place is None:
                return
            stream.row, stream.cached = place.row, place.cached
            self._activate(stream)
            if place.source is not None:
                self._decoders.cache.copy(place.source, place.row, place.cached)
                self._rows[place.row].tokens += request.prompt[: place.cached]

    def _retire(self) -> None:
        for stream in self._active:
            if stream.finished:
                self._rows.touch(stream.row)
        super()._retire()

    def _missing(self, stream: Stream) -> int:
        """Tokens of a stream that its row does not hold yet."""
        return len(stream.tokens) - len(self._rows[stream.row].tokens)

    def _decode_all(self) -> None:
        """Draws a token of each stream that lacks one only, in one call per adapter."""
        ready = [stream for stream in self._active if self._missing(stream) == 1]
        if not ready:
            return
        begin = time.perf_counter()
        ready.sort(key=lambda stream: stream.request.adapter or "")
        for adapter, group in groupby(ready, key=lambda stream: stream.request.adapter):
            with self._failing(streams := list(group)):
                self._decode(adapter, streams)
        seconds = time.perf_counter() - begin
        self._pace.decoded(seconds)
        self._decoders.took(seconds)

    def _decode(self, adapter: str | None, group: list[Stream]) -> None:
        """Draws a token of each stream in one call over neighbouring rows.

        A row between them that is not of the group computes something too: it is
        written behind the row's own tokens, where nobody reads.
        """
        self._close_up(group)
        streams = {stream.row: stream for stream in group}
        rows = range(min(streams), max(streams) + 1)
        past = [len(self._rows[row].tokens) for row in rows]
        tokens = [streams[row].tokens[-1] if row in streams else 0 for row in rows]
        logits = self._decoders.of(adapter).decode(rows[0], tokens, past)
        for row, stream in streams.items():
            self._draw(stream, logits[row - rows[0]])
            self._rows[row].tokens.append(tokens[row - rows[0]])

    def _prefill_one(self) -> None:
        """Computes a chunk of the shortest prompt, if the pace of the running streams allows."""
        behind = [stream for stream in self._active if self._missing(stream) > 1]
        if not behind:
            return
        size = self._pace.chunk(running=len(behind) < len(self._active))
        if not size:
            return
        begin = time.perf_counter()
        stream = min(behind, key=self._missing)
        with self._failing([stream]):
            tokens = self._prefill(stream, size)
            self._pace.prefilled(tokens, time.perf_counter() - begin)

    def _prefill(self, stream: Stream, size: int) -> int:
        """Computes about ``size`` tokens of a prompt; how many it was."""
        held = self._rows[stream.row].tokens
        # A prompt's last token alone would be rounded otherwise (see FRESH).
        size += self._missing(stream) == size + 1
        chunk = stream.tokens[len(held) : len(held) + size]
        last = len(held) + len(chunk) == len(stream.tokens)
        decoder = self._decoders.of(stream.request.adapter)
        logits = decoder.prefill(stream.row, chunk, len(held), last)
        if logits is not None:
            self._draw(stream, logits)
        held += chunk
        return len(chunk)

    def _close_up(self, group: list[Stream]) -> None:
        """Moves the outermost stream into a gap between the group's rows, if there is one.

        A stream more in a call costs a sixth of the first one, on every step; moving a
        few hundred tokens costs as much as a few steps, once.
        """
        rows = {stream.row for stream in group}
        last = max(rows)
        busy = {stream.row for stream in self._active}
        gap = next((row for row in range(min(rows), last) if row not in busy), None)
        if gap is None:
            return
        tokens = [self._rows[row].tokens for row in (gap, last)]
        self._rows[gap].tokens, self._rows[last].tokens = [], []
        self._decoders.cache.swap(gap, last, max(map(len, tokens)))
        self._rows.swap(gap, last)
        next(stream for stream in group if stream.row == last).row = gap
        self._rows[last].tokens, self._rows[gap].tokens = tokens
