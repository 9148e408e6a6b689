"""Dense layers become DynamicQuantizeMatMul: a quarter of the bytes, nearly the same answers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.base import Context
from converters.passes.dynamic_int8 import DynamicInt8, DynamicInt8Options
from tests.passes.models import build, graph, normal, ops, run, untouched, weight_bytes
from tests.passes.networks import HIDDEN, cosine, encoder, inferred, samples, transformed

OPTIONS = DynamicInt8Options(min_weight_elements=1)


def test_encoder_shrinks_to_a_quarter_and_agrees() -> None:
    before = encoder()
    after = transformed(DynamicInt8(), before)
    assert ops(after)["DynamicQuantizeMatMul"] == 6
    # What is left of MatMul are the two products of activations; biases went inside.
    assert ops(after)["MatMul"] == 2
    assert ops(after)["Add"] == 0
    assert weight_bytes(after) < 0.3 * weight_bytes(before)
    assert cosine(before, after, samples((1, 7, HIDDEN), 4, seed=5)) > 0.98


@pytest.mark.parametrize(
    ("layer", "left"),
    [
        ("y = MatMul (x, w)", set()),
        ("a = MatMul (x, w) y = Add (b, a)", set()),
        ("a = MatMul (x, w) y = Add (a, b2)", set()),
        ("y = Gemm (x, w, b)", set()),
        ("y = Gemm <transB = 1> (x, t, b2)", set()),
        ("y = Gemm <alpha = 0.5, beta = 2.0> (x, w, b)", set()),
        ("y = Gemm <beta = 3.0> (x, w, one)", set()),
        ("a = MatMul (x, w) y = Add (a, one)", {"Add"}),
        ("a = MatMul (x, w) y = Add (a, column)", {"Add"}),
        ("a = MatMul (x, w) y = Add (a, a)", {"Add"}),
    ],
)
def test_every_form_of_dense_layer_agrees(layer: str, left: set[str]) -> None:
    before = inferred(
        graph(
            "(float[4,32] x) => (float[4,24] y)",
            layer,
            w=normal(32, 24),
            t=normal(24, 32),
            b=normal(24, seed=2),
            b2=normal(1, 24, seed=3),
            one=np.array([1.5], np.float32),
            column=normal(4, 1, seed=4),
        )
    )
    after = transformed(DynamicInt8(OPTIONS), before)
    assert set(ops(after)) == {"DynamicQuantizeMatMul"} | left
    assert cosine(before, after, samples((4, 32), 3, seed=9)) > 0.9995


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = MatMul (x, x)", "both operands are computed"),
        ("y = Gemm <transA = 1> (x, w)", "its input is transposed"),
        ("y = Gemm (x, w, x)", "its addend is not a constant per column"),
        ("y = Gemm (x, w, column)", "its addend is not a constant per column"),
        ("y = MatMul (w, x)", "both operands are computed"),
        ("y = MatMul (x, w3)", "its weight has rank 3"),
        ("y = MatMul (w, w)", "both operands are constant"),
    ],
)
def test_what_is_no_dense_layer_stays_and_says_why(body: str, reason: str) -> None:
    model = graph(
        "(float[8,8] x) => (float[A,B] y)",
        body,
        w=normal(8, 8),
        w3=normal(1, 8, 8),
        column=normal(8, 1),
    )
    context = Context()
    assert untouched(DynamicInt8(OPTIONS, context), model)
    assert [skipped.reason for skipped in context.unquantized] == [reason]


def test_half_precision_and_overridable_weights_stay() -> None:
    half = graph(
        "(float16[2,8] x) => (float16[2,8] y)",
        "y = MatMul (x, w)",
        w=normal(8, 8).astype(np.float16),
    )
    default = graph(
        "(float[2,8] x, float[8,8] w) => (float[2,8] y)", "y = MatMul (x, w)", w=normal(8, 8)
    )
    assert untouched(DynamicInt8(OPTIONS), half)
    assert untouched(DynamicInt8(OPTIONS), default)


def test_include_exclude_and_size_choose_the_layers() -> None:
    model = graph(
        "(float[2,8] x) => (float[2,8] y)",
        "a = MatMul (x, w) b = MatMul (a, v) y = MatMul (b, u)",
        **{name: normal(8, 8, seed=i) for i, name in enumerate("wvu")},
    )
    for node, name in zip(model.graph, ("first", "second", "third"), strict=True):
        node.name = name

    def quantized(**options: object) -> set[str]:
        after = transformed(
            DynamicInt8(DynamicInt8Options(**{"min_weight_elements": 1} | options)), model
        )
        return {str(node.name) for node in after.graph if node.op_type != "MatMul"}

    assert quantized(include=("second",)) == {"second_int8"}
    assert quantized(exclude=("second",)) == {"first_int8", "third_int8"}
    assert quantized(min_weight_elements=65) == set()


def test_a_shared_weight_is_quantized_once_and_a_float_user_keeps_it() -> None:
    model = graph(
        "(float[2,16] x) => (float[2,16] y, float[16,16] z)",
        "a = MatMul (x, w) y = MatMul (a, w) z = Neg (w)",
        w=normal(16, 16),
    )
    after = transformed(DynamicInt8(OPTIONS), model)
    layers = [node for node in after.graph if node.op_type == "DynamicQuantizeMatMul"]
    assert len({node.inputs[1] for node in layers}) == 1
    assert set(after.graph.initializers) == {"w", "w_int8", "w_scale"}


def test_layers_in_subgraphs_share_the_outer_weight() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    main (bool c, float[2,16] x) => (float[2,16] y) {
        y = If (c) <
            then_branch = a () => (float[2,16] t) { t = MatMul (x, w) },
            else_branch = b () => (float[2,16] e) { n = Neg (x) e = MatMul (n, w) }
        >
    }"""
    before = build(text, w=normal(16, 16))
    after = transformed(DynamicInt8(OPTIONS), before)
    assert ops(after)["DynamicQuantizeMatMul"] == 2
    assert set(after.graph.initializers) == {"w_int8", "w_scale"}
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": normal(2, 16, seed=3)}
        np.testing.assert_allclose(run(after, feeds)["y"], run(before, feeds)["y"], atol=0.2)


