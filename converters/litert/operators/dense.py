"""Matrix products: a constant right side makes a fully connected layer."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert.arithmetic import Math
from converters.litert.call import Call, lowers
from converters.litert.tensors import Array, Perm, Tensor, broadcast, identity
from converters.litert.weights import Layer, bias_tensor, layer_tensor
from converters.passes.graph_tools import constant, other_input


@lowers("MatMul", codes="rescaling")
def _matmul(call: Call) -> None:
    right = call.held(1)
    if right.is_constant and len(right.shape) == 2 and len(call.shape(0)) > 1:
        bias = _added(call, right.sizes[1])
        layer = Layer.of(call, 1, (1, 0), axis=1)
        call.give(fully_connected(call, call.tensor(0), layer, bias))
    else:
        _batched(call)


@lowers("Gemm", codes="rescaling")
def _gemm(call: Call) -> None:
    attributes = call.node.attributes
    alpha, beta = attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)
    bias = call.constant(2)
    if not call.held(1).is_constant or (call.has(2) and bias is None):
        call.refuse_codes()
        _computed_gemm(call, alpha, beta)
        return
    data = call.tensor(0, (1, 0) if attributes.get_int("transA", 0) else None)
    transposed = attributes.get_int("transB", 0)
    layer = Layer.of(call, 1, (0, 1) if transposed else (1, 0), axis=0 if transposed else 1)
    layer.scale_by(alpha)
    if bias is not None:
        bias = np.broadcast_to(bias * np.float32(beta), (*bias.shape[:-1], layer.channels))
        if bias.size != layer.channels:
            raise call.unsupported("its bias is not one number per column")
    bias = None if bias is None else bias.reshape(-1)
    call.give(fully_connected(call, data, layer, bias))


def _computed_gemm(call: Call, alpha: float, beta: float) -> None:
    """With a weight or bias that is computed at run time."""
    m, attributes = Math(call), call.node.attributes
    swapped = [bool(attributes.get_int(name, 0)) for name in ("transA", "transB")]
    result = product(call, call.tensor(0), call.tensor(1), *swapped)
    result = result if alpha == 1 else m.mul(result, alpha)
    if call.has(2):
        added = call.tensor(2) if beta == 1 else m.mul(call.tensor(2), beta)
        result = m.add(result, added)
    call.give(result)


def fully_connected(call: Call, data: Tensor, layer: Layer, bias: Array | None) -> Tensor:
    """A fully connected layer over the last axis of ``data``."""
    shape = (*data.shape[:-1], layer.channels)
    options = schema.FullyConnectedOptionsT(
        fusedActivationFunction=call.absorb_clamp(), keepNumDims=True
    )
    weight = layer_tensor(call, layer, 0)
    inputs = [data, weight, bias_tensor(call, bias, data, weight)]
    return call.emit("FULLY_CONNECTED", inputs, shape, options=options, quantization=call.target)


def _added(call: Call, channels: int) -> Array | None:
    """The bias that the node behind adds, and does nothing else."""
    add = call.follower("Add")
    other = constant(other_input(add, call.output)) if add is not None else None
    if add is None or other is None or call.with_codes or other.shape[-1:] != (channels,):
        return None
    if other.size != channels or other.ndim > len(call.shape(0)):
        return None
    call.absorb(add)
    return np.asarray(other.reshape(-1), np.float32)


def _batched(call: Call) -> None:
    ranks = [len(call.shape(index)) for index in (0, 1)]
    if call.with_codes:
        call.refuse_codes()
    (left, adj_x), (right, adj_y) = (_operand(call, index) for index in (0, 1))
    result = product(call, left, right, adj_x, adj_y)
    squeezed = tuple(axis for axis, rank in ((-2, ranks[0]), (-1, ranks[1])) if rank == 1)
    call.give(call.squeeze(result, squeezed))


def product(
    call: Call, left: Tensor, right: Tensor, adj_x: bool = False, adj_y: bool = False
) -> Tensor:
    """The matrix product over the last two axes, exchanged first where asked for."""
    batch = broadcast(left.shape[:-2], right.shape[:-2])
    rows, columns = left.shape[-1 if adj_x else -2], right.shape[-2 if adj_y else -1]
    options = schema.BatchMatMulOptionsT(adjX=adj_x, adjY=adj_y)
    return call.emit("BATCH_MATMUL", [left, right], (*batch, rows, columns), options=options)


def _operand(call: Call, index: int) -> tuple[Tensor, bool]:
    """An operand of at least rank 2, and whether its last two axes are exchanged."""
    held = call.held(index)
    rank = len(held.shape)
    if rank == 1:
        return call.unsqueeze(call.tensor(index), (0 if index == 0 else 1,)), False
    perm = _nearest(held.perm, rank)
    return call.tensor(index, perm), perm != identity(rank)


def _nearest(held: Perm, rank: int) -> Perm:
    """Of the two orders that a product takes, the one with the last axis as it is held."""
    exchanged = (*range(rank - 2), rank - 1, rank - 2)
    return exchanged if held[-1] == rank - 2 else identity(rank)
