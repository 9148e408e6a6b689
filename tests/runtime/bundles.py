"""Real bundles around small graphs, as a converter would write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_sdk.bundle import record as rec
from edge_sdk.bundle.oci import Platform
from edge_sdk.bundle.writer import BundleWriter
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.engines.onnx import OnnxEngine
from tests.runtime import onnx_bytes as ob

HERE = "here"
DIGEST = "sha256:" + "0" * 64


def spec(
    name: str, shape: Sequence[int | str] | None = (), dtype: str = "float32"
) -> rec.TensorSpec:
    return rec.TensorSpec(name=name, dtype=dtype, shape=None if shape is None else tuple(shape))


def onnx(
    nodes: Sequence[bytes],
    inputs: Sequence[rec.TensorSpec],
    outputs: Sequence[rec.TensorSpec],
    tensors: Sequence[bytes] = (),
) -> bytes:
    """A model whose signature is that of the record."""
    values = [[ob.value(s.name, s.dtype, s.shape) for s in specs] for specs in (inputs, outputs)]
    return ob.model(nodes, *values, tensors)


class Builder:
    """Collects a record's parts while their bytes go into the bundle."""

    def __init__(self, path: Path) -> None:
        self._writer = BundleWriter(path)
        self._graphs: list[rec.Graph] = []
        self.path = path

    def __enter__(self) -> Builder:
        self._writer.__enter__()
        return self

    def __exit__(self, *error) -> None:
        if error == (None, None, None):
            self._writer.finish()
        self._writer.__exit__(*error)

    def blob(self, data: bytes) -> rec.Blob:
        return self._writer.blobs.put([data])

    def array(self, array: np.ndarray) -> rec.ArrayRef:
        return rec.ArrayRef(
            blob=self.blob(array.tobytes()), dtype=str(array.dtype), shape=array.shape
        )

    def graph(
        self,
        nodes: Sequence[bytes],
        inputs: Sequence[rec.TensorSpec],
        outputs: Sequence[rec.TensorSpec],
        weights: Mapping[str, np.ndarray] | None = None,
        name: str = "main",
    ) -> None:
        """A graph over weight blobs."""
        tensors, blobs = [], []
        for key, array in (weights or {}).items():
            blobs.append(self.blob(array.tobytes()))
            tensors.append(ob.tensor(key, array, blobs[-1].digest.removeprefix("sha256:")))
        self.opaque("onnx", [onnx(nodes, inputs, outputs, tensors)], inputs, outputs, name, blobs)

    def opaque(
        self,
        format: str,
        parts: Iterable[bytes],
        inputs: Sequence[rec.TensorSpec],
        outputs: Sequence[rec.TensorSpec],
        name: str = "main",
        weights: Sequence[rec.Blob] = (),
    ) -> None:
        graph = rec.Graph(
            name=name,
            format=format,
            parts=tuple(self.blob(part) for part in parts),
            weights=tuple(weights),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
        )
        self._graphs.append(graph)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the last graph gives, for golden cases."""
        graph = self._writer.blobs.path(self._graphs[-1].parts[0].digest)
        return OnnxEngine().open(graph, SessionOptions()).run(feeds)

    def variant(self, profile: str = HERE, architecture: str = "amd64", **fields) -> None:
        """Adds a variant of the graphs so far."""
        defaults = {
            "name": "tiny",
            "version": "1.0.0",
            "profile": profile,
            "task": "test",
            "kind": "generic",
            "graphs": tuple(self._graphs),
            "engine": rec.Engine(name="onnx"),
            "recipe": rec.Recipe(name="fp32"),
            "memory": plan(),
            "agreement": rec.Agreement(samples=1, cosine=1, max_error=0, drop=0, drop_of="none"),
            "provenance": rec.Provenance(
                source_name="tiny.onnx", source_digest=DIGEST, data_digest=None, tools={}
            ),
        }
        record = rec.VariantRecord(**(defaults | fields))
        self._writer.add_variant(record, Platform(os="linux", architecture=architecture))


def plan(activations: int = 2**20, **reference_shapes: int) -> rec.MemoryPlan:
    """10 MiB mapped, 20 MiB private, 30 MiB engine, and activations."""
    return rec.MemoryPlan(
        weights_mapped=10 * 2**20,
        weights_private=20 * 2**20,
        activations=activations,
        engine=30 * 2**20,
        reference_shapes=reference_shapes,
    )


def linear(path: Path, **fields) -> Path:
    """``y = x @ w`` with ``x`` [batch, 2] and ``w`` [[0, 1, 2], [3, 4, 5]]."""
    with Builder(path) as builder:
        builder.graph(
            [ob.node("MatMul", ["x", "w"], ["y"])],
            [spec("x", ["batch", 2])],
            [spec("y", ["batch", 3])],
            {"w": np.arange(6, dtype=np.float32).reshape(2, 3)},
        )
        builder.variant(**fields)
    return path


def counter(path: Path, **fields) -> Path:
    """A recurrent model: ``sum = total + x``, ``y = 2 * sum``; the state is ``total``."""
    with Builder(path) as builder:
        builder.graph(
            [ob.node("Add", ["total", "x"], ["sum"]), ob.node("Add", ["sum", "sum"], ["y"])],
            [spec("x", ["n"]), spec("total", ["n"])],
            [spec("y", ["n"]), spec("sum", ["n"])],
        )
        initial = fields.pop("initial", None)
        builder.variant(
            states=(
                rec.State(
                    input="total",
                    output="sum",
                    initial=None if initial is None else builder.array(initial),
                ),
            ),
            **fields,
        )
    return path


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "green", "blue", "sky"]


def tokenizer_json() -> bytes:
    """A word-level tokenizer that wraps each text in [CLS] and [SEP]."""
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {
                "type": "BertProcessing",
                "sep": ["[SEP]", 3],
                "cls": ["[CLS]", 2],
            },
            "decoder": None,
            "model": {
                "type": "WordLevel",
                "vocab": {word: i for i, word in enumerate(WORDS)},
                "unk_token": "[UNK]",
            },
        }
    ).encode()