def test_reduced_range_leaves_a_bit() -> None:
    model = graph("(float[2,16] x) => (float[2,16] y)", "y = MatMul (x, w)", w=normal(16, 16))
    options = DynamicInt8Options(min_weight_elements=1, reduce_range=True)
    after = transformed(DynamicInt8(options), model)
    codes = after.graph.initializers["w_int8"].const_value
    assert codes is not None
    assert np.abs(codes.numpy()).max() == 63


def test_the_same_model_gives_the_same_bytes() -> None:
    first, second = (ir.to_proto(transformed(DynamicInt8(), encoder())) for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


LSTM = 'y = LSTM <hidden_size = 16, direction = "bidirectional"> (x, w, r, b)'


def lstm() -> ir.Model:
    return inferred(
        graph(
            "(float[7,2,12] x) => (float[7,2,2,16] y)",
            LSTM,
            w=normal(2, 64, 12),
            r=normal(2, 64, 16, seed=2),
            b=normal(2, 128, seed=3),
        )
    )


def test_recurrent_layers_are_stored_in_int8_where_asked_to() -> None:
    before = lstm()
    after = transformed(DynamicInt8(DynamicInt8Options(recurrent=True)), before)
    assert ops(after) == {"LSTM": 1, "DequantizeLinear": 2}
    assert weight_bytes(after) < 0.4 * weight_bytes(before)
    assert cosine(before, after, samples((7, 2, 12), 3, seed=9)) > 0.999


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (DynamicInt8Options(), None),
        (DynamicInt8Options(recurrent=True, exclude=("LSTM_0",)), "excluded by the recipe"),
        (
            DynamicInt8Options(recurrent=True, min_weight_elements=2000),
            "a weight has only 1536 elements",
        ),
    ],
    ids=["not asked to", "excluded", "too small"],
)
def test_recurrent_layers_otherwise_stay_float(
    options: DynamicInt8Options, reason: str | None
) -> None:
    model, context = lstm(), Context()
    model.graph[0].name = "LSTM_0"
    assert ops(transformed(DynamicInt8(options, context), model)) == {"LSTM": 1}
    assert [each.reason for each in context.unquantized] == ([reason] if reason else [])
