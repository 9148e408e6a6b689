"""Builds a decoder's candidates and scores them; profiles share what is known of them.

Every candidate lies in a folder of its own, as a graph file and one file of weights,
for as long as it is needed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from converters.compare import rounded
from converters.decoder import graph, layerwise
from converters.decoder.candidates import Spec
from converters.decoder.perplexity import Scores, cosine, increase, score
from converters.decoder.rounding import Rounded
from converters.decoder.source import DecoderSource
from converters.decoder.tensors import FloatType
from converters.decoder.texts import WINDOW, Texts, Tokens
from converters.decoder.weights import WeightFormat, WeightPlan, Weights
from converters.materialize import open_path, save
from converters.workshop import Built
from edge_sdk.bundle.record import Agreement, Unquantized
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.generation.decoder import Decoder, kv_dtype
from edge_sdk.runtime.generation.kv import KVCache

DROP_OF = "perplexity increase"
Say = Callable[[str], None]


class DecoderWorkshop:
    """Builds and scores candidates of one source.

    Args:
        source: The model.
        texts: What to calibrate and to evaluate on.
        folder: Where files are written; the caller removes it.
        threads: Intra-op threads.
        say: Told what happens.
        reference: The source's scores, where they are known.

    Attributes:
        reference: The source's own scores, in fp32.
    """

    def __init__(
        self,
        source: DecoderSource,
        texts: Texts,
        folder: Path,
        threads: int,
        say: Say,
        reference: Scores | None = None,
    ) -> None:
        self.source = source
        self.texts = texts
        self.folder = folder
        self.threads = threads
        self.say = say
        self.reference = reference or layerwise.reference(source, texts.evaluation, threads, say)
        self._candidates: dict[bytes, Built] = {}
        self._scores: dict[Path, Scores] = {}
        self._calibrated: set[WeightFormat] = set()

    def weights(self, spec: Spec) -> Weights:
        """The source's weights as a candidate rounds them; calibrates where it must."""
        rounded = Rounded(self.source.weights, spec.method, self.folder / "gptq")
        if spec.method == "gptq":
            formats = {spec.plan.default, *spec.plan.nodes.values()} - self._calibrated
            for wanted in sorted((f for f in formats if f.bits == 4), key=repr):
                plan = WeightPlan(wanted)
                layerwise.calibrate(
                    self.source, self.texts.calibration, rounded, plan, self.threads, self.say
                )
                self._calibrated.add(wanted)
        return rounded

    def candidate(self, spec: Spec) -> Built:
        """What a candidate is; its files may not be there, see :meth:`path`."""
        key = spec.recipe("onnx")
        if (known := self._candidates.get(encoded := msgspec.msgpack.encode(key))) is None:
            folder = self.folder / f"candidate-{len(self._candidates)}"
            known = self._candidates[encoded] = Built(
                recipe=key,
                path=folder / "model.onnx",
                size_bytes=self.size(spec),
                unquantized=tuple(_unquantized(spec)),
            )
        return known

    def path(self, spec: Spec) -> Path:
        """The candidate's graph file, written if it is not there."""
        path = self.candidate(spec).path
        if not path.exists():
            weights = self.weights(spec)
            self.say(f"building {spec.name}")
            path.parent.mkdir(exist_ok=True)
            save(self._graph(spec, weights), path.parent, path.stem)
        return path

    def release(self, spec: Spec) -> None:
        """Deletes a candidate's files; what is known of it stays."""
        shutil.rmtree(self.candidate(spec).path.parent, ignore_errors=True)

    def trial(self, spec: Spec, windows: Sequence[Tokens]) -> Scores:
        """Scores of a candidate on some windows; its files are not kept."""
        self.say(f"trying {spec.name}")
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            path = save(self._graph(spec, self.weights(spec)), Path(folder))
            return self.loss(path, windows)

    def size(self, spec: Spec) -> int:
        """Bytes of a candidate as it would ship; nothing is quantized for the answer."""
        return shipped_bytes(self._graph(spec, self.source.weights))

    def decoder(self, path: Path, capacity: int = WINDOW, threads: int | None = None) -> Decoder:
        """A graph file opened over a cache of one row, as a device would."""
        session = open_path(path, SessionOptions(threads=threads or self.threads, arena=False))
        generation = self.source.generation
        cache = KVCache(generation, 1, capacity, kv_dtype(session))
        return Decoder(session, cache, generation.vocab)

    def _graph(self, spec: Spec, weights: Weights) -> ir.Model:
        precision: FloatType = "float16" if spec.half else "float32"
        return graph.build(self.source.architecture, weights, spec.plan, float_type=precision)

    def loss(self, path: Path, windows: Sequence[Tokens]) -> Scores:
        """Scores of a graph file on some windows."""
        decoder = self.decoder(path)
        return score(windows, lambda window: decoder.logits(window.tolist()))

    def scores(self, spec: Spec) -> Scores:
        """A candidate's scores on the evaluation text; the source's own for fp32."""
        built = self.candidate(spec)
        if not built.recipe.steps:
            return self.reference
        if built.path not in self._scores:
            path = self.path(spec)
            self.say(f"perplexity of {spec.name}")
            self._scores[path] = self.loss(path, self.texts.evaluation)
        return self._scores[built.path]

    def agreement(self, spec: Spec) -> Agreement:
        """How a candidate compares with the source."""
        return agreement(self.scores(spec), self.reference, len(self.texts.evaluation))


def agreement(found: Scores, source: Scores, windows: int) -> Agreement:
    """Perplexity, likeliest tokens and logits of a candidate against the source's.

    Args:
        found: The candidate's scores.
        source: The source's, on the same windows.
        windows: How many they were.
    """
    return Agreement(
        samples=windows,
        cosine=rounded(cosine(found.kept, source.kept)),
        max_error=rounded(float(np.abs(found.kept - source.kept).max())),
        drop=rounded(increase(found, source)),
        drop_of=DROP_OF,
        top1=rounded(float((found.best == source.best).mean())),
        metrics={"perplexity": (rounded(source.perplexity), rounded(found.perplexity))},
    )


def shipped_bytes(model: ir.Model) -> int:
    """Bytes of a decoder's weights and graph; a tied table in blocks counts once.

    Embedding and head read equal bytes, which are one blob in a bundle.
    """
    sizes = {
        name: value.const_value.nbytes
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    if sizes.get("embed.weight") == sizes.get("head.weight") and "embed.scales" in sizes:
        sizes = {name: size for name, size in sizes.items() if not name.startswith("head.")}
    return sum(sizes.values()) + 256 * model.graph.num_nodes()


def _unquantized(spec: Spec) -> Sequence[Unquantized]:
    default = spec.plan.default
    if default.bits > 8:
        return ()
    return [
        Unquantized(node=node, op="MatMul", reason=f"{_words(wanted)} instead of {_words(default)}")
        for node, wanted in spec.plan.nodes.items()
        if wanted.bits > default.bits or wanted.block_size < default.block_size
    ]


def _words(wanted: WeightFormat) -> str:
    if wanted.bits > 8:
        return f"float{wanted.bits}"
    return f"{wanted.bits} bits in blocks of {wanted.block_size}"
