from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from converters.costs import graph_costs, node_costs, peak_activations, reference_dimensions
from edge_sdk.bundle.record import TensorSpec

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\n'


def model(text: str, **weights: tuple[int, ...] | np.ndarray) -> ir.Model:
    """A graph in ONNX's text form, with weights given by shape or value."""
    found = ir.from_proto(onnx.parser.parse_model(HEAD + text))
    for name, weight in weights.items():
        array = weight if isinstance(weight, np.ndarray) else np.ones(weight, np.float32)
        values = [v for g in found.graphs() for n in g for v in n.inputs if v and v.name == name]
        tensor = ir.tensor(array, name=name)
        initializer = ir.Value(name=name, shape=ir.Shape(array.shape), const_value=tensor)
        initializer.type = ir.TensorType(tensor.dtype)
        for value in values:
            value.replace_all_uses_with(initializer)
        found.graph.register_initializer(initializer)
    return found


def flops(text: str, dimensions=None, **weights) -> dict[str, int]:
    graph = model(text, **weights)
    return {cost.op: cost.flops for cost in node_costs(graph, dimensions or {})}


@pytest.mark.parametrize(
    ("node", "weights", "expected"),
    [
        ("MatMul(x, w)", {"w": (8, 5)}, 2 * 6 * 8 * 5),
        ("Gemm <transA = 1> (x, w)", {"w": (6, 5)}, 2 * 8 * 6 * 5),
        ("Gemm <transB = 1> (x, w)", {"w": (5, 8)}, 2 * 6 * 8 * 5),
        ('Einsum <equation = "ij,jk->ik"> (x, w)', {"w": (8, 5)}, 2 * 6 * 8 * 5),
        ("Transpose(x)", {}, 0),
        ("Neg(x)", {}, 48),
        ("ReduceSum(x)", {}, 48),
    ],
)
def test_arithmetic_of_products_and_elementwise_nodes(node, weights, expected):
    (found,) = flops(f"g (float[6, 8] x) => (y) {{ y = {node} }}", **weights).values()
    assert found == expected


def test_convolutions_count_channels_per_group_and_the_output_or_input_plane():
    conv = "g (float[1, 4, 10, 10] x) => (y) { y = Conv <group = 2, strides = [2, 2]> (x, w) }"
    assert flops(conv, w=(6, 2, 3, 3)) == {"Conv": 2 * (6 * 4 * 4) * (2 * 3 * 3)}
    back = "g (float[1, 4, 5, 5] x) => (y) { y = ConvTranspose (x, w) }"
    assert flops(back, w=(4, 6, 3, 3)) == {"ConvTranspose": 2 * (4 * 5 * 5) * (6 * 3 * 3)}


def test_recurrent_layers_count_gates_steps_and_directions():
    text = "g (float[7, 1, 4] x) => (y) { y = LSTM <hidden_size = 3> (x, w, r) }"
    found = flops(text, w=(1, 12, 4), r=(1, 12, 3))["LSTM"]
    assert found == 2 * 7 * (12 * 4 + 12 * 3) + 4 * 10 * 7 * 3


def test_a_quantized_product_costs_what_its_float_form_costs():
    float_form = flops("g (float[n, 64] x) => (y) { y = MatMul(x, w) }", {"n": 9}, w=(64, 32))
    dynamic = flops(
        "g (float[n, 64] x) => (y) { y = com.microsoft.DynamicQuantizeMatMul(x, w, s) }",
        {"n": 9}, w=np.ones((64, 32), np.int8), s=(32,),
    )  # fmt: skip
    blocks = flops(
        "g (float[n, 64] x) => (y)"
        " { y = com.microsoft.MatMulNBits <K = 64, N = 32, bits = 4, block_size = 32> (x, w, s) }",
        {"n": 9}, w=np.ones((32, 2, 16), np.uint8), s=(64,),
    )  # fmt: skip
    assert [*float_form.values()] == [*dynamic.values()] == [*blocks.values()]


def test_shapes_behind_contrib_operators_are_known():
    text = """g (float[n, 64] x) => (y) {
      a = com.microsoft.Gelu(x)
      b = com.microsoft.MatMulNBits <K = 64, N = 32, bits = 8, block_size = 64> (a, w, s)
      c = com.microsoft.QuickGelu(b)
      y = Relu(c)
    }"""
    graph = model(text, w=np.ones((32, 1, 64), np.uint8), s=(32,))
    found = graph_costs(graph, {"n": 5})
    assert found.unknown == 0
    assert [cost.activation_bytes for cost in found.nodes] == [5 * 256, 5 * 128, 5 * 128, 5 * 128]


def test_shapes_that_the_graph_computes_itself_are_known():
    # The way exporters write `x.reshape(n, -1)`: shape inference alone gives up at Div.
    text = """g (float[n, 4, 6] x) => (y) {
      shape = Shape(x)
      zero = Constant <value_ints = [0]> ()
      four = Constant <value_ints = [4]> ()
      rows = Gather(shape, zero)
      size = Size(x)
      one_d = Reshape(size, minus)
      half = Div(one_d, four)
      target = Concat <axis = 0> (four, half)
      y = Reshape(x, target)
    }"""
    graph = model(text, minus=np.array([-1]))
    found = graph_costs(graph, {"n": 10})
    assert found.unknown == 0
    assert found.nodes[-1].activation_bytes == 10 * 4 * 6 * 4


def test_declared_shapes_of_other_dimensions_do_not_count():
    # The exporter wrote down 7 and a name that means nothing here.
    text = "g (float[n, 8] x) => (float[m, 8] y) <float[7, 8] h> { h = Relu(x) y = Relu(h) }"
    found = node_costs(model(text), {"n": 3, "m": 100})
    assert [cost.flops for cost in found] == [24, 24]


