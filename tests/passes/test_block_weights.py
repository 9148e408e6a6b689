"""Block-quantized weights: an eighth or a quarter of the bytes, activations untouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.passes.block_weights import BlockWeights, BlockWeightsOptions
from tests.passes.models import graph, normal, ops, run, untouched, weight_bytes
from tests.passes.networks import HIDDEN, cosine, encoder, inferred, samples, transformed


def options(**given: Any) -> BlockWeightsOptions:
    return BlockWeightsOptions(**{"min_weight_elements": 1} | given)


@pytest.mark.parametrize(("bits", "share", "least"), [(8, 0.3, 0.999), (4, 0.2, 0.9)])
def test_encoder_shrinks_and_agrees(bits: int, share: float, least: float) -> None:
    before = encoder()
    after = transformed(
        BlockWeights(options(bits=bits, block_size=32, clip=bits == 4, accuracy_level=0)), before
    )
    assert ops(after)["MatMulNBits"] == 6
    assert weight_bytes(after) < share * weight_bytes(before)
    assert cosine(before, after, samples((1, 7, HIDDEN), 4, seed=5)) > least


@pytest.mark.parametrize("block_size", [16, 32, 64, 128])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    "layer",
    [
        "a = MatMul (x, w) y = Add (a, b)",
        "y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, t, b)",
    ],
)
def test_every_form_agrees_also_with_a_padded_last_block(
    layer: str, bits: int, symmetric: bool, block_size: int
) -> None:
    before = inferred(
        graph(
            "(float[3,80] x) => (float[3,24] y)",
            layer,
            w=normal(80, 24) + 0.5,
            t=normal(24, 80) + 0.5,
            b=normal(24, seed=2),
        )
    )
    pass_ = BlockWeights(options(bits=bits, symmetric=symmetric, block_size=block_size))
    after = transformed(pass_, before)
    assert cosine(before, after, samples((3, 80), 3, seed=9)) > (0.999 if bits == 8 else 0.98)


def test_fp32_compute_is_more_exact_than_int8() -> None:
    model = graph("(float[3,128] x) => (float[3,64] y)", "y = MatMul (x, w)", w=normal(128, 64))
    held_out = samples((3, 128), 3)
    exact, quick = (
        cosine(model, transformed(BlockWeights(options(accuracy_level=level)), model), held_out)
        for level in (0, 4)
    )
    assert exact > quick > 0.999


def test_include_names_the_only_layers_without_a_word_on_the_rest() -> None:
    model = graph(
        "(float[2,16] x) => (float[2,16] y)",
        "a = MatMul (x, w) y = MatMul (a, v)",
        w=normal(16, 16),
        v=normal(16, 16, seed=1),
    )
    for node, name in zip(model.graph, ("first", "second"), strict=True):
        node.name = name
    pass_ = BlockWeights(options(include=("second",)))
    after = transformed(pass_, model)
    assert [node.op_type for node in after.graph] == ["MatMul", "MatMulNBits"]
    assert pass_.context.unquantized == []
    assert untouched(BlockWeights(options(include=("third",))), model)


def test_a_shared_weight_is_stored_once() -> None:
    model = graph(
        "(float[2,16] x) => (float[2,16] y)",
        "a = MatMul (x, w) y = MatMul (a, w)",
        w=normal(16, 16),
    )
    after = transformed(BlockWeights(options(symmetric=False)), model)
    assert set(after.graph.initializers) == {"w_blocks", "w_scale", "w_zero_point"}
    np.testing.assert_allclose(
        run(after, {"x": normal(2, 16)})["y"], run(model, {"x": normal(2, 16)})["y"], atol=0.3
    )
