"""Scales of dense layers behind the product, for kernels that know one scale per weight.

TensorFlow Lite 2.14, the last release for 32-bit ARM, takes a fully connected layer of float
activations with int8 weights and a scale per output column, and applies one of the scales to
all columns, without a word. Its product of plain codes is right, and so is multiplying the
columns afterwards. Layers that are integers throughout have right kernels and stay as they are.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converters.passes.base import GraphPass
from converters.passes.graph_tools import CONTRIB, Array, Editor, constant, is_op, producer


class ScalesApart(GraphPass):
    """Rewrites ``x @ (codes * scales)`` into ``(x @ codes) * scales`` where ``x`` stays float."""

    name = "scales-apart"

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph; returns the number of layers."""
        editor = Editor(graph, model)
        found = [(node, scales) for node in graph if (scales := _scales(node)) is not None]
        for node, scales in found:
            _part(node, scales, editor)
        if found:
            editor.prune()
        return len(found)


def _scales(node: ir.Node) -> Array | None:
    """A scale for each column of a layer that gives floats; ``None`` if it is something else."""
    if is_op(node, "DynamicQuantizeMatMul", domain=CONTRIB):
        scales, zero_point = constant(node.inputs[2]), constant(_input(node, 3))
    else:
        if not is_op(node, "MatMul", "Gemm") or not _gives_floats(node):
            return None
        widened = producer(node.inputs[1], "DequantizeLinear")
        codes = None if widened is None else constant(widened.inputs[0])
        if widened is None or codes is None or codes.ndim != 2 or _has_beta(node):
            return None
        columns = 0 if node.attributes.get_int("transB", 0) else 1
        if widened.attributes.get_int("axis", 1) % 2 != columns:
            return None
        scales, zero_point = constant(widened.inputs[1]), constant(_input(widened, 2))
    if scales is None or scales.size < 2 or (zero_point is not None and zero_point.any()):
        return None
    return np.asarray(scales.reshape(-1))


def _part(node: ir.Node, scales: Array, editor: Editor) -> None:
    one = editor.initializer(f"{node.name}_one", np.array(1, scales.dtype))
    output, bias = node.outputs[0], None
    if is_op(node, "DynamicQuantizeMatMul", domain=CONTRIB):
        bias = _input(node, 4)
        inputs = [*node.inputs[:2], one, *node.inputs[3:4]]
    else:
        bias = _input(node, 2)
        widened = producer(node.inputs[1], "DequantizeLinear")
        assert widened is not None, "its scales were found there"
        codes = editor.node(
            "DequantizeLinear", [widened.inputs[0], one], before=node, name=f"{node.name}_codes",
            like=node.inputs[1],
        )  # fmt: skip
        inputs = [node.inputs[0], codes]
    attributes = {key: attribute.value for key, attribute in node.attributes.items()}
    product = editor.node(
        node.op_type, inputs, before=node, name=f"{node.name}_product", like=output,
        domain=node.domain, **attributes,
    )  # fmt: skip
    columns = editor.initializer(f"{node.name}_scales", scales)
    result = editor.node(
        "Mul", [product, columns], before=node, name=f"{node.name}_scaled", like=output
    )
    if bias is not None:
        result = editor.node(
            "Add", [result, bias], before=node, name=f"{node.name}_sum", like=output
        )
    editor.redirect(output, result)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _gives_floats(node: ir.Node) -> bool:
    """Whether it is not made of integers throughout: then its result would be quantized."""
    return not any(is_op(user, "QuantizeLinear") for user, _ in node.outputs[0].uses())


def _has_beta(node: ir.Node) -> bool:
    return _input(node, 2) is not None and node.attributes.get_float("beta", 1.0) != 1
