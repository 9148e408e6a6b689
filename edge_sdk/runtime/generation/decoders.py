"""The decoders of one variant: one per adapter and number of threads, over one KV cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import Adapter
from edge_sdk.errors import EdgeSdkError, InputError
from edge_sdk.runtime.engine import RestingSession
from edge_sdk.runtime.generation.adapters import GRAPH_SUFFIX, read_adapter
from edge_sdk.runtime.generation.cores import Cores
from edge_sdk.runtime.generation.decoder import Decoder

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array, Session
    from edge_sdk.runtime.generation.kv import KVCache

    OpenSession = Callable[[str, int], Session]


class Decoders:
    """Finds the decoder for a call; opens its session when it is first needed.

    The number of threads adapts to busy cores, where sessions share their weights.
    What is computed does not depend on it. For one thread at a time.

    Args:
        open_session: Opens a graph of the variant, given its name and the number of
            threads; a second time the same session comes back.
        graph: Name of the graph without adapters.
        cache: The KV cache that all decoders work on.
        vocab: Size of the logits.
        threads: Threads on an idle machine.
        adapters: Adapter name -> the adapter.
        blobs: Where adapters are.

    Raises:
        EngineError: The engine refused the graph, or cannot run a decoder.
    """

    def __init__(
        self,
        open_session: OpenSession,
        graph: str,
        cache: KVCache,
        vocab: int,
        threads: int,
        adapters: Mapping[str, Adapter],
        blobs: BlobStore,
    ) -> None:
        self.cache = cache
        self._open_session = open_session
        self._graph = graph
        self._vocab = vocab
        self._threads = self._used = threads
        self._adapters = adapters
        self._blobs = blobs
        self._arrays: dict[str, dict[str, Array]] = {}
        self._decoders: dict[tuple[str | None, int], Decoder] = {}
        self._cores: Cores | None = None
        if self.of(None).session.shares_weights and threads > 1:
            self._cores = Cores(threads)

    def of(self, adapter: str | None) -> Decoder:
        """The decoder for the next call with this adapter, or without one.

        Raises:
            EngineError: The engine refused the adapter's graph.
            BundleError: The adapter does not fit its graph.
            MemoryLimitError: Another session does not fit the memory limit.
        """
        threads = self._used = self._cores.threads() if self._cores else self._threads
        found = self._decoders.get((adapter, threads))
        if found is None:
            try:
                found = self._open(adapter, threads)
            except EdgeSdkError:
                if threads == self._threads:
                    raise
                self._cores = None  # there is no room to adapt
                return self.of(adapter)
            self._decoders[adapter, threads] = found
        return found

    def took(self, seconds: float) -> None:
        """Notes what the last token took."""
        if self._cores:
            self._cores.took(self._used, seconds)

    def rest(self) -> None:
        """Takes rows of tables that calls have read out of memory, where sessions can."""
        for decoder in self._decoders.values():
            if isinstance(decoder.session, RestingSession):
                decoder.session.rest()

    def close(self) -> None:
        """Lets go of sessions, adapters and the KV cache; nothing is computed any more."""

        def closed(graph: str, threads: int) -> Session:
            raise InputError("the model was closed", where=f"graph {graph!r}")

        self._open_session = closed
        self._decoders.clear()
        self._arrays.clear()
        self.cache.clear()

    def _open(self, adapter: str | None, threads: int) -> Decoder:
        if adapter is None:
            return Decoder(self._open_session(self._graph, threads), self.cache, self._vocab)
        session = self._open_session(self._graph + GRAPH_SUFFIX, threads)
        if adapter not in self._arrays:
            chosen = self._adapters[adapter]
            self._arrays[adapter] = read_adapter(chosen, session.inputs, self._blobs)
        return Decoder(session, self.cache, self._vocab, self._arrays[adapter])
