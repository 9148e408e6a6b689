"""Operators that compute with codes become float operators between Q/DQ pairs.

Both say the same (ONNX's operator-oriented and tensor-oriented form of a quantized
graph). LiteRT, TensorRT and most compilers read the second only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from converters.passes.base import GraphPass
from converters.passes.graph_tools import Editor

# Since then DequantizeLinear takes scales per channel.
OPSET = 13
MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class _Form:
    """Where an operator has its operands: positions of codes, each with scale and zero point.

    Attributes:
        op: What computes the same with real numbers.
        operands: Position of each operand; scale and zero point follow it.
        result: Position of the result's scale; its zero point follows.
        bias: Position of the int32 bias, in steps of the product of the first two scales.
        attributes: Attributes that stay.
    """

    op: str
    operands: tuple[int, ...]
    result: int
    bias: int | None = None
    attributes: tuple[str, ...] = ()


_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
_FORMS = {
    ("", "QLinearConv"): _Form("Conv", (0, 3), 6, bias=8, attributes=_CONV),
    ("", "QLinearMatMul"): _Form("MatMul", (0, 3), 6),
    (MICROSOFT, "QGemm"): _Form("Gemm", (0, 3), 7, bias=6, attributes=("transA", "transB")),
    (MICROSOFT, "QLinearAdd"): _Form("Add", (0, 3), 6),
    (MICROSOFT, "QLinearMul"): _Form("Mul", (0, 3), 6),
    (MICROSOFT, "QLinearSigmoid"): _Form("Sigmoid", (0,), 3),
    (MICROSOFT, "QLinearLeakyRelu"): _Form("LeakyRelu", (0,), 3, attributes=("alpha",)),
    (MICROSOFT, "QLinearSoftmax"): _Form("Softmax", (0,), 3, attributes=("axis",)),
    (MICROSOFT, "QLinearGlobalAveragePool"): _Form("GlobalAveragePool", (0,), 3),
    (MICROSOFT, "QLinearAveragePool"): _Form("AveragePool", (0,), 3, attributes=_POOL),
}  # fmt: skip


class QOperatorToQdq(GraphPass):
    """Replaces operators over codes, such as ``QLinearConv``, by their tensor-oriented form."""

    name = "qoperator-to-qdq"

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph."""
        if model.opset_imports.get("", 0) < OPSET:
            return 0
        editor = Editor(graph, model)
        changes = 0
        for node in graph:
            form = _form(node)
            if form is not None:
                _rewrite(node, form, editor)
                changes += 1
        if changes:
            editor.prune()
        return changes


def _form(node: ir.Node) -> _Form | None:
    if (node.domain, node.op_type) == (MICROSOFT, "QLinearConcat"):
        return _Form("Concat", tuple(range(2, len(node.inputs), 3)), 0, attributes=("axis",))
    form, attributes = _FORMS.get((node.domain, node.op_type)), node.attributes
    if form is None or _at(node, form.result, 1)[0] is None:
        return None  # without a scale, what comes out is real already
    other_meaning = (
        attributes.get_int("channels_last", 0)
        or (node.op_type == "QGemm" and attributes.get_float("alpha", 1.0) != 1)
        or (node.op_type == "QLinearSoftmax" and attributes.get_int("opset", OPSET) < OPSET)
    )
    return None if other_meaning else form


def _rewrite(node: ir.Node, form: _Form, editor: Editor) -> None:
    name = node.name or f"{node.outputs[0].name}_real"
    real: list[ir.Value | None] = [
        _real(node, _at(node, at, 3), editor, f"{name}_{number}")
        for number, at in enumerate(form.operands)
    ]
    bias = _at(node, form.bias, 1)[0] if form.bias is not None else None
    if bias is not None:
        scales = (node.inputs[at + 1] for at in form.operands)
        step = editor.node("Mul", list(scales), before=node, name=f"{name}_bias_scale")
        real.append(_real(node, (bias, step, None), editor, f"{name}_bias", axis=0))
    kept = [node.attributes[key] for key in form.attributes if key in node.attributes]
    attributes: dict[str, Any] = {attribute.name: attribute.value for attribute in kept}
    result = editor.node(form.op, real, before=node, name=f"{name}_{form.op}", **attributes)
    scale, zero = _at(node, form.result, 2)
    codes = editor.node(
        "QuantizeLinear", [result, scale, zero], before=node, name=f"{name}_codes",
        like=node.outputs[0],
    )  # fmt: skip
    editor.redirect(node.outputs[0], codes)


def _real(
    node: ir.Node,
    codes: Sequence[ir.Value | None],
    editor: Editor,
    name: str,
    axis: int | None = None,
) -> ir.Value:
    """The numbers that codes stand for; scales of several elements belong to a layer's weight."""
    scale = codes[1]
    if axis is None and node.op_type == "QLinearConv":
        axis = 0
    several = scale is not None and scale.shape is not None and len(scale.shape) == 1
    return editor.node(
        "DequantizeLinear", list(codes), before=node, name=name, axis=axis if several else None
    )


def _at(node: ir.Node, index: int, count: int) -> tuple[ir.Value | None, ...]:
    found = node.inputs[index : index + count]
    return (*found, *[None] * (count - len(found)))
