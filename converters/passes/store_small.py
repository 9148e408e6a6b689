"""Weights stored small and restored at load: int8 in the file, float speed at run time.

A weight becomes int8 values with one scale per output channel behind
``Cast -> Mul``. The session's own constant folding restores float32 when it
loads, so every call runs the float kernels. ``DequantizeLinear`` would not do:
onnxruntime keeps it in the graph and pays for it at every call. Float16
storage is ``Cast`` alone: half the bytes and nearly lossless.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from converters.passes.base import GraphPass, Options
from converters.passes.graph_tools import Array, Editor, constant, is_op
from converters.quantize import symmetric

RECURRENT = ("LSTM", "GRU", "RNN")


class StoreSmallOptions(Options, frozen=True, kw_only=True):
    """Options of :class:`StoreSmall`.

    Attributes:
        storage: ``int8`` with a scale per channel (3.8 times smaller) or ``float16``.
        min_elements: Smaller weights stay as they are.
        exclude: Names of nodes whose weights stay as they are.
    """

    storage: Literal["int8", "float16"] = "int8"
    min_elements: int = 4096
    exclude: tuple[str, ...] = ()


class StoreSmall(GraphPass):
    """Stores float32 weights as int8 or float16 that the engine restores at load."""

    name = "store-small"
    options_type = StoreSmallOptions
    is_rewrite = False

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites the weights that one graph owns, whichever graphs use them."""
        editor = Editor(graph, model)
        weights = [value for value in graph.initializers.values() if self._wanted(value)]
        for value in weights:
            self._store(value, editor)
        if weights:
            editor.prune()
        return len(weights)

    def _wanted(self, value: ir.Value) -> bool:
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT:
            return False
        if tensor.size < self.options.min_elements or value.is_graph_output():
            return False
        if constant(value) is None or not value.uses():
            return False
        if any(channel_axis(use.node, use.idx, len(tensor.shape)) is None for use in value.uses()):
            return False
        for node in value.consumers():
            if node.name in self.options.exclude:
                self.context.skip(node, "excluded")
                return False
        if self.options.storage == "float16" and not _fits_float16(tensor.numpy()):
            self.context.skip(value.consumers()[0], "weights exceed float16")
            return False
        return True

    def _store(self, value: ir.Value, editor: Editor) -> None:
        array = constant(value)
        name = value.name or "weight"
        assert array is not None
        uses = tuple(value.uses())
        first = editor.graph[0]
        if self.options.storage == "float16":
            stored = editor.initializer(f"{name}_float16", array.astype(np.float16))
            restored = editor.node("Cast", [stored], before=first, name=name, like=value, to=1)
        else:
            axis = channel_axis(uses[0].node, uses[0].idx, array.ndim)
            values, scale = _quantized(array, axis or 0, uses[0].node)
            stored = editor.initializer(f"{name}_int8", values)
            factor = editor.initializer(f"{name}_scale", scale)
            cast = editor.node("Cast", [stored], before=first, name=f"{name}_cast", to=1)
            restored = editor.node("Mul", [cast, factor], before=first, name=name, like=value)
        for use in uses:
            use.node.replace_input_with(use.idx, restored)


def channel_axis(node: ir.Node, index: int, rank: int) -> int | None:
    """The axis of a weight with one slice per output channel.

    Args:
        node: A node that uses the weight.
        index: Which of its inputs the weight is.
        rank: The weight's rank.

    Returns:
        The axis, or ``None`` if this input is not a weight. Recurrent weights
        [directions, gates * hidden, …] have a channel per pair of the first two axes;
        for them it is 1.
    """
    if is_op(node, *RECURRENT):
        return 1 if index in (1, 2) and rank == 3 else None
    if is_op(node, "Gather"):
        return node.attributes.get_int("axis", 0) % rank if index == 0 else None
    if is_op(node, "MatMul") and rank >= 2:
        return rank - 1 if index == 1 else rank - 2
    if index != 1 or rank < 2:
        return None
    if is_op(node, "Conv"):
        return 0
    if is_op(node, "ConvTranspose"):
        return 1
    if is_op(node, "Gemm"):
        return 0 if node.attributes.get_int("transB", 0) else 1
    return None


def _quantized(array: Array, axis: int, node: ir.Node) -> tuple[Array, Array]:
    """int8 values and float32 scales that broadcast against them."""
    if is_op(node, *RECURRENT):
        rows = symmetric(array.reshape(-1, array.shape[-1]), 0)
        return rows.values.reshape(array.shape), rows.scale.reshape(*array.shape[:2], 1)
    found = symmetric(array, axis)
    shape = [-1 if index == axis else 1 for index in range(array.ndim)]
    return found.values, found.scale.reshape(shape)


def _fits_float16(array: Array) -> bool:
    return bool(np.abs(array).max(initial=0) <= np.finfo(np.float16).max)
