"""One decoder graph over one KV cache: tokens in, logits out.

The graph's contract: ``input_ids`` [batch, sequence], ``seqlens_k`` [batch]
(tokens in the row after the call, minus one), ``total_sequence_length`` (the
largest of those plus one), ``logits_at`` [positions] (which of the sequence's
logits are wanted) and per layer ``past_key_values.{i}.key`` / ``.value``; out
come ``logits`` [batch, positions, vocab] and ``present.{i}.key`` / ``.value``,
bound to the buffers of the past.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import BundleError, EngineError
from edge_sdk.runtime.engine import BindableSession, Session

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array, Binding
    from edge_sdk.runtime.generation.kv import KVCache

Logits = NDArray[np.float32]
# Longer runs of tokens are no faster and need more memory for activations.
CHUNK = 64


def kv_dtype(session: Session) -> str:
    """Element type of the KV cache that a decoder graph works on.

    Raises:
        BundleError: The graph takes no past.
    """
    for spec in session.inputs:
        if spec.name.startswith("past_key_values."):
            return spec.dtype
    raise BundleError("takes no past_key_values, so it is no decoder", where="graph 'main'")


@dataclass(frozen=True)
class _Step:
    """One token for each of some rows: what is bound, to be filled in place."""

    binding: Binding
    ids: NDArray[np.int64]
    seqlens: NDArray[np.int32]
    total: NDArray[np.int32]


class Decoder:
    """Runs a decoder graph on rows of a KV cache. For one thread at a time.

    Args:
        session: The opened graph.
        cache: Where keys and values live; other decoders may use it in turn.
        vocab: Size of the logits.
        constants: Further inputs of the graph that never change: an adapter.

    Attributes:
        cache: Where keys and values live.
        session: The opened graph.

    Raises:
        EngineError: The engine cannot run over buffers of the caller.
    """

    def __init__(
        self,
        session: Session,
        cache: KVCache,
        vocab: int,
        constants: Mapping[str, Array] | None = None,
    ) -> None:
        if not isinstance(session, BindableSession):
            raise EngineError(
                "this engine cannot share the KV cache between calls",
                remedy="use a variant for the onnx engine",
            )
        self.cache = cache
        self.session: BindableSession = session
        self._vocab = vocab
        self._constants = constants or {}
        self._bindings: dict[tuple[int, int], Binding] = {}
        self._steps: dict[tuple[int, int], _Step] = {}

    def prefill(
        self, row: int, tokens: Sequence[int], past: int, last: bool = True
    ) -> Logits | None:
        """Appends tokens to a row.

        Args:
            row: The row.
            tokens: At least one; at most :data:`CHUNK` of them keep memory small.
            past: Tokens the row already holds.
            last: Whether the logits after the last of these tokens are wanted.

        Returns:
            Those logits, ``[vocab]``.
        """
        wanted = [len(tokens) - 1] if last else []
        logits = self._run(row, [tokens], [past], wanted)[0]
        return logits[0] if last else None

    def decode(self, first: int, tokens: Sequence[int], past: Sequence[int]) -> Logits:
        """Appends one token to each of several neighbouring rows in one call.

        This is what every token of every answer takes, so its inputs are bound once.

        Args:
            first: The first of the rows.
            tokens: One token per row.
            past: Tokens each row already holds.

        Returns:
            Logits per row, ``[rows, vocab]``.
        """
        step = self._steps.get((first, len(tokens)))
        if step is None:
            step = self._steps[first, len(tokens)] = self._step(first, len(tokens))
        step.ids[:, 0] = tokens
        step.seqlens[:] = past
        step.total.fill(max(past) + 1)
        logits = np.empty((len(tokens), 1, self._vocab), np.float32)
        step.binding.set_output("logits", logits)
        step.binding.run()
        return logits[:, 0]

    def logits(self, tokens: Sequence[int]) -> Logits:
        """Logits after every one of these tokens, which overwrite the first row.

        Returns:
            ``[tokens, vocab]``.
        """
        found = np.empty((len(tokens), self._vocab), np.float32)
        for start in range(0, len(tokens), CHUNK):
            chunk = tokens[start : start + CHUNK]
            found[start : start + len(chunk)] = self._run(0, [chunk], [start], range(len(chunk)))[0]
        return found

    def _step(self, first: int, rows: int) -> _Step:
        """The call that appends one token to each of these rows."""
        step = _Step(
            binding=self._bound(first, rows),
            ids=np.zeros((rows, 1), np.int64),
            seqlens=np.zeros(rows, np.int32),
            total=np.zeros((), np.int32),
        )
        step.binding.set_input("input_ids", step.ids)
        step.binding.set_input("seqlens_k", step.seqlens)
        step.binding.set_input("total_sequence_length", step.total)
        step.binding.set_input("logits_at", np.zeros(1, np.int64))
        return step

    def _run(
        self,
        first: int,
        tokens: Sequence[Sequence[int]],
        past: Sequence[int],
        wanted: Sequence[int],
    ) -> Logits:
        ids = np.array(tokens, np.int64)
        rows, length = ids.shape
        after = np.array(past, np.int32) + length
        logits = np.empty((rows, len(wanted), self._vocab), np.float32)
        binding = self._binding(first, rows)
        binding.set_input("input_ids", ids)
        binding.set_input("seqlens_k", after - 1)
        binding.set_input("total_sequence_length", np.array(after.max(), np.int32))
        binding.set_input("logits_at", np.array(wanted, np.int64))
        binding.set_output("logits", logits)
        binding.run()
        return logits

    def _binding(self, first: int, rows: int) -> Binding:
        """The call over these rows' part of the cache, made once."""
        if (first, rows) not in self._bindings:
            self._bindings[first, rows] = self._bound(first, rows)
        return self._bindings[first, rows]

    def _bound(self, first: int, rows: int) -> Binding:
        """A call over these rows' part of the cache."""
        binding = self.session.bind()
        for name, part in self.cache.slices(first, rows):
            binding.set_input(f"past_key_values.{name}", part)
            binding.set_output(f"present.{name}", part)
        for name, array in self._constants.items():
            binding.set_input(name, array)
        return binding
