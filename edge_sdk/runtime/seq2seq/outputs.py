"""Several outputs at once: each reads its input, then all write a token in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_sdk.runtime.generation.stream import Request, Stream
from edge_sdk.runtime.generation.turns import Turns
from edge_sdk.runtime.seq2seq.network import Logits, Network, Output
from edge_sdk.runtime.seq2seq.prompt import Start, begin

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Feeds


@dataclass(frozen=True, kw_only=True)
class Reading(Request):
    """What to read and how to write; ``prompt`` is what the output begins with.

    Attributes:
        feeds: The encoder's inputs, of batch 1.
        languages: Where not empty, the likeliest of these tokens takes the second place of
            ``prompt``.
    """

    feeds: Feeds
    languages: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Tokens of a text, frames of a sound."""
        return int(next(iter(self.feeds.values())).shape[-1])


class Outputs(Turns):
    """Runs requests over one network. Safe to use from several threads.

    Args:
        network: The two graphs.
        count: Outputs that are written at the same time; others wait.
        capacity: Most tokens of each.
    """

    def __init__(self, network: Network, count: int, capacity: int) -> None:
        super().__init__()
        self._network: Network | None = network
        self._count = count
        self._capacity = capacity
        self._written: dict[Stream, Output] = {}

    def _compute(self) -> None:
        """One token of every output that runs; an input is read before its first one."""
        while len(self._active) < self._count and (stream := self._next()) is not None:
            self._activate(stream)
        for stream in self._active:
            with self._failing([stream]):
                self._draw(stream, self._logits(stream))

    def _logits(self, stream: Stream) -> Logits:
        output = self._written.get(stream)
        if output is None:
            output = self._written[stream] = self._begin(stream.request)
        missing = stream.tokens[output.length :]
        # None is missing where a step was interrupted before it drew.
        logits: Logits = (output.append(missing) if missing else output.logits)[-1]
        return logits

    def _begin(self, request: Request) -> Output:
        """Reads the input, and writes what the output begins with."""
        network = self._network
        assert network is not None and isinstance(request, Reading)
        output = network.write(network.read(request.feeds), self._capacity)
        begin(output, Start(request.prompt, request.languages))
        return output

    def _retire(self) -> None:
        super()._retire()
        self._written = {s: output for s, output in self._written.items() if s in self._active}

    def _release(self) -> None:
        self._written.clear()
        self._network = None
