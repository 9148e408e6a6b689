"""What a recipe would make of a model, by arithmetic alone: size, memory and latency. Pure.

Sizes follow from what the recipe's passes do to each weight, memory from the
rules of :mod:`converters.memory`, latency from a roofline over the nodes:
each takes as long as its arithmetic or its bytes, whichever is longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import msgspec
import onnx_ir as ir

from converters.memory import CONV_COPIES, LOOKUP_BYTES
from converters.memory_litert import looked_up, packed, started
from converters.passes.base import each_graph
from converters.passes.graph_tools import static_shape, tensor_of
from converters.passes.store_small import StoreSmallOptions, channel_axis
from converters.target import format_of
from device_profiles.schema import Profile
from edge_sdk.bundle.record import MemoryPlan, NodeCost, Recipe

Role = Literal["dense", "conv", "recurrent", "table"]
ROLES: Mapping[str, Role] = {
    "Conv": "conv", "ConvTranspose": "conv", "GRU": "recurrent", "Gather": "table",
    "Gemm": "dense", "LSTM": "recurrent", "MatMul": "dense", "RNN": "recurrent",
}  # fmt: skip
# Shares of the profile's rates that ONNX Runtime reaches, and its work around each node
# in FLOPs, fitted to eleven real models on one machine (docs/measuring.md).
DENSE_SHARE = 0.9
OTHER_SHARE = 0.2
NODE_FLOPS = 50_000
SCALE_BYTES = 4
RESTORED_BYTES = 4


@dataclass(frozen=True)
class Weight:
    """One float weight that recipes can change.

    Attributes:
        elements: Number of elements.
        item_bytes: Bytes per element in the source.
        channels: Output channels, each of which gets a scale.
        role: What reads it.
        flops: Arithmetic of the nodes that read it.
        touched_bytes: For tables, what the look-ups of one call bring in.
    """

    elements: int
    item_bytes: int
    channels: int
    role: Role
    flops: int
    touched_bytes: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes in the source."""
        return self.elements * self.item_bytes


@dataclass(frozen=True)
class Treatment:
    """What a recipe does to weights: role -> bits the engine computes with, or only stores.

    Attributes:
        native: Bits of weights that stay narrow in memory; roles not in it stay float.
        stored: Bits of all other weights in the file, restored when loaded; 32 changes nothing.
        block: Weights that share a scale along the input axis; 0 means one per channel.
    """

    native: Mapping[Role, int]
    stored: int = 32
    block: int = 0


def treatment(recipe: Recipe) -> Treatment:
    """Reads off a recipe's steps what becomes of each weight."""
    native: dict[Role, int] = {}
    stored, block = 32, 0
    for step in recipe.steps:
        if step.op == "static-qdq":
            native |= {"dense": 8, "conv": 8}
        elif step.op == "dynamic-int8":
            native["dense"] = 8
        elif step.op == "block-weights":
            native["dense"], block = step.options.get("bits", 8), 128
        elif step.op == "quantize-embedding":
            native["table"] = 8
        elif step.op == "store-small":
            stored = 16 if step.options.get("storage") == "float16" else 8
            if format_of(recipe.engine) == "tflite":
                native["table"] = 16  # and widened whole, see converters.memory_litert
        elif step.op == "float16":
            stored = 16
    return Treatment(native, stored, block)


def find_weights(model: ir.Model, bound: ir.Model, costs: Sequence[NodeCost]) -> list[Weight]:
    """The weights of a graph that recipes can change, each once.

    Args:
        model: The graph.
        bound: Its twin with static shapes, from :func:`converters.shapes.bind`.
        costs: Costs of the main graph's nodes, in order.
    """
    flops = {id(node): cost.flops for node, cost in zip(model.graph, costs, strict=True)}
    found: dict[ir.Value, Weight] = {}
    for graph, twin in zip(each_graph(model.graph), each_graph(bound.graph), strict=True):
        for node, sized in zip(graph, twin, strict=True):
            for index, value in enumerate(node.inputs):
                weight = _weight(node, sized, index, value, flops.get(id(node), 0))
                if weight is not None and value is not None:
                    found.setdefault(value, weight)
    return list(found.values())


