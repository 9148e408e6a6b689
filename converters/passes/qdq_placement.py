"""Where quantized values begin and end: the pure half of ``static-qdq``.

ONNX Runtime's placement: a convolution's output is quantized at once, so that it
becomes ``QLinearConv``, and stays quantized through operators with integer
kernels. A ``MatMul`` or ``Gemm`` gives float: its input is quantized on the
way in, and a residual connection reads the float value beside it. TensorRT's
placement is in :mod:`converters.passes.qdq_tensorrt`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from converters.passes.graph_tools import is_op, only_consumer, scalar, tensor_of
from converters.quantize import Affine

LAYERS = ("Conv", "Gemm", "MatMul")
WEIGHTED = (*LAYERS, "ConvTranspose")
# ONNX Runtime has an integer kernel that takes each input and the output at its own scale.
RESCALING = ("Add", "Mul", "Concat", "Sigmoid", "LeakyRelu", "AveragePool", "GlobalAveragePool")
# These only move or select values, so that their output keeps the scale of their input.
MOVING = (
    *("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"),
    *("Slice", "Split", "Expand", "Resize"),
)

Read = tuple[ir.Node, int]


@dataclass
class Placement:
    """What to quantize in one graph.

    Attributes:
        layers: Nodes whose weight and bias to quantize.
        everywhere: Values that exist in quantized form only: every user reads that.
        beside: Values that keep their float form too.
        reads: Which inputs read the quantized form of a value in ``beside``.
        same_scale: A quantized value -> the value whose scale it keeps.
        multiples: A value in ``everywhere`` -> a value with the same codes, and the factor
            between their scales.
        hard_sigmoids: Values in ``everywhere`` that are an addition whose codes saturate.
    """

    layers: list[ir.Node] = field(default_factory=list)
    everywhere: list[ir.Value] = field(default_factory=list)
    beside: list[ir.Value] = field(default_factory=list)
    reads: set[Read] = field(default_factory=set)
    same_scale: dict[ir.Value, ir.Value] = field(default_factory=dict)
    multiples: dict[ir.Value, tuple[ir.Value, float]] = field(default_factory=dict)
    hard_sigmoids: set[ir.Value] = field(default_factory=set)


def place_for_onnxruntime(
    nodes: Iterable[ir.Node],
    layers: Iterable[ir.Node],
    known: set[ir.Value],
    exclude: set[ir.Node],
    *,
    dense_outputs: bool = False,
) -> Placement:
    """Places quantization so that ONNX Runtime's fusions find integer kernels.

    Args:
        nodes: All nodes of the graph in topological order.
        layers: Those whose weight is to be quantized; their inputs, and outputs of convolutions
            (past a clamp), are known.
        known: Values with a range.
        exclude: Nodes that must compute in float.
        dense_outputs: Whether dense layers give integers to what computes with integers,
            as LiteRT's must. What the model or a float operator gets stays float: there,
            nothing is gained, and what calibration has not seen would be cut off.
    """
    plan = Placement(layers=list(layers))
    chosen = set(plan.layers)
    inputs = {node.inputs[0] for node in chosen if node.inputs[0] is not None}
    quantized: dict[ir.Value, None] = {}
    for node in nodes:
        if node in chosen:
            if is_op(node, "Conv") or (
                dense_outputs and _feeds_integers(result_of(node), chosen - exclude)
            ):
                quantized[result_of(node)] = None
        elif node in exclude or node.domain:
            continue
        elif (multiple := _multiple(node)) is not None and multiple[0] in quantized:
            quantized[node.outputs[0]] = None
            plan.multiples[node.outputs[0]] = multiple
        elif hard_sigmoid(node) is not None and _first(node) in quantized:
            quantized[node.outputs[0]] = None
            plan.hard_sigmoids.add(node.outputs[0])
        elif is_op(node, *RESCALING):
            output = after_clamp(node)
            operands = {value for value in node.inputs if _number(value, node) is None}
            if output in known and operands & set(quantized) and operands <= {*quantized, *inputs}:
                quantized[output] = None
                plan.reads.update((node, index) for index in range(len(node.inputs)))
        elif is_op(node, *MOVING) and (source := _first(node)) in quantized:
            for output in node.outputs:
                quantized[output] = None
                plan.same_scale[output] = plan.same_scale.get(source, source)
    plan.everywhere = list(quantized)
    for node in plan.layers:
        plan.reads.add((node, 0))
    plan.beside = [value for value in values_read(plan.reads, nodes) if value not in quantized]
    return plan


def observable(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    """Activations whose range one of the placements may ask for, in topological order."""
    found: dict[ir.Value, None] = {}
    reached: set[ir.Value] = set()
    for node in nodes:
        if is_op(node, *WEIGHTED) and not isinstance(weight_of(node), str):
            found[_first(node)] = None
        rescales = is_op(node, *RESCALING, "HardSwish") and reached & set(node.inputs)
        if is_op(node, *WEIGHTED) or rescales:
            found[result_of(node)] = None
            reached.add(result_of(node))
        elif is_op(node, *MOVING, "Div", "HardSigmoid") and _first(node) in reached:
            reached.update(node.outputs)
        if is_op(node, "Add") and not any(tensor_of(value) for value in node.inputs):
            found.update((value, None) for value in node.inputs if value is not None)
    return [value for value in found if tensor_of(value) is None]


def result_of(node: ir.Node) -> ir.Value:
    """What a node gives once its bias is added, where that is a node of its own, and clamped."""
    add = only_consumer(node.outputs[0]) if is_op(node, "MatMul") else None
    if add is None or add.graph is not node.graph or not is_op(add, "Add"):
        return after_clamp(node)
    is_biased = any((tensor := tensor_of(value)) and len(tensor.shape) <= 1 for value in add.inputs)
    return after_clamp(add) if is_biased else after_clamp(node)


def after_clamp(node: ir.Node) -> ir.Value:
    """The output of ``node``, or of the clamp that is its only user."""
    output = node.outputs[0]
    follower = only_consumer(output)
    if follower is None or follower.graph is not node.graph or clamp_bounds(follower) is None:
        return output
    return follower.outputs[0] if clamped_input(follower) is output else output


def clamp_bounds(node: ir.Node) -> tuple[float, float] | None:
    """Lowest and highest result of a node that only clamps; infinite where it does not."""
    if is_op(node, "Relu"):
        return 0.0, math.inf
    if is_op(node, "Clip") and not node.attributes:
        given = dict(enumerate(node.inputs))
        low = -math.inf if given.get(1) is None else scalar(given[1])
        high = math.inf if given.get(2) is None else scalar(given[2])
        return None if low is None or high is None else (low, high)
    numbers = [number for value in node.inputs if (number := _number(value, node)) is not None]
    if len(node.inputs) != 2 or len(numbers) != 1 or not is_op(node, "Max", "Min"):
        return None
    return (numbers[0], math.inf) if node.op_type == "Max" else (-math.inf, numbers[0])


def clamped_input(node: ir.Node) -> ir.Value:
    """What a clamp clamps: its first operand that is not constant."""
    return next(value for value in node.inputs if value is not None and tensor_of(value) is None)


def is_saturation(bounds: tuple[float, float], parameters: Affine) -> bool:
    """Whether quantized codes saturate, to half a step, wherever a clamp would."""
    low, high = parameters.limits
    slack = float(parameters.scale) / 2
    return low >= bounds[0] - slack and high <= bounds[1] + slack


def weight_of(node: ir.Node) -> ir.Value | str:
    """The constant float32 weight of a layer, or the reason why there is none."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    tensor = tensor_of(weight)
    if weight is None or tensor is None:
        return "its weight is computed"
    if tensor.dtype != ir.DataType.FLOAT:
        return f"its weight is {tensor.dtype.name.lower()}"
    if is_op(node, "MatMul", "Gemm") and len(tensor.shape) != 2:
        return f"its weight has rank {len(tensor.shape)}"
    return weight


