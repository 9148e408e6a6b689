"""A candidate's graphs over one set of weights: float or int8 cache, adapters or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.decoder import graph
from converters.decoder.candidates import Spec
from converters.decoder.graph import KvScales
from converters.decoder.texts import Tokens
from converters.decoder.workshop import DecoderWorkshop
from converters.materialize import save
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import Adapter, Generation
from edge_sdk.runtime.generation.adapters import GRAPH_SUFFIX, node_of, read_adapter
from edge_sdk.runtime.generation.decoder import CHUNK, Decoder

MAIN, MAIN_KV8 = "main", "main-kv8"
# Windows that the ranges of keys and values are taken from.
KV_WINDOWS = 16


class CandidateGraphs:
    """Writes the graphs of one candidate beside the one it was judged by.

    Args:
        workshop: Where the candidate was built.
        spec: The candidate.
        adapters: Its adapters.
        blobs: Where their arrays are.
    """

    def __init__(
        self, workshop: DecoderWorkshop, spec: Spec, adapters: Sequence[Adapter], blobs: BlobStore
    ) -> None:
        self._workshop = workshop
        self._spec = spec
        self._adapters = adapters
        self._blobs = blobs
        self._main = workshop.path(spec)

    def files(self) -> dict[str, Path]:
        """Name -> graph file; written once for all profiles."""
        suffixes = ("", GRAPH_SUFFIX) if self._adapters else ("",)
        found: dict[str, Path] = {}
        for suffix in suffixes:
            found[MAIN + suffix] = self._file(MAIN, suffix)
            if not self._spec.half:
                found[MAIN_KV8 + suffix] = self._file(MAIN_KV8, suffix)
        return found

    def _file(self, cache: str, suffix: str) -> Path:
        if cache + suffix == MAIN:
            return self._main
        path = self._main.with_name(f"{cache}{suffix}.onnx")
        if not path.exists():
            scales = self._scales(suffix) if cache == MAIN_KV8 else None
            self._write(path, scales, adapted=bool(suffix))
        return path

    def _write(self, path: Path, scales: Sequence[KvScales] | None, *, adapted: bool) -> None:
        spec = self._spec
        model = graph.build(
            self._workshop.source.architecture,
            self._workshop.weights(spec),
            spec.plan,
            kv="float32" if scales is None else "int8",
            kv_scales=scales,
            float_type="float16" if spec.half else "float32",
            adapted={node_of(key) for each in self._adapters for key in each.arrays if adapted},
        )
        written = ir.load(self._main).graph.initializers
        for name, value in model.graph.initializers.items():
            if name in written:
                value.const_value = written[name].const_value
        save(model, path.parent, path.stem)

    def _scales(self, suffix: str) -> list[KvScales]:
        """Scales that hold for all that a graph computes with: an adapter has ranges of its own."""
        windows = self._workshop.texts.calibration[:KV_WINDOWS]
        decoders = self._adapted() if suffix else [self._workshop.decoder(self._main)]
        return kv_scales(decoders, self._workshop.source.generation, windows)

    def _adapted(self) -> Iterator[Decoder]:
        """The candidate over a float cache, with each adapter in turn."""
        base = self._workshop.decoder(self._file(MAIN, GRAPH_SUFFIX))
        for adapter in self._adapters:
            arrays = read_adapter(adapter, base.session.inputs, self._blobs)
            yield Decoder(base.session, base.cache, self._workshop.source.generation.vocab, arrays)


def kv_scales(
    decoders: Iterable[Decoder], generation: Generation, windows: Sequence[Tokens]
) -> list[KvScales]:
    """Scales of int8 keys and values per head and channel: their largest magnitude on text.

    They are rounded up to 4 bits after the leading one, which makes steps wider by 1/16 at
    most. As exact floats they would be what is hardest to compress in a graph, and be others
    with every fine-tune.

    Args:
        decoders: Each computes all of the text, over a float32 cache.
        generation: Their shape.
        windows: The text.
    """
    shape = (generation.kv_heads, generation.head_dim)
    largest: dict[str, NDArray[np.float32]] = {}
    for decoder in decoders:
        for window in windows:
            for past in range(0, len(window), CHUNK):
                decoder.prefill(0, window[past : past + CHUNK].tolist(), past, last=False)
            for name, part in decoder.cache.slices(0, 1):
                seen = np.abs(part[0, :, : len(window)].astype(np.float32)).max(axis=1)
                largest[name] = np.maximum(largest.get(name, np.zeros(shape, np.float32)), seen)
    scale = {
        name: _rounded_up(np.maximum(values / np.float32(127), np.finfo(np.float32).tiny))
        for name, values in largest.items()
    }
    return [
        KvScales(scale[f"{layer}.key"], scale[f"{layer}.value"])
        for layer in range(generation.layers)
    ]


def _rounded_up(values: NDArray[np.float32]) -> NDArray[np.float32]:
    mantissa, exponent = np.frexp(values)
    rounded: NDArray[np.float32] = np.ldexp(np.ceil(mantissa * 32) / 32, exponent)
    return rounded
