"""Encoder and decoder as one: an input is read once, tokens are written behind it.

Cross keys and values are computed by the encoder's graph and never copied. The decoder's
own past grows by every token: the graph reads it in one buffer and writes the longer one
into another, and the two change places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_sdk.bundle.record import State, Wire
from edge_sdk.errors import BundleError, EngineError
from edge_sdk.runtime.engine import BindableSession, Session
from edge_sdk.runtime.generation.kv import pages

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array, Binding, Feeds

ENCODER, DECODER = "encoder", "decoder"
TOKENS, LOGITS = "decoder_input_ids", "logits"
Logits = NDArray[np.float32]


class Network:
    """The two graphs of an encoder-decoder model. Safe to use from several threads.

    Attributes:
        reads: What the encoder takes.
        vocab: Size of the logits.
        past: The decoder's own keys and values, by input.

    Args:
        encoder: The caller's inputs to cross keys and values.
        decoder: Tokens, cross keys and values and the past to logits and the present.
        wiring: Which of the encoder's outputs are which of the decoder's inputs.
        states: Which of the decoder's outputs become which of its inputs.

    Raises:
        EngineError: The engine cannot run over buffers of the caller.
        BundleError: The decoder has another signature.
    """

    def __init__(
        self,
        encoder: Session,
        decoder: Session,
        wiring: Sequence[Wire],
        states: Sequence[State],
    ) -> None:
        if not isinstance(decoder, BindableSession):
            raise EngineError(
                "this engine cannot keep the decoder's past between calls",
                remedy="use a variant for the onnx engine",
            )
        self._encoder = encoder
        self._decoder: BindableSession = decoder
        self._wires = {wire.output: wire.input for wire in wiring}
        self._states = {state.input: state.output for state in states}
        inputs = {spec.name: spec for spec in decoder.inputs}
        logits = next((spec for spec in decoder.outputs if spec.name == LOGITS), None)
        if TOKENS not in inputs or logits is None or not logits.shape:
            raise BundleError(f"takes no {TOKENS}, or gives no {LOGITS}", where="graph 'decoder'")
        self.reads = encoder.inputs
        self.vocab = _fixed(logits.shape[-1])
        self.past = {name: inputs[name] for name in self._states}
        self._shared = {spec.name for spec in encoder.inputs} & set(inputs)

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token's keys and values in all layers."""
        return sum(
            _fixed(spec.shape[1]) * _fixed(spec.shape[3]) * np.dtype(spec.dtype).itemsize
            for spec in self.past.values()
            if spec.shape
        )

    def read(self, feeds: Feeds) -> Feeds:
        """Runs the encoder on one input, of batch 1.

        Args:
            feeds: The encoder's inputs.

        Returns:
            What the decoder needs of it: cross keys and values, the mask where it takes one.
        """
        outputs = self._encoder.run(feeds)
        crossed = {self._wires[name]: array for name, array in outputs.items()}
        return crossed | {name: feeds[name] for name in self._shared}

    def write(self, read: Feeds, capacity: int) -> Output:
        """An output that begins: nothing is written yet.

        Args:
            read: What :meth:`read` gave.
            capacity: Most tokens of it.
        """
        past = {}
        for name, spec in self.past.items():
            heads, size = (_fixed(spec.shape[axis]) for axis in (1, 3)) if spec.shape else (0, 0)
            past[name] = _Growing(heads, size, capacity, spec.dtype)
        return Output(self._decoder.bind(), read, past, self._states, self.vocab)


class Output:
    """One output as it is written. For one thread at a time.

    Args:
        binding: A call of the decoder of its own.
        read: Cross keys and values, and what else stays the same.
        past: The decoder's own keys and values, by input.
        states: Input -> output that is the longer one.
        vocab: Size of the logits.
    """

    def __init__(
        self,
        binding: Binding,
        read: Feeds,
        past: Mapping[str, _Growing],
        states: Mapping[str, str],
        vocab: int,
    ) -> None:
        self._binding = binding
        self._past = past
        self._states = states
        self._vocab = vocab
        self._written = _Written(0, np.zeros((0, vocab), np.float32))
        for name, array in read.items():
            binding.set_input(name, np.ascontiguousarray(array))

    @property
    def length(self) -> int:
        """Tokens written so far."""
        return self._written.length

    @property
    def logits(self) -> Logits:
        """Logits after each of the tokens written last, ``[tokens, vocab]``."""
        return self._written.logits

    def append(self, tokens: Sequence[int]) -> Logits:
        """Writes tokens; if it is interrupted, none of them.

        Returns:
            Logits after each of them, ``[tokens, vocab]``.
        """
        length = self.length
        logits: Logits = np.empty((1, len(tokens), self._vocab), np.float32)
        self._binding.set_input(TOKENS, np.array([tokens], np.int64))
        self._binding.set_output(LOGITS, logits)
        for name, grown in self._past.items():
            turn = self._written.turn
            self._binding.set_input(name, grown.view(turn, length))
            self._binding.set_output(self._states[name], grown.view(1 - turn, length + len(tokens)))
        self._binding.run()
        self._written = _Written(length + len(tokens), logits[0], 1 - self._written.turn)
        return self.logits


@dataclass(frozen=True)
class _Written:
    """How far an output is; replaced as a whole, so that an interrupt finds either or.

    Attributes:
        length: Tokens.
        logits: After the last ones.
        turn: Which of the two buffers holds their keys and values.
    """

    length: int
    logits: Logits
    turn: int = 0


class _Growing:
    """Keys or values: what there is in one buffer, room for more in another."""

    def __init__(self, heads: int, size: int, capacity: int, dtype: str) -> None:
        self._heads, self._size = heads, size
        self._buffers = [pages((heads * capacity * size,), dtype) for _ in range(2)]

    def view(self, buffer: int, tokens: int) -> Array:
        """The first tokens of a buffer, ``[1, heads, tokens, size]``."""
        shape = (1, self._heads, tokens, self._size)
        return self._buffers[buffer][: self._heads * tokens * self._size].reshape(shape)


def _fixed(size: int | str) -> int:
    if not isinstance(size, int):
        raise BundleError(f"its dimension {size!r} must be fixed", where="graph 'decoder'")
    return size
