"""What two candidates, one for each graph, are worth together: what they write, and how fast."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from converters import compare
from converters.choose import Judged
from converters.dataset import Array
from converters.materialize import open_path
from converters.measure import Latency, latency
from converters.metrics import Metric, find_metric
from converters.metrics.text import token_perplexity
from converters.output_pairs import OutputPair, changed_decisions
from converters.recipes import SOURCE
from converters.seq2seq.examples import MOST_TOKENS, Examples
from converters.seq2seq.forced import ForcedSession, greedy, network_of
from converters.seq2seq.pairs import open_tokenizer
from converters.seq2seq.source import SPEECH_TASK, Seq2SeqSource
from edge_sdk.bundle.measurements import DecoderFigures
from edge_sdk.bundle.record import Agreement
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.seq2seq.network import LOGITS, TOKENS

# Rounds of timing: each reads an input and writes its output with every candidate.
SECONDS = 0.5
TIMED = 4
SAME_TEXT = "same text"
REPEATS = 5


@dataclass(frozen=True)
class Both:
    """A candidate for each graph.

    Attributes:
        encoder: For the encoder.
        decoder: For the decoder.
    """

    encoder: Judged
    decoder: Judged

    @property
    def name(self) -> str:
        """One recipe's name where both have the same, else both."""
        one, other = self.encoder.name, self.decoder.name
        return one if one == other else f"{one}+{other}"

    @property
    def size_bytes(self) -> int:
        """Both graphs with their weights."""
        return self.encoder.built.size_bytes + self.decoder.built.size_bytes


