"""Dense layers as the weight passes see them: ``MatMul`` and ``Gemm`` with a constant weight.

The passes that replace dense layers one by one share their options, the rule
which layers are eligible, and the cache that quantizes a shared weight once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from converters.passes.base import Context, GraphPass, Options, each_graph
from converters.passes.graph_tools import (
    Array,
    Editor,
    constant,
    is_op,
    only_consumer,
    other_input,
    producer,
    tensor_of,
)
from converters.quantize import Float


@dataclass(frozen=True)
class Dense:
    """``output = data @ weight [+ bias]``, as one ``MatMul`` or one ``Gemm``.

    Attributes:
        node: The ``MatMul`` or ``Gemm``.
        data: The activation, [..., K].
        weight: The initializer.
        transposed: Whether the initializer holds [N, K].
        scale: What the product is multiplied by (``alpha`` of a ``Gemm``).
        bias: The constant [N] that is added: ``C`` of a ``Gemm``, or the operand of an
            ``Add`` that is the product's only user; else ``None``.
        output: The value that holds the result, bias included.
    """

    node: ir.Node
    data: ir.Value
    weight: ir.Value
    transposed: bool
    scale: float
    bias: Float | None
    output: ir.Value

    def array(self) -> Float:
        """The weight as float32 [K, N], ``scale`` multiplied in."""
        stored = constant(self.weight)
        assert stored is not None
        array: Float = stored.T if self.transposed else stored
        return array if self.scale == 1 else array * np.float32(self.scale)

    @property
    def key(self) -> tuple[ir.Value, bool, float]:
        """Equal for layers whose :meth:`array` is the same."""
        return self.weight, self.transposed, self.scale


def match(node: ir.Node) -> Dense | str:
    """Reads a ``MatMul`` or ``Gemm``; the reason if it is not a dense layer in float32."""
    data, weight = node.inputs[:2]
    tensor = tensor_of(weight)
    if data is None or weight is None or tensor is None:
        return "both operands are computed"
    if tensor_of(data) is not None:
        return "both operands are constant"
    if tensor.dtype != ir.DataType.FLOAT:
        return f"its weight is {tensor.dtype.name.lower()}"
    if len(tensor.shape) != 2:
        return f"its weight has rank {len(tensor.shape)}"
    if data.shape is not None and len(data.shape) < 2:
        return "its input is a vector"
    if is_op(node, "Gemm"):
        return _gemm(node, data, weight, tensor)
    bias, output = _following_bias(node, tensor.shape.numpy()[1])
    return Dense(node, data, weight, False, 1.0, bias, output)


def _gemm(
    node: ir.Node, data: ir.Value, weight: ir.Value, tensor: ir.TensorProtocol
) -> Dense | str:
    if node.attributes.get_int("transA", 0):
        return "its input is transposed"
    transposed = bool(node.attributes.get_int("transB", 0))
    columns = tensor.shape.numpy()[0 if transposed else 1]
    bias = None
    addend = node.inputs[2] if len(node.inputs) > 2 else None
    if addend is not None:
        array = constant(addend)
        if array is None or not (array.size == 1 or array.shape[-1] == columns == array.size):
            return "its addend is not a constant per column"
        beta = np.float32(node.attributes.get_float("beta", 1.0))
        bias = np.broadcast_to(array.reshape(-1) * beta, (columns,))
    alpha = node.attributes.get_float("alpha", 1.0)
    return Dense(node, data, weight, transposed, alpha, bias, node.outputs[0])


def _following_bias(node: ir.Node, columns: int) -> tuple[Float | None, ir.Value]:
    output = node.outputs[0]
    follower = only_consumer(output)
    if follower is None or not is_op(follower, "Add") or follower.graph is not node.graph:
        return None, output
    bias = constant(other_input(follower, output))
    if bias is None or bias.shape[-1:] != (columns,) or bias.size != columns:
        return None, output
    # A bias of higher rank than the product would add axes to it.
    rank = None if output.shape is None else len(output.shape)
    if bias.ndim > 1 and (rank is None or bias.ndim > rank):
        return None, output
    return bias.reshape(-1), follower.outputs[0]


def layer_of(result: ir.Value | None) -> Dense | None:
    """The dense layer whose result, bias included, is this value."""
    add = producer(result, "Add")
    for product in add.inputs if add else [result]:
        node = producer(product, "MatMul", "Gemm")
        layer = match(node) if node is not None else None
        if isinstance(layer, Dense) and layer.output is result:
            return layer
    return None


class DenseOptions(Options, frozen=True, kw_only=True):
    """Options of passes that replace dense layers.

    Attributes:
        include: Names of the only nodes to replace; empty means all.
        exclude: Names of nodes to leave in float.
        min_weight_elements: Smaller weights stay in float; they save nothing.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_weight_elements: int = 1024


class DensePass(GraphPass):
    """Base of passes that replace dense layers one by one: subclasses define ``replace``."""

    options_type = DenseOptions
    is_rewrite = False

    def __init__(self, options: DenseOptions | None = None, context: Context | None = None) -> None:
        super().__init__(options, context)
        self._initializers: dict[object, tuple[ir.Value, ...]] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replaces layers in all graphs, then drops the float weights that nothing uses now."""
        self._initializers.clear()
        result = super().call(model)
        if result.modified:
            for graph in reversed(list(each_graph(model.graph))):
                Editor(graph, model).prune()
        return result

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Replaces every eligible layer of one graph."""
        editor = Editor(graph, model)
        count = 0
        for layer in self._eligible(graph):
            editor.redirect(layer.output, self.replace(layer, editor))
            count += 1
        return count

    def replace(self, layer: Dense, editor: Editor) -> ir.Value:
        """Inserts the replacement of ``layer`` before its node; returns the new output."""
        raise TypeError(f"{type(self).__name__} does not define replace")

    def once(
        self, layer: Dense, editor: Editor, make: Callable[[], dict[str, Array]]
    ) -> tuple[ir.Value, ...]:
        """The new initializers of a layer's weight, made once for all layers that share it.

        They live in the graph of the weight itself, so that several subgraphs can use them.

        Args:
            layer: The layer.
            editor: The editor of the layer's graph.
            make: Computes the arrays by suffix of their name.
        """
        if layer.key not in self._initializers:
            owner = layer.weight.graph
            if owner is not editor.graph and isinstance(owner, ir.Graph):
                editor = editor.on(owner)
            self._initializers[layer.key] = tuple(
                editor.initializer(f"{layer.weight.name}_{suffix}", array)
                for suffix, array in make().items()
            )
        return self._initializers[layer.key]

    def _eligible(self, graph: ir.Graph) -> Iterator[Dense]:
        """Reads each layer when its turn comes: the one before may be its input."""
        for node in list(graph):
            if not is_op(node, "MatMul", "Gemm"):
                continue
            if self.options.include and node.name not in self.options.include:
                continue
            layer = match(node)
            if isinstance(layer, str):
                self.context.skip(node, layer)
            elif node.name in self.options.exclude:
                self.context.skip(node, "excluded by the recipe")
            elif (size := layer.array().size) < self.options.min_weight_elements:
                self.context.skip(node, f"its weight has only {size} elements")
            else:
                yield layer