def test_what_depends_on_constants_costs_only_its_weights():
    text = """g (float[1, 64] x) => (y) {
      wide = Cast <to = 1> (w)
      weight = Mul(wide, s)
      y = MatMul(x, weight)
    }"""
    cast, mul, product = node_costs(model(text, w=np.ones((64, 32), np.int8), s=(32,)), {})
    assert (cast.flops, cast.activation_bytes, cast.weight_bytes) == (0, 0, 64 * 32)
    assert (mul.flops, mul.weight_bytes) == (0, 32 * 4)
    assert (product.flops, product.weight_bytes) == (2 * 64 * 32, 0)


IF = """g (float[1, 8] x, bool c) => (y) {
  y = If(c) <
    then_branch = small () => (a) { a = Neg(x) },
    else_branch = large () => (b) { d = Add(x, x) b = MatMul(d, w) }
  >
}"""


def test_an_if_costs_its_dearer_branch_and_the_weights_of_both():
    (cost,) = node_costs(model(IF, w=(8, 8)), {})
    assert cost.flops == 8 + 2 * 8 * 8
    assert cost.weight_bytes == 8 * 8 * 4


def test_a_scan_costs_its_body_once_per_step():
    text = """g (float[1, 4] h, float[steps, 1, 4] xs) => (last, ys) {
      last, ys = Scan <num_scan_inputs = 1, body = body
        (float[1, 4] state, float[1, 4] x) => (float[1, 4] next, float[1, 4] y)
        { next = Add(state, x) y = Neg(next) }
      > (h, xs)
    }"""
    (cost,) = node_costs(model(text), {"steps": 11})
    assert cost.flops == 11 * 8


def test_a_node_of_unknown_shape_costs_nothing_and_is_counted():
    text = "g (float[n] x) => (y) { p = NonZero(x) y = Neg(p) }"
    found = graph_costs(model(text), {"n": 4})
    assert found.unknown == 2
    assert [cost.flops for cost in found.nodes] == [0, 0]


def test_live_activations_reuse_buffers_that_end():
    chain = "g (float[256] x) => (y) { a = Relu(x) b = Relu(a) y = Relu(b) }"
    assert peak_activations(model(chain), {}) == 2 * 1024  # the caller's input, and one more
    diamond = (
        "g (float[256] x) => (y) { a = Relu(x) b = Neg(a) c = Abs(a) y = Concat <axis=0> (b, c) }"
    )
    assert peak_activations(model(diamond), {}) == 1024 + 2 * 1024 + 2 * 1024


def test_reshaped_values_share_their_buffer_and_keep_it_alive():
    text = "g (float[16, 16] x) => (y, z) { a = Relu(x) b = Flatten(a) y = Neg(b) z = Abs(b) }"
    # x, a (also b), y, and z in place of a
    assert peak_activations(model(text), {}) == 3 * 1024


def test_float_values_between_int8_operators_do_not_exist():
    qdq = """g (float[1, 1024] x) => (y) {
      q = QuantizeLinear(x, s, z)
      d = DequantizeLinear(q, s, z)
      w = DequantizeLinear(w8, s, z)
      a = MatMul(d, w)
      aq = QuantizeLinear(a, s, z)
      y = DequantizeLinear(aq, s, z)
    }"""
    scale, zero = np.array(0.1, np.float32), np.array(0, np.int8)
    graph = model(qdq, s=scale, z=zero, w8=np.ones((1024, 1024), np.int8))
    assert peak_activations(graph, {}) == 4096 + 1024 + 1024


def test_the_model_is_left_as_it_was():
    text = "g (float[n, 8] x) => (float[n, 8] y) { h = Relu(x) y = com.microsoft.Gelu(h) }"
    graph = model(text)
    before = ir.to_proto(graph).SerializeToString()
    graph_costs(graph, {"n": 2})
    assert ir.to_proto(graph).SerializeToString() == before


def test_reference_dimensions_are_the_largest_seen():
    inputs = (
        TensorSpec(name="ids", dtype="int64", shape=("batch", "tokens")),
        TensorSpec(name="state", dtype="float32", shape=("batch", 4)),
    )
    calls = [{"ids": np.zeros((1, n), np.int64)} for n in (3, 9, 5)]
    assert reference_dimensions(inputs, calls) == {"batch": 1, "tokens": 9}


@pytest.mark.parametrize("cut", [False, True])
def test_attention_costs_its_products_and_holds_its_scores(cut: bool):
    # [batch, query, 2 heads of 4] and [batch, key, …], cut into heads before it or by it.
    inputs = [
        f"float[n, {at}8] {name}" for name, at in zip("qkv", ("6, ", "10, ", "10, "), strict=True)
    ]
    if cut:
        inputs = [
            f"float[n, 2, {at}, 4] {name}" for name, at in zip("qkv", (6, 10, 10), strict=True)
        ]
    heads = "" if cut else "<q_num_heads = 2, kv_num_heads = 2>"
    text = f"g ({', '.join(inputs)}) => (y) {{ y = Attention {heads} (q, k, v) }}"
    graph = model(text)
    graph.opset_imports[""] = 23
    found = graph_costs(graph, {"n": 3})
    scores = 3 * 2 * 6 * 10
    assert found.nodes[0].flops == scores * (2 * 4 + 2 * 4 + 10)
    held = 2 * (6 + 10 + 10) * 8 * 3 * 4 + 6 * 8 * 3 * 4 + 4 * scores
    assert found.peak_activations == held