def channel_axis(node: ir.Node) -> int:
    """The axis of a layer's weight that belongs to its output channels."""
    if is_op(node, "Conv"):
        return 0
    if is_op(node, "Gemm"):
        return 0 if node.attributes.get_int("transB", 0) else 1
    return 1  # ConvTranspose: [in, out / groups, …]


def hard_sigmoid(node: ir.Node) -> tuple[float, float] | None:
    """Slope and offset of a ``HardSigmoid``, if they are positive as usual."""
    if not is_op(node, "HardSigmoid"):
        return None
    slope = node.attributes.get_float("alpha", 0.2)
    offset = node.attributes.get_float("beta", 0.5)
    return (slope, offset) if slope > 0 and offset > 0 else None


def _feeds_integers(value: ir.Value, layers: set[ir.Node]) -> bool:
    """Whether something that computes with integers reads a value."""
    return any(
        node in layers
        or is_op(node, *RESCALING)
        or (is_op(node, *MOVING) and any(_feeds_integers(v, layers) for v in node.outputs))
        for node in value.consumers()
    )


def _multiple(node: ir.Node) -> tuple[ir.Value, float] | None:
    """What a node multiplies by a positive constant, and that constant."""
    if not is_op(node, "Mul", "Div"):
        return None
    for value, other in (node.inputs, reversed(node.inputs)):
        factor = _number(other, node)
        if value is not None and factor is not None and factor > 0:
            return value, factor if node.op_type == "Mul" else 1 / factor
        if node.op_type == "Div":
            return None  # a constant divided by a value is no multiple
    return None


def _number(value: ir.Value | None, node: ir.Node) -> float | None:
    """The number in a constant that broadcasts without adding axes to the node's result."""
    tensor = tensor_of(value)
    if tensor is None:
        return None
    ranks = [
        len(other.shape)
        for other in node.inputs
        if other is not None and other.shape is not None and tensor_of(other) is None
    ]
    return scalar(value) if len(tensor.shape) <= max(ranks, default=1) else None


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None, "required by every operator here"
    return value


def values_read(reads: set[Read], nodes: Iterable[ir.Node]) -> list[ir.Value]:
    """The values behind ``reads``, once each, in topological order of their readers."""
    found: dict[ir.Value, None] = {}
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value is not None and (node, index) in reads:
                found[value] = None
    return list(found)
