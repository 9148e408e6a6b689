"""A small decoder over block-quantized weights, byte by byte: what preparing works on.

Attention is left out: tokens -> embedding -> a chain of MatMulNBits with tanh -> head. The
inputs of a decoder that it has no use for are there all the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_sdk.bundle import record as rec
from edge_sdk.bundle.reader import Variant
from edge_sdk.runtime.arrays import read_array
from edge_sdk.runtime.engine import Session
from tests.runtime import onnx_bytes as ob
from tests.runtime.bundles import Builder, spec

VOCAB = 64
INPUTS = (
    spec("input_ids", ["batch", "sequence"], "int64"),
    spec("seqlens_k", ["batch"], "int32"),
    spec("total_sequence_length", [], "int32"),
    spec("logits_at", ["positions"], "int64"),
)
LOGITS = spec("logits", ["batch", "positions", VOCAB])


def decoder(
    path: Path,
    *,
    layers: int = 2,
    hidden: int = 64,
    block: int = 32,
    bits: int = 4,
    zero_points: bool = False,
    bias: bool = False,
    float_head: bool = False,
    tuned: int | None = None,
    golden: bool = True,
    tolerance: float = 1e-3,
    **fields,
) -> Path:
    """A bundle; ``tuned`` names a layer that differs from the same decoder's without it."""
    rng = np.random.default_rng(7)
    weights = {"embed": rng.standard_normal((VOCAB, hidden)).astype(np.float32)}
    nodes = [ob.node("Gather", ["embed", "input_ids"], ["h0"])]
    for layer in range(layers):
        form = (hidden, hidden, block, bits, zero_points, bias)
        node, own = product(rng, f"h{layer}", f"m{layer}", *form)
        if layer == tuned:
            own[f"m{layer}.weight"] = own[f"m{layer}.weight"] ^ 17
        weights |= own
        nodes += [node, ob.node("Tanh", [f"m{layer}"], [f"h{layer + 1}"])]
    nodes.append(ob.node("Gather", [f"h{layers}", "logits_at"], ["last"], axis=1))
    node, own = product(rng, "last", "logits", hidden, VOCAB, block, bits, zero_points, bias)
    if float_head:
        own = {"logits.weight": rng.standard_normal((hidden, VOCAB)).astype(np.float32)}
        node = ob.node("MatMul", ["last", "logits.weight"], ["logits"])
    with Builder(path) as builder:
        builder.graph([*nodes, node], INPUTS, [LOGITS], weights | own)
        case = (golden_case(builder, tolerance),) if golden else ()
        builder.variant(kind="decoder", task="text-generation", golden=case, **fields)
    return path


def product(
    rng: np.random.Generator,
    given: str,
    output: str,
    width: int,
    rows: int,
    block: int,
    bits: int,
    zero_points: bool,
    bias: bool,
) -> tuple[bytes, dict[str, np.ndarray]]:
    """A MatMulNBits node and its weights."""
    blocks = -(-width // block)
    shape = (rows, blocks, block * bits // 8)
    scales = rng.uniform(0.5, 1.5, (rows, blocks)) / (2**bits * width**0.5)
    weights = {
        f"{output}.weight": rng.integers(0, 256, shape, dtype=np.uint8),
        f"{output}.scales": scales.astype(np.float32),
    }
    if zero_points:
        shape = (rows, -(-blocks * bits // 8))
        weights[f"{output}.zeros"] = rng.integers(0, 256, shape, dtype=np.uint8)
    inputs = [given, *weights]
    if bias:
        weights[f"{output}.bias"] = rng.standard_normal(rows).astype(np.float32)
        inputs += [""] * (5 - len(inputs)) + [f"{output}.bias"]
    attributes = {"K": width, "N": rows, "bits": bits, "block_size": block, "accuracy_level": 4}
    node = ob.node("MatMulNBits", inputs, [output], domain="com.microsoft", **attributes)
    return node, weights


def golden_case(builder: Builder, tolerance: float) -> rec.GoldenCase:
    """The logits after some of eight tokens."""
    feeds = {
        "input_ids": np.arange(3, 11, dtype=np.int64)[None],
        "seqlens_k": np.array([7], np.int32),
        "total_sequence_length": np.array(8, np.int32),
        "logits_at": np.array([2, 7], np.int64),
    }
    outputs = builder.run(feeds)
    return rec.GoldenCase(
        graph="main",
        inputs={name: builder.array(array) for name, array in feeds.items()},
        outputs={name: builder.array(array) for name, array in outputs.items()},
        atol=tolerance,
        rtol=tolerance,
    )


def logits(session: Session, variant: Variant) -> np.ndarray:
    """What a session gives for the golden inputs."""
    [case] = variant.record.golden
    feeds = {name: np.array(read_array(ref, variant.blobs)) for name, ref in case.inputs.items()}
    return session.run(feeds)["logits"]