class Judge:
    """Compares and times pairs of candidates against the source.

    Args:
        source: The model.
        examples: What it is judged on.
        metric: Task metric, where the user named one.
        threads: Intra-op threads while comparing.
    """

    def __init__(
        self, source: Seq2SeqSource, examples: Examples, metric: Metric | None, threads: int
    ) -> None:
        self.source = source
        self.examples = examples
        self.metric = metric
        self._tokenizer = open_tokenizer(source)
        self._options = SessionOptions(threads=threads)
        self._reference = self._logits(self._open(source.encoder.path, source.decoder.path))
        self._agreements: dict[str, Agreement] = {}
        self._perplexities: dict[str, float] = {}

    def agreement(self, both: Both) -> Agreement:
        """What is lost: of forced logits, or of the metric over what is written freely."""
        if both.name == SOURCE.name:
            return self._compare(both.name, self._reference, self.examples.written)
        if both.name not in self._agreements:
            session = self.open(both)
            found = self._compare(both.name, self._logits(session), self._written(session))
            self._agreements[both.name] = found
        return self._agreements[both.name]

    def latencies(self, candidates: Sequence[Both]) -> dict[str, Latency]:
        """Times to read an input and write its output, the source's too, in one thread."""
        one = SessionOptions(threads=1)
        source = self._open(self.source.encoder.path, self.source.decoder.path, one)
        sessions = {SOURCE.name: source}
        sessions |= {both.name: self.open(both, one) for both in candidates}
        calls = [sample[0] for sample in self.examples.forced.samples[:TIMED]]
        return latency(sessions, calls, SECONDS * len(sessions))

    @cached_property
    def encoder_share(self) -> float:
        """Share of the source's time that reading takes."""
        session = self._open(self.source.encoder.path, self.source.decoder.path)
        read, steps = self._times(session)
        return read / (read + sum(steps) / REPEATS)

    def decoder_figures(self, both: Both) -> DecoderFigures:
        """Perplexity of the targets, and the speed of reading and of writing, in one thread."""
        self.agreement(both)
        read, steps = self._times(self.open(both, SessionOptions(threads=1)))
        first = self.examples.forced.samples[0][0]
        return DecoderFigures(
            perplexity=compare.rounded(self._perplexities[both.name]),
            source_perplexity=compare.rounded(self._perplexity(self._reference)),
            tokens_per_second=round(1 / float(np.median(steps)), 2) if steps else None,
            ttft_ms=round(1e3 * read, 2),
            prompt_tokens=next(iter(first.values())).shape[-1],
            answer_tokens=len(steps) // REPEATS + 1,
        )

    def _times(self, session: ForcedSession) -> tuple[float, list[float]]:
        """Seconds to the first token (median), and for each token behind it."""
        call = self.examples.forced.samples[0][0]
        feeds = {name: array for name, array in call.items() if name != TOKENS}
        tokens = call[TOKENS][0].tolist()
        first, steps = [], []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            output = session.network.write(session.network.read(feeds), len(tokens))
            output.append(tokens[: self.examples.start])
            first.append(time.perf_counter() - begun)
            for token in tokens[self.examples.start :]:
                begun = time.perf_counter()
                output.append([token])
                steps.append(time.perf_counter() - begun)
        return float(np.median(first)), steps

    def open(self, both: Both, options: SessionOptions | None = None) -> ForcedSession:
        """Both graphs of a candidate."""
        return self._open(both.encoder.built.path, both.decoder.built.path, options)

    def _open(
        self, encoder: Path, decoder: Path, options: SessionOptions | None = None
    ) -> ForcedSession:
        chosen = options or self._options
        reads, writes = open_path(encoder, chosen), open_path(decoder, chosen)
        network = network_of(reads, writes, self.source.decoder.states)
        return ForcedSession(network, self.examples.start)

    def _logits(self, session: ForcedSession) -> list[list[Array]]:
        found = compare.run(session, self.examples.forced)
        return [[outputs[LOGITS] for outputs in calls] for calls in found]

    def _compare(
        self, name: str, logits: list[list[Array]], written: Sequence[tuple[int, ...]]
    ) -> Agreement:
        self._perplexities[name] = self._perplexity(logits)
        pair = OutputPair(LOGITS, self._reference, logits)
        same, changed = (0.0, 1.0) if pair.broken else changed_decisions(pair)
        lost = 1 - pair.similarity
        drop, drop_of = max((lost, "1 - cosine"), (changed, "1 - top1 agreement"))
        metrics = {SAME_TEXT: (1.0, _share(written, self.examples.written))}
        for metric in self._metrics():
            before, after = self._measure(metric, written)
            metrics[metric.name] = before, after
            if self.metric is not None:
                drop, drop_of = metric.drop(before, after), f"drop of {metric.name}"
        return Agreement(
            samples=len(self._reference),
            cosine=compare.rounded(pair.similarity),
            max_error=compare.rounded(pair.max_error),
            drop=compare.rounded(drop),
            drop_of=drop_of,
            top1=compare.rounded(same),
            metrics={n: (compare.rounded(a), compare.rounded(b)) for n, (a, b) in metrics.items()},
        )

    def _written(self, session: ForcedSession) -> list[tuple[int, ...]]:
        """What a candidate writes freely for the evaluation inputs, without what ends it."""
        found = []
        for (call,) in self.examples.forced.samples:
            feeds = {name: array for name, array in call.items() if name != TOKENS}
            _, drawn = greedy(session.network, self.source.decoding, feeds, MOST_TOKENS)
            found.append(tuple(t for t in drawn if t not in self.source.decoding.eos))
        return found

    def _metrics(self) -> tuple[Metric, ...]:
        """The user's; without one, what is usual where there are targets."""
        if self.metric is not None:
            return (self.metric,)
        usual = "wer" if self.source.task == SPEECH_TASK else "rouge-l"
        return (find_metric(usual),) if self.examples.targets else ()

    def _measure(self, metric: Metric, written: Sequence[tuple[int, ...]]) -> tuple[float, float]:
        source, candidate = self._texts(self.examples.written), self._texts(written)
        targets = [np.array(target) for target in self.examples.targets] or source
        return float(metric.function(source, targets)), float(metric.function(candidate, targets))

    def _texts(self, written: Sequence[tuple[int, ...]]) -> list[Array]:
        return [np.array(self._tokenizer.decode(list(tokens))) for tokens in written]

    def _perplexity(self, logits: list[list[Array]]) -> float:
        """Of the given tokens behind the beginning."""
        start = self.examples.start
        wanted = [call[TOKENS][0, start:] for (call,) in self.examples.forced.samples]
        return token_perplexity(
            [rows[0][:, : len(w)] for rows, w in zip(logits, wanted, strict=True)], wanted
        )


def _share(one: Sequence[object], other: Sequence[object]) -> float:
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)]))
