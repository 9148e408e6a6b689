"""Half precision: weights and activations in float16, at half the bytes.

Which operators can run in float16 is read off their ONNX schemas; the rest, and
those whose sums or powers leave float16's range, keep float32 behind casts.
Graph inputs and outputs keep their types, and subgraphs stay in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from converters.passes.base import GraphPass, Options
from converters.passes.graph_tools import CONTRIB, Editor, constant, subgraphs

# Their results or inner sums leave float16's range, or need its missing digits.
WIDE_OPS = (
    *("CumSum", "Exp", "Pow", "Range", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"),
    *("ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
    *("QuantizeLinear", "DequantizeLinear"),
)
# The contrib operators that our own passes write; onnx has no schema for them.
CONTRIB_OPS = ("Gelu", "FastGelu")
# A mask may be added to a mask: half the largest finite value leaves room for both.
LARGEST = np.float32(np.finfo(np.float16).max / 2)
SMALLEST = np.float32(np.finfo(np.float16).smallest_subnormal)

Read = tuple[ir.Node, int]


class Float16Options(Options, frozen=True, kw_only=True):
    """Options of ``float16``.

    Attributes:
        exclude: Names of nodes that stay in float32.
        exclude_ops: Operators that stay in float32.
    """

    exclude: tuple[str, ...] = ()
    exclude_ops: tuple[str, ...] = WIDE_OPS


class Float16(GraphPass):
    """Converts the main graph to float16 between its inputs and outputs."""

    name = "float16"
    options_type = Float16Options
    is_rewrite = False
    in_subgraphs = False

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Converts every node whose schema allows it, and casts at the borders."""
        nodes = [node for node in graph if self._is_allowed(node)]
        reads: set[Read] = set()
        written: set[ir.Value] = set()
        for node in nodes:
            halves = half_types(node, model)
            if halves is not None:
                reads.update((node, index) for index in halves[0])
                written.update(node.outputs[index] for index in halves[1])
        if not reads:
            return 0
        editor = Editor(graph, model)
        for value in list(_values(graph)):
            if value in written:
                _narrow(value, reads, editor)
            elif value.dtype == ir.DataType.FLOAT:
                _feed(value, reads, editor)
        editor.prune()
        return len(reads)

    def _is_allowed(self, node: ir.Node) -> bool:
        excluded = node.name in self.options.exclude or node.op_type in self.options.exclude_ops
        return not excluded and not subgraphs(node)


def half_types(node: ir.Node, model: ir.Model) -> tuple[list[int], list[int]] | None:
    """Which float32 inputs and outputs of a node can be float16.

    Returns:
        Indices of inputs and of outputs, or ``None`` if the node must stay in float32:
        its schema or a type is unknown, or a float output follows no float input.
    """
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    names = _type_names(node, model)
    if names is None or any(value.dtype is None for value in values if value.name):
        return None
    input_names, output_names, narrow = names
    inputs = [
        index
        for index, value in enumerate(node.inputs)
        if value is not None and value.dtype == ir.DataType.FLOAT and input_names[index] in narrow
    ]
    outputs = [i for i, v in enumerate(node.outputs) if v.dtype == ir.DataType.FLOAT]
    followed = {input_names[index] for index in inputs}
    if not inputs or not {output_names[index] for index in outputs} <= followed:
        return None
    return inputs, outputs


def _type_names(node: ir.Node, model: ir.Model) -> tuple[list[str], list[str], set[str]] | None:
    """Type parameter of each input and output, and those parameters that may be float16."""
    count_in, count_out = len(node.inputs), len(node.outputs)
    if node.domain == CONTRIB:
        known = node.op_type in CONTRIB_OPS
        return (["T"] * count_in, ["T"] * count_out, {"T"}) if known else None
    try:
        schema = onnx.defs.get_schema(node.op_type, model.opset_imports[node.domain], node.domain)
    except (onnx.defs.SchemaError, KeyError):
        return None
    narrow = {
        constraint.type_param_str
        for constraint in schema.type_constraints
        if "tensor(float16)" in constraint.allowed_type_strs
    }
    # The last formal parameter of a variadic operator stands for all further ones.
    return (
        [schema.inputs[min(i, len(schema.inputs) - 1)].type_str for i in range(count_in)],
        [schema.outputs[min(i, len(schema.outputs) - 1)].type_str for i in range(count_out)],
        narrow,
    )


def clamped(array: NDArray[np.float32]) -> NDArray[np.float16]:
    """The array in float16: nothing becomes infinite, and nothing but zero becomes zero."""
    limited = np.where(np.isfinite(array), np.clip(array, -LARGEST, LARGEST), array)
    tiny = (limited != 0) & (np.abs(limited) < SMALLEST)
    return np.where(tiny, np.copysign(SMALLEST, limited), limited).astype(np.float16)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from (value for value in graph.initializers.values() if not value.is_graph_input())
    for node in graph:
        yield from node.outputs


def _narrow(value: ir.Value, reads: set[Read], editor: Editor) -> None:
    """Makes a computed value float16, and casts it back for users that want float32."""
    narrow = [use for use in value.uses() if use in reads]
    value.type = ir.TensorType(ir.DataType.FLOAT16)
    if len(narrow) == len(value.uses()) and not value.is_graph_output():
        return
    cast = _cast(value, ir.DataType.FLOAT, "float", editor)
    editor.redirect(value, cast.outputs[0])
    cast.replace_input_with(0, value)
    for node, index in narrow:
        node.replace_input_with(index, value)


def _feed(value: ir.Value, reads: set[Read], editor: Editor) -> None:
    """Gives the float16 form of a float32 value to the users that want it."""
    uses = [use for use in value.uses() if use in reads]
    if not uses:
        return
    array = constant(value) if value.is_initializer() else None
    if array is not None:
        half = editor.initializer(f"{value.name}_half", clamped(array))
    else:
        half = _cast(value, ir.DataType.FLOAT16, "half", editor).outputs[0]
    for node, index in uses:
        node.replace_input_with(index, half)


def _cast(value: ir.Value, dtype: ir.DataType, suffix: str, editor: Editor) -> ir.Node:
    name = editor.fresh(f"{value.name}_{suffix}")
    output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
    cast = ir.node("Cast", [value], {"to": dtype}, outputs=[output], name=name)
    editor.insert_after(value, [cast])
    return cast
