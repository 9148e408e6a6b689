"""Where TensorRT wants quantized values: the other placement of ``static-qdq``.

TensorRT moves the pairs itself and fuses what they allow (developer guide, "Explicit
quantization", recommended Q/DQ placement). What it wants from a graph is little:

* inputs of weighted layers quantized, their outputs not: the kernel then gives whatever its
  reader wants, and nothing stands between a layer and the bias, activation or softmax after it;
* of an addition into which a convolution fuses, the *other* operand quantized, or its kernel
  could not read both in int8;
* one scale for values that only move (pooling, concatenation), or each would be requantized.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from converters.passes.graph_tools import is_op, only_consumer, tensor_of
from converters.passes.qdq_placement import Placement, Read, values_read

# Their kernels add a second tensor to the result.
_ADDING = ("Conv", "ConvTranspose")
# What comes out is some of what went in: pairs pass through, if the scale is the same.
_MOVING = ("Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def place_for_tensorrt(
    nodes: Iterable[ir.Node], layers: Iterable[ir.Node], known: set[ir.Value]
) -> Placement:
    """Places quantization on inputs of layers and on residual branches.

    Args:
        nodes: All nodes of the graph in topological order.
        layers: Those whose weight is to be quantized; their inputs are known.
        known: Values with a range.
    """
    plan = Placement(layers=list(layers))
    plan.reads.update((node, 0) for node in plan.layers)
    plan.reads.update(_residual_reads(nodes, set(plan.layers), known))
    plan.beside = values_read(plan.reads, nodes)
    plan.same_scale = _shared_scales(plan.beside)
    return plan


def _residual_reads(
    nodes: Iterable[ir.Node], layers: set[ir.Node], known: set[ir.Value]
) -> Iterable[Read]:
    """Of each addition that ends a convolution, the operand that the convolution is not."""
    for node in nodes:
        if not is_op(node, "Add") or any(tensor_of(value) for value in node.inputs):
            continue
        ends = [i for i, value in enumerate(node.inputs) if _ends_layer(value, layers)]
        if not ends:
            continue
        # Where both operands are results of convolutions, the longer way is the block
        # that fuses; the shorter one is its shortcut.
        main = max(ends, key=lambda i: _steps_from_fork(node.inputs[i]))
        if node.inputs[1 - main] in known:
            yield node, 1 - main


def _ends_layer(value: ir.Value | None, layers: set[ir.Node]) -> bool:
    node = value.producer() if value is not None else None
    return (
        value is not None
        and node in layers
        and is_op(node, *_ADDING)
        and only_consumer(value) is not None
    )


def _steps_from_fork(value: ir.Value | None) -> int:
    """Nodes since the last value that several nodes read."""
    steps = 0
    while value is not None and (node := value.producer()) is not None:
        if steps and only_consumer(value) is None:
            break
        value, steps = node.inputs[0] if node.inputs else None, steps + 1
    return steps


def _shared_scales(values: Iterable[ir.Value]) -> dict[ir.Value, ir.Value]:
    """A quantized value -> the one whose scale it takes, which spans no less."""
    quantized = dict.fromkeys(values)
    shared: dict[ir.Value, ir.Value] = {}
    for value in quantized:
        way = _way_up(value)
        first = [v for v in way if v in quantized][-1]
        if first is not value:
            shared[value] = first
        elif is_op(joined := way[-1].producer(), "Concat"):
            assert joined is not None
            parts = [v for part in joined.inputs if part is not None for v in _way_up(part)]
            shared.update((part, value) for part in parts if part in quantized)
    return {value: _end(value, shared) for value in shared}


def _end(value: ir.Value, links: Mapping[ir.Value, ir.Value]) -> ir.Value:
    # Links lead up to where a value came from, and down to what it was joined into; never back.
    while value in links:
        value = links[value]
    return value


def _way_up(value: ir.Value) -> list[ir.Value]:
    """A value and what it was before it was only moved."""
    found = [value]
    while is_op(node := found[-1].producer(), *_MOVING):
        assert node is not None
        source = node.inputs[0]
        assert source is not None
        found.append(source)
    return found
