"""Shape inference: more is known afterwards, and what the author declared survives."""

from __future__ import annotations

import onnx_ir as ir

from converters.passes.base import Context
from converters.passes.graph_tools import static_shape
from converters.passes.infer_shapes import InferShapes
from tests.passes.models import graph, improved, normal, untouched


def values(model: ir.Model) -> dict[str, ir.Value]:
    return ir.convenience.create_value_mapping(model.graph)


def test_shapes_reach_through_computed_reshapes_and_into_branches() -> None:
    model = graph(
        "(bool c, float[2,6] x) => (float[N,4] y)",
        """
        s = Shape (x)
        two = Constant <value_int = 0> ()
        n = Gather (s, two)
        rest = Constant <value_ints = [-1]> ()
        zero = Constant <value_ints = [0]> ()
        n1 = Unsqueeze (n, zero)
        shape = Concat <axis = 0> (n1, rest)
        r = Reshape (x, shape)
        y = If (c) <
            then_branch = t () => (float[N,4] a) { h = MatMul (r, w) a = Relu (h) },
            else_branch = e () => (float[N,4] b) { b = MatMul (r, w) }
        >
        """,
        w=normal(6, 4),
    )
    found = values(improved(InferShapes(), model))
    assert static_shape(found["r"]) == (2, 6)
    assert static_shape(found["h"]) == (2, 4)


def test_declared_names_of_dimensions_survive_and_a_second_run_changes_nothing() -> None:
    model = graph(
        "(float[batch,sequence,4] x) => (float[batch,sequence,8] y)",
        "h = MatMul (x, w) y = Relu (h) ",
        w=normal(4, 8),
    )
    after = improved(InferShapes(), model)
    assert [str(dim) for dim in values(after)["h"].shape or ()] == ["batch", "sequence", "8"]
    assert [str(dim) for dim in after.graph.outputs[0].shape or ()] == ["batch", "sequence", "8"]
    assert untouched(InferShapes(), after)


def test_weights_are_never_read_so_models_above_two_gigabytes_pass() -> None:
    model = graph(
        "(float[N,4] x) => (float[N,M] y)", "h = MatMul (x, w) y = Relu (h) ", w=normal(4, 1)
    )
    huge = ir.ExternalTensor(
        "absent.bin", 0, 4 << 30, ir.DataType.FLOAT, shape=ir.Shape([4, 1 << 28]), name="w"
    )
    weight = model.graph.initializers["w"]
    weight.const_value, weight.shape = huge, ir.Shape([4, 1 << 28])
    InferShapes()(model)
    assert values(model)["h"].shape == ir.Shape(["N", 1 << 28])
    assert model.graph.initializers["w"].const_value is huge


def test_a_sequence_stays_a_sequence() -> None:
    model = graph(
        "(float[4,6] x) => (float[2,6] y)",
        """
        split = Constant <value_int = 2> ()
        s = SplitToSequence <axis = 0> (x, split)
        zero = Constant <value_int = 0> ()
        y = SequenceAt (s, zero)
        """,
    )
    assert isinstance(values(improved(InferShapes(), model))["s"].type, ir.SequenceType)


def test_one_node_that_cannot_be_inferred_does_not_stop_the_others() -> None:
    model = graph(
        "(float[N,4] x) => (float[N,4] y)",
        "u = com.microsoft.BiasGelu (x, b) v = Relu (x) y = Add (u, v) ",
        b=normal(4),
    )
    found = values(improved(InferShapes(), model))
    assert found["u"].shape is None
    assert found["v"].shape is not None


def test_a_model_that_inference_refuses_is_left_alone_and_noted() -> None:
    model = graph("(float[N,4] x) => (float[N,4] y)", "u = Neg (x) y = Relu (u) ")
    model.graph.opset_imports.clear()
    context = Context()
    assert not InferShapes(context=context)(model).modified
    assert "shape inference stopped" in context.notes[0]
