"""Both graphs as one session: an input and an output's tokens in, logits out, as in use."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from converters.dataset import Feeds, Outputs
from converters.seq2seq.graphs import PAST, PRESENT
from edge_sdk.bundle.record import Decoding, State, TensorSpec, Wire
from edge_sdk.runtime.engine import Session
from edge_sdk.runtime.generation.sampling import Sampler
from edge_sdk.runtime.seq2seq.network import DECODER, ENCODER, LOGITS, TOKENS, Network
from edge_sdk.runtime.seq2seq.prompt import begin, start_of
from edge_sdk.runtime.seq2seq.rules import RuledSampler


class ForcedSession:
    """Teacher forcing: reads an input once and writes given tokens one at a time.

    It is a session like any other, so candidates are compared and timed like any other.

    Args:
        network: The two graphs.
        start: Number of tokens that an output begins with; they are written at once.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, network: Network, start: int) -> None:
        self.network = network
        self._start = start

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The encoder's inputs, and ``decoder_input_ids``."""
        tokens = TensorSpec(name=TOKENS, dtype="int64", shape=(1, "decoder_sequence_length"))
        return (*self.network.reads, tokens)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """``logits``."""
        shape = (1, "decoder_sequence_length", self.network.vocab)
        return (TensorSpec(name=LOGITS, dtype="float32", shape=shape),)

    def run(self, feeds: Feeds) -> Outputs:
        """Logits after the last token of the beginning, and after each one behind it."""
        tokens = feeds[TOKENS][0].tolist()
        read = {name: array for name, array in feeds.items() if name != TOKENS}
        output = self.network.write(self.network.read(read), len(tokens))
        rows = [output.append(tokens[: self._start])[-1]]
        rows += [output.append([token])[0] for token in tokens[self._start :]]
        return {LOGITS: np.stack(rows)[None]}


def network_of(encoder: Session, decoder: Session, states: Sequence[State]) -> Network:
    """The network of two sessions whose outputs and inputs are named alike."""
    return Network(encoder, decoder, wires(encoder.outputs), states)


def wires(outputs: Sequence[TensorSpec]) -> tuple[Wire, ...]:
    """Which of the encoder's outputs are which of the decoder's inputs."""
    return tuple(
        Wire(
            source_graph=ENCODER,
            output=spec.name,
            target_graph=DECODER,
            input=spec.name.replace(PRESENT, PAST, 1),
        )
        for spec in outputs
    )


def greedy(
    network: Network, decoding: Decoding, feeds: Feeds, limit: int
) -> tuple[tuple[int, ...], list[int]]:
    """What a network writes, by the model's rules.

    Args:
        network: The two graphs.
        decoding: The rules.
        feeds: The encoder's inputs.
        limit: Most tokens to draw; fewer where the model has positions for fewer.

    Returns:
        What the output begins with, and the tokens behind that; the last one may be one that
        ends it.
    """
    start = start_of(decoding)
    settings = msgspec.structs.replace(decoding.sampling, temperature=0.0)
    limit = max(1, min(limit, decoding.context - len(start.tokens)))
    output = network.write(network.read(feeds), len(start.tokens) + limit)
    tokens = begin(output, start)
    source = feeds["input_ids"][0].tolist() if "input_ids" in feeds else ()
    sampler = RuledSampler(decoding, Sampler(settings, tokens), tokens, source)
    drawn = [sampler.next(output.logits[-1])]
    while len(drawn) < limit and drawn[-1] not in decoding.eos:
        drawn.append(sampler.next(output.append(drawn[-1:])[0]))
    return tokens, drawn
