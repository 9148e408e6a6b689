"""Cleanup: normal form without changing what the model computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.base import each_graph
from converters.passes.cleanup import Cleanup, CleanupOptions
from tests.passes.models import build, graph, improved, normal, ops, untouched, weight_bytes
from tests.passes.odd_graphs import handing_on


def messy() -> ir.Model:
    return graph(
        "(float[N,4] x, float[N] unused) => (float[N,4] y)",
        """
        c = Constant <value_float = 2.0> ()
        a = Identity (x)
        b, mask = Dropout (a)
        d = Mul (b, c)
        dead = MatMul (x, big)
        deader = Relu (dead)
        f = Cast <to = 1> (d)
        e = Identity (f)
        y = Add (e, w)
        """,
        w=normal(4),
        big=normal(4, 64),
    )


def test_what_does_nothing_or_is_unused_goes() -> None:
    before = messy()
    after = improved(Cleanup(), before)
    assert ops(after) == {"Mul": 1, "Cast": 1, "Add": 1}, "the Cast's input type is not known yet"
    assert weight_bytes(after) == 5 * 4 < weight_bytes(before)
    assert [value.name for value in after.graph.inputs] == ["x", "unused"]


def test_a_second_run_changes_nothing() -> None:
    assert untouched(Cleanup(), improved(Cleanup(), messy()))


def test_outputs_that_are_inputs_or_initializers_keep_their_node() -> None:
    model = graph(
        "(float[N,4] x) => (float[N,4] y, float[4] z, float[N,4] r, float[N,4] s, float c)",
        """
        y = Identity (x)
        z = Identity (w)
        r = Relu (x)
        s = Identity (r)
        c = Constant <value_float = 2.0> ()
        """,
        w=normal(4),
    )
    assert ops(improved(Cleanup(), model)) == {"Identity": 3, "Relu": 1, "Constant": 1}


def test_an_identity_before_an_output_hands_its_name_over() -> None:
    model = graph("(float[N,4] x) => (float[N,4] y)", "a = Relu (x) y = Identity (a) ")
    after = improved(Cleanup(), model)
    assert ops(after) == {"Relu": 1}
    assert after.graph.outputs[0].name == "y"


def test_a_branch_that_returns_an_outer_value_keeps_its_identity() -> None:
    model = graph(
        "(bool c, float[N,4] x) => (float[N,4] y)",
        """
        h = Relu (x)
        y = If (c) <
            then_branch = t () => (float[N,4] a) { a = Identity (h) },
            else_branch = e () => (float[N,4] a) { b = Identity (h) a = Neg (b) }
        >
        """,
    )
    for condition in (True, False):
        feeds = {"c": np.array(condition), "x": normal(3, 4)}
        assert ops(improved(Cleanup(), model, feeds))["Identity"] == 1


def test_names_are_unique_across_sibling_branches_and_never_empty() -> None:
    model = graph(
        "(bool c, float[N,4] x) => (float[N,4] y)",
        """
        y = If (c) <
            then_branch = t () => (float[N,4] a) { h = Relu (x) a = Abs (h) },
            else_branch = e () => (float[N,4] a) { h = Neg (x) a = Exp (h) }
        >
        """,
    )
    after = improved(Cleanup(), model)
    nodes = [node for graph in each_graph(after.graph) for node in graph]
    for names in ([n.name for n in nodes], [v.name for n in nodes for v in n.outputs]):
        assert all(names)
        assert len(set(names)) == len(names)


def test_initializers_listed_as_inputs_become_constants_unless_callers_override_them() -> None:
    model = graph(
        "(float[N,4] x, float[4] w) => (float[N,4] y)", "y = Mul (x, w) ", ir_version=3, w=normal(4)
    )
    kept = ir.from_proto(ir.to_proto(model))
    Cleanup(CleanupOptions(overridable=("w",)))(kept)
    assert [value.name for value in kept.graph.inputs] == ["x", "w"]
    Cleanup()(model)
    assert [value.name for value in model.graph.inputs] == ["x"]
    assert model.ir_version >= 4
    assert not Cleanup()(model).modified


def test_functions_are_inlined() -> None:
    model = build(
        """
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        main (float[N,4] x) => (float[N,4] y) { a = local.twice (x) y = local.twice (a) }
        <domain: "local", opset_import: ["" : 17]>
        twice (v) => (r) { r = Add (v, v) }
        <domain: "local", opset_import: ["" : 17]>
        never (v) => (r) { r = Relu (v) }
        """
    )
    after = improved(Cleanup(), model)
    assert ops(after) == {"Add": 2}
    assert not after.functions
    assert set(after.opset_imports) == {""}


def test_a_function_that_returns_its_input_does_not_rename_the_model_input() -> None:
    model = build(
        """
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        main (float[N,4] x) => (float[N,4] y) { a = local.same (x) y = Relu (a) }
        <domain: "local", opset_import: ["" : 17]>
        same (v) => (v) { unused = Relu (v) }
        """
    )
    Cleanup()(model)
    assert [value.name for value in model.graph.inputs] == ["x"]


def test_nodes_out_of_order_are_sorted() -> None:
    model = graph("(float[N,4] x) => (float[N,4] y)", "y = Relu (a) a = Abs (x) ")
    Cleanup()(model)
    assert [node.op_type for node in model.graph] == ["Abs", "Relu"]


def test_annotations_go_and_the_authors_metadata_stays() -> None:
    model = messy()
    model.metadata_props["classes"] = "cat,dog"
    model.doc_string = model.graph.doc_string = "exported by me"
    for node in model.graph:
        node.metadata_props["stack_trace"] = "somewhere/train.py:12"
    Cleanup()(model)
    text = ir.to_proto(model).SerializeToString()
    assert b"train.py" not in text
    assert b"exported" not in text
    assert b"cat,dog" in text


def test_what_is_written_in_place_of_a_name_is_no_name() -> None:
    proto = ir.to_proto(graph("(float[N,4] x) => (float[N,4] y)", "y = Relu (x)"))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "?"
    after = Cleanup()(ir.from_proto(proto)).model  # whose shapes are frozen
    for value in (*after.graph.inputs, *after.graph.outputs):
        assert value.shape is not None and value.shape[0] == ir.SymbolicDim(None)


def test_what_a_loop_never_changes_is_used_from_outside() -> None:
    feeds = [{"x": normal(2, 64), "times": np.array(times)} for times in (0, 1, 4)]
    after = improved(Cleanup(), handing_on(), *feeds)
    assert untouched(Cleanup(), after)
    [loop] = [node for node in after.graph if node.op_type == "Loop"]
    assert len(loop.inputs) == 3, "how often, no condition, and the one state that changes"
    [layer] = [node for node in loop.attributes["body"].as_graph() if node.op_type == "MatMul"]
    assert layer.inputs[1] is after.graph.initializers["w"], "a constant, as quantization needs"


@pytest.mark.parametrize(("result", "left"), [("t2", 3), ("s", 4)])
def test_a_loops_state_that_another_one_takes_over_is_right(result: str, left: int) -> None:
    model = graph(
        "(float[4] x, float[4] y, int64 times) => (float[4] a, float[4] b)",
        """
        a, b = Loop (times, , x, y) <
            body = g (int64 i, bool k, float[4] s, float[4] t)
            => (bool k2, float[4] s, float[4] RESULT) { k2 = Identity (k)  t2 = Relu (s) }
        >
        """.replace("RESULT", result),
    )
    feeds = [{"x": normal(4), "y": normal(4, seed=1), "times": np.array(n)} for n in (0, 1, 3)]
    after = improved(Cleanup(), model, *feeds)
    [loop] = [node for node in after.graph if node.op_type == "Loop"]
    assert len(loop.inputs) == left
