"""A tiny decoder with seeded random weights as a real bundle: int4 blocks of 32, two layers.

Written byte by byte, so that device-side tests need no converter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_sdk.bundle import record as rec
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import Builder, plan, spec

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, CONTEXT = 2, 64, 4, 2, 16, 128
SPECIAL = {"<|start|>": 256, "<|end|>": 257}
VOCAB = 258
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)

GENERATION = rec.Generation(
    layers=LAYERS,
    kv_heads=KV_HEADS,
    head_dim=HEAD_DIM,
    vocab=VOCAB,
    context=CONTEXT,
    eos=(257,),
    chat_template=TEMPLATE,
)
# Node -> width in and out, of those that take an adapter.
ADAPTED = {f"qkv{i}": (HIDDEN, (HEADS + 2 * KV_HEADS) * HEAD_DIM) for i in range(LAYERS)}
KV = [f"{i}.{kind}" for i in range(LAYERS) for kind in ("key", "value")]
KV_PER_TOKEN = 2 * LAYERS * KV_HEADS * HEAD_DIM * 4


def bundle(
    path: Path,
    kv8: bool = False,
    golden: bool = False,
    adapters: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    **fields,
) -> Path:
    """The decoder as a bundle; ``fields`` replace those of its record.

    Args:
        path: Where it goes.
        kv8: Whether a graph with int8 KV is there too.
        golden: Whether each graph has a golden case (that accepts anything).
        adapters: Name -> arrays of adapters; each graph then has a sibling that takes them.
    """
    memory = plan()
    graphs = ["main", "main-kv8"] if kv8 else ["main"]
    with Builder(path) as builder:
        for name in [*graphs, *(f"{graph}-lora" for graph in graphs if adapters)]:
            Graph(kv8="kv8" in name, lora="lora" in name).add_to(builder, name)
        file = rec.File(path="tokenizer.json", blob=builder.blob(tokenizer_json()))
        defaults = {
            "kind": "decoder",
            "task": "text-generation",
            "generation": GENERATION,
            "files": (file,),
            "adapters": tuple(
                rec.Adapter(
                    name=name, arrays={key: builder.array(array) for key, array in arrays.items()}
                )
                for name, arrays in (adapters or {}).items()
            ),
            "golden": tuple(golden_case(builder, name) for name in graphs if golden),
            "memory": rec.MemoryPlan(
                weights_mapped=memory.weights_mapped,
                weights_private=memory.weights_private,
                activations=memory.activations,
                engine=memory.engine,
                kv_per_token=KV_PER_TOKEN,
            ),
        }
        builder.variant(**(defaults | fields))
    return path


def golden_case(builder: Builder, graph: str) -> rec.GoldenCase:
    """One token without a past."""
    dtype = np.int8 if graph == "main-kv8" else np.float32
    past = {f"past_key_values.{name}": np.zeros((1, KV_HEADS, 4, HEAD_DIM), dtype) for name in KV}
    inputs = {
        "input_ids": np.array([[1]]),
        "seqlens_k": np.array([0], np.int32),
        "total_sequence_length": np.array(1, np.int32),
        "logits_at": np.array([0]),
        **past,
    }
    return rec.GoldenCase(
        graph=graph,
        inputs={name: builder.array(array) for name, array in inputs.items()},
        outputs={"logits": builder.array(np.zeros((1, 1, VOCAB), np.float32))},
        atol=100,
        rtol=0,
    )


class Graph:
    """Collects nodes and weights of the decoder graph."""

    def __init__(self, kv8: bool = False, lora: bool = False) -> None:
        self._kv8 = kv8
        self._adapted = ADAPTED if lora else {}
        self._rng = np.random.default_rng(0)
        self._nodes: list[bytes] = []
        self._weights: dict[str, np.ndarray] = {}

    def add_to(self, builder: Builder, name: str) -> None:
        """Writes the graph over its weight blobs."""
        past = ["batch", KV_HEADS, "capacity", HEAD_DIM]
        dtype = "int8" if self._kv8 else "float32"
        inputs = [
            spec("input_ids", ["batch", "sequence"], "int64"),
            spec("seqlens_k", ["batch"], "int32"),
            spec("total_sequence_length", [], "int32"),
            spec("logits_at", ["positions"], "int64"),
            *(spec(f"past_key_values.{name}", past, dtype) for name in KV),
            *(spec(f"lora.{node}.a", [k, "rank"]) for node, (k, _) in self._adapted.items()),
            *(spec(f"lora.{node}.b", ["rank", n]) for node, (_, n) in self._adapted.items()),
        ]
        outputs = [
            spec("logits", ["batch", "positions", VOCAB]),
            *(spec(f"present.{name}", past, dtype) for name in KV),
        ]
        self._build()
        builder.graph(self._nodes, inputs, outputs, self._weights, name)

    def _build(self) -> None:
        angles = np.outer(np.arange(CONTEXT), 10000.0 ** (-np.arange(HEAD_DIM // 2) / 8))
        self._weights |= {
            "cos": np.cos(angles).astype(np.float32),
            "sin": np.sin(angles).astype(np.float32),
            "embedding": self._rng.normal(size=(VOCAB, HIDDEN)).astype(np.float32),
            "gamma": np.ones(HIDDEN, np.float32),
        }
        if self._kv8:
            self._weights["kv_scale"] = np.full((KV_HEADS, HEAD_DIM), 0.05, np.float32)
        self._nodes.append(ob.node("Gather", ["embedding", "input_ids"], ["x0"]))
        for layer in range(LAYERS):
            self._layer(layer, f"x{layer}", f"x{layer + 1}")
        self._nodes.append(ob.node("Gather", [f"x{LAYERS}", "logits_at"], ["last"], axis=1))
        self._norm("last", "normed")
        self._linear("normed", "logits", HIDDEN, VOCAB)

    def _layer(self, i: int, x: str, y: str) -> None:
        self._norm(x, f"n{i}")
        self._linear(f"n{i}", f"qkv{i}", HIDDEN, (HEADS + 2 * KV_HEADS) * HEAD_DIM)
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        int8 = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
        scales = ["", "", "", "kv_scale", "kv_scale"] if self._kv8 else []
        self._nodes.append(
            ob.node(
                "GroupQueryAttention",
                [
                    f"qkv{i}",
                    "",
                    "",
                    *past,
                    "seqlens_k",
                    "total_sequence_length",
                    "cos",
                    "sin",
                    *scales,
                ],
                [f"attended{i}", f"present.{i}.key", f"present.{i}.value"],
                domain="com.microsoft",
                num_heads=HEADS,
                kv_num_heads=KV_HEADS,
                do_rotary=1,
                **({**int8, "kv_cache_bit_width": 8} if self._kv8 else {}),
            )
        )
        self._linear(f"attended{i}", f"o{i}", HEADS * HEAD_DIM, HIDDEN)
        self._nodes.append(ob.node("Add", [x, f"o{i}"], [f"a{i}"]))
        self._norm(f"a{i}", f"m{i}")
        self._linear(f"m{i}", f"up{i}", HIDDEN, 2 * HIDDEN)
        self._nodes.append(ob.node("Relu", [f"up{i}"], [f"active{i}"]))
        self._linear(f"active{i}", f"down{i}", 2 * HIDDEN, HIDDEN)
        self._nodes.append(ob.node("Add", [f"a{i}", f"down{i}"], [y]))

    def _norm(self, x: str, y: str) -> None:
        self._nodes.append(ob.node("SimplifiedLayerNormalization", [x, "gamma"], [y], axis=-1))

    def _linear(self, x: str, y: str, k: int, n: int) -> None:
        shape = (n, k // 32, 16)
        self._weights[f"{y}.w"] = self._rng.integers(0, 256, shape, np.uint8)
        self._weights[f"{y}.s"] = self._rng.uniform(0.02, 0.04, (n, k // 32)).astype(np.float32)
        product = y
        if y in self._adapted:
            product = f"{y}.product"
            self._nodes += [
                ob.node("MatMul", [x, f"lora.{y}.a"], [f"{y}.narrow"]),
                ob.node("MatMul", [f"{y}.narrow", f"lora.{y}.b"], [f"{y}.wide"]),
            ]
        self._nodes.append(
            ob.node(
                "MatMulNBits",
                [x, f"{y}.w", f"{y}.s"],
                [product],
                domain="com.microsoft",
                K=k,
                N=n,
                bits=4,
                block_size=32,
                accuracy_level=4,
            )
        )
        if product != y:
            self._nodes.append(ob.node("Add", [product, f"{y}.wide"], [y]))


def adapter(seed: int, rank: int = 2) -> dict[str, np.ndarray]:
    """Random arrays for every node that takes an adapter."""
    rng = np.random.default_rng(seed)
    return {
        f"lora.{node}.{side}": (0.3 * rng.normal(size=shape)).astype(np.float32)
        for node, (k, n) in ADAPTED.items()
        for side, shape in (("a", (k, rank)), ("b", (rank, n)))
    }


def tokenizer_json() -> bytes:
    """One token per byte, and the special tokens."""
    added = [
        {
            "id": number,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for text, number in SPECIAL.items()
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": False,
            },
            "post_processor": None,
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": False,
            },
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": {character: byte for byte, character in byte_characters().items()},
                "merges": [],
            },
        }
    ).encode()


def byte_characters() -> dict[int, str]:
    """The printable character that byte-level BPE writes for each byte (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + i) for i, byte in enumerate(others)
    }