def _weight(
    node: ir.Node, sized: ir.Node, index: int, value: ir.Value | None, flops: int
) -> Weight | None:
    tensor = tensor_of(value)
    role = ROLES.get(node.op_type) if not node.domain else None
    if tensor is None or role is None or not tensor.dtype.is_floating_point():
        return None
    sizes = [int(size) for size in tensor.shape.numpy()]
    axis = channel_axis(node, index, len(sizes))
    if axis is None:
        return None
    rows = prod(static_shape(sized.inputs[1]) or (1,)) if role == "table" else 0
    return Weight(
        elements=prod(sizes),
        item_bytes=int(tensor.dtype.itemsize),
        channels=sizes[axis],
        role=role,
        flops=flops,
        touched_bytes=rows * LOOKUP_BYTES,
    )


def shipped_bytes(source_bytes: int, weights: Iterable[Weight], how: Treatment) -> int:
    """Predicted size of graph and weights."""
    return source_bytes + sum(_file_bytes(weight, how)[0] - weight.nbytes for weight in weights)


def _file_bytes(weight: Weight, how: Treatment) -> tuple[int, bool]:
    """Bytes of a weight in the file with its scales, and whether it stays narrow when loaded."""
    bits = how.native.get(weight.role)
    large = weight.elements >= StoreSmallOptions().min_elements
    narrow = bits is not None
    bits = bits if bits is not None else how.stored if large else 32
    if bits == 32:
        return weight.nbytes, True
    blocked = narrow and how.block and weight.role == "dense"
    scales = weight.elements // how.block if blocked else weight.channels
    return weight.elements * bits // 8 + (SCALE_BYTES * scales if bits < 16 else 0), narrow


def loaded(plan: MemoryPlan, weights: Iterable[Weight], how: Treatment) -> MemoryPlan:
    """The source's memory plan on ONNX Runtime with weights as a recipe leaves them."""
    mapped = private = largest = 0
    for weight in weights:
        size, narrow = _file_bytes(weight, how)
        if not narrow:  # restored to float32: every intermediate result is alive at once
            results = 2 if how.stored < 16 else 1
            copied = weight.role in ("conv", "table")
            private += (results + copied) * RESTORED_BYTES * weight.elements
        elif weight.role == "table":
            mapped += min(size, weight.touched_bytes)
        else:
            floats = weight.role == "conv" and how.native.get("conv") is None
            private += int(size * CONV_COPIES) if floats else size
            largest = max(largest, size)
    return MemoryPlan(
        weights_mapped=max(mapped, largest - plan.activations),
        weights_private=private,
        activations=plan.activations,
        engine=plan.engine,
        reference_shapes=plan.reference_shapes,
    )


def loaded_by_litert(plan: MemoryPlan, weights: Iterable[Weight], how: Treatment) -> MemoryPlan:
    """The source's memory plan on LiteRT with weights as a recipe leaves them."""
    mapped = private = 0
    for weight in weights:
        size, narrow = _file_bytes(weight, how)
        if weight.role == "table":
            bits = how.native.get("table", 32)
            found = looked_up(size, bits, weight.touched_bytes // LOOKUP_BYTES)
        else:
            bits = how.native.get(weight.role, 32) if narrow else how.stored
            found = packed(weight.elements, bits, dense=weight.role == "dense")
        mapped, private = mapped + found.mapped, private + found.private
    return started(msgspec.structs.replace(plan, weights_mapped=mapped, weights_private=private))


def seconds(costs: Iterable[NodeCost], profile: Profile) -> float:
    """Predicted time of one call in fp32 with the profile's threads."""
    rate = profile.cpu.fp32_gflops_per_core * 1e9
    dense = DENSE_SHARE * rate * profile.cpu.threads
    bandwidth = profile.memory.bandwidth_gb_per_s * 1e9
    total = NODE_FLOPS / rate  # the call itself, even of a graph that computes nothing
    for cost in costs:
        if cost.activation_bytes == 0:
            continue  # computed when the session opens
        role = ROLES.get(cost.op)
        read = 0 if role == "table" else cost.weight_bytes
        compute = cost.flops / (dense if role else OTHER_SHARE * rate)
        # What is read was written by the node before, so it is about as much again.
        total += max(compute, (2 * cost.activation_bytes + read) / bandwidth) + NODE_FLOPS / rate
    return total


def speedup(weights: Sequence[Weight], how: Treatment, expected: float) -> float:
    """Speed over fp32: the profile's expectation for the share of work that gets narrow.

    Args:
        weights: The model's weights.
        how: What the recipe does to them.
        expected: The profile's speedup for this family, where all work is narrow.
    """
    work = sum(weight.flops for weight in weights)
    narrow = sum(weight.flops for weight in weights if weight.role in how.native)
    share = narrow / work if work and how.native else 1.0
    return 1 / (1 - share + share / expected)
