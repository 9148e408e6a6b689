"""What every pass needs: reading constants, matching producers, and editing one graph.

Reading is done by functions, changing by an :class:`Editor`, which keeps three
promises: new names are unique in the whole model, graph inputs and outputs keep
their names and order, and nothing that became unused stays behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.passes.base import each_graph

Array = NDArray[Any]

CONTRIB = "com.microsoft"


def is_op(node: ir.Node | None, *op_types: str, domain: str = "") -> bool:
    """Whether ``node`` is one of these operators of ``domain`` (standard ONNX by default)."""
    return node is not None and node.domain == domain and node.op_type in op_types


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """The node that computes ``value`` if it is one of these standard operators, else ``None``."""
    node = value.producer() if value is not None else None
    return node if is_op(node, *op_types) else None


def tensor_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of a value that never changes: an initializer or a ``Constant`` output.

    An initializer that is also a graph input is a default that callers may
    override, and so is not constant.
    """
    if value is None or value.is_graph_input():
        return None
    if not value.is_initializer() and producer(value, "Constant") is None:
        return None
    return ir.convenience.get_const_tensor(value)


def constant(value: ir.Value | None) -> Array | None:
    """The array of a constant value, else ``None``; external data are mapped, not read."""
    tensor = tensor_of(value)
    return None if tensor is None else tensor.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The number in a constant with exactly one element, whatever its rank, else ``None``."""
    tensor = tensor_of(value)
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    return float(tensor.numpy().reshape(()))


def integers(node: ir.Node, name: str, index: int) -> tuple[int, ...] | None:
    """A list of integers that older opsets hold in an attribute and newer ones in an input.

    Args:
        node: The node.
        name: The attribute (``axes``).
        index: The position of the input.

    Returns:
        The integers, or ``None`` if they are absent or not constant.
    """
    given = node.attributes.get_ints(name)
    if given is not None:
        return tuple(given)
    array = constant(node.inputs[index]) if len(node.inputs) > index else None
    return None if array is None else tuple(int(item) for item in array.reshape(-1))


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of ``value`` if every dimension is known, else ``None``."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(size) for size in value.shape.numpy())


def same_rank(first: ir.Value, second: ir.Value) -> bool:
    """Whether two values have the same rank, as far as their ranks are known."""
    if first.shape is None or second.shape is None:
        return True
    return len(first.shape) == len(second.shape)


def only_consumer(value: ir.Value) -> ir.Node | None:
    """The one node that uses ``value``, once; ``None`` if there are others or it is an output."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def subgraphs(node: ir.Node) -> list[ir.Graph]:
    """The graphs in a node's attributes (branches of ``If``, body of ``Loop`` and ``Scan``)."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def other_input(node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """The operand of a two-input node that is not ``value``."""
    first, second = node.inputs
    return second if first is value else first


class Editor:
    """Adds, redirects and prunes in one graph.

    Args:
        graph: The graph to change.
        model: The model it belongs to; names are unique in all of it.
    """

    def __init__(self, graph: ir.Graph, model: ir.Model) -> None:
        self.graph = graph
        self.model = model
        self._names = names_in(model)

    def on(self, graph: ir.Graph) -> Editor:
        """An editor of another graph of the same model; new names stay unique across both."""
        other = Editor(graph, self.model)
        other._names = self._names
        return other

    def fresh(self, base: str) -> str:
        """``base``, or ``base_1``, ``base_2`` … if that name is taken; the name is then taken."""
        return unique(base, self._names)

    def initializer(self, name: str, array: Array) -> ir.Value:
        """A new initializer of this graph."""
        tensor = ir.tensor(np.asarray(array, order="C"), name=self.fresh(name))
        value = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def freeze(self, output: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
        """Puts an initializer in the place, and under the name, of a node's output.

        The output must not be a graph output, and its node must be removed afterwards.
        """
        value = ir.Value(
            name=output.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        output.replace_all_uses_with(value)
        self.graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        *,
        before: ir.Node,
        name: str,
        like: ir.Value | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Inserts a node with one output.

        Args:
            op_type: The operator.
            inputs: Its inputs; ``None`` for one left out.
            before: The node to insert it before.
            name: Name of the node and of its output; made unique.
            like: A value with the output's type and shape, where there is one.
            domain: The operator's domain, imported in version 1 if it is not yet.
            **attributes: Attributes as Python values; ``None`` leaves one out.

        Returns:
            The output of the new node.
        """
        if domain:
            self.model.opset_imports.setdefault(domain, 1)
        name = self.fresh(name)
        given = {key: value for key, value in attributes.items() if value is not None}
        output = ir.Value(name=name)
        if like is not None:
            output.type, output.shape = like.type, like.shape
        node = ir.node(op_type, inputs, given, domain=domain, name=name, outputs=[output])
        self.graph.insert_before(before, node)
        return output

    def insert_after(self, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
        """Inserts nodes right after the one that computes ``value``; first of all if none does."""
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], nodes)
        else:
            self.graph.insert_after(producer, nodes)

    def redirect(self, old: ir.Value, new: ir.Value) -> None:
        """Makes every user of ``old`` use ``new``; a graph output keeps its name.

        The node of ``old`` must be removed afterwards, by hand or by :meth:`prune`.
        """
        if new.type is None:
            new.type = old.type
        if new.shape is None:
            new.shape = old.shape
        if not old.is_graph_output():
            old.replace_all_uses_with(new)
            return
        node = old.producer()
        mine = new.producer() is not None and new.graph is self.graph
        if not mine or new.is_graph_output():
            assert node is not None, "a graph input that is an output cannot be redirected"
            new = self.node("Identity", [new], before=node, name=f"{old.name}_alias", like=old)
        name = old.name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        # The two swap names, so that names stay unique until the old node is removed.
        old.name, new.name = new.name, name

    def prune(self) -> None:
        """Removes nodes and initializers of this graph that nothing uses."""
        for node in reversed(self.graph):
            if not any(output.uses() or output.is_graph_output() for output in node.outputs):
                for inner in subgraphs(node):
                    _release(inner)
                self.graph.remove(node, safe=True)
        for name, value in list(self.graph.initializers.items()):
            if not (value.uses() or value.is_graph_input() or value.is_graph_output()):
                del self.graph.initializers[name]


def prune(model: ir.Model) -> None:
    """Removes what nothing uses from all graphs of a model, inner ones first."""
    for graph in reversed(list(each_graph(model.graph))):
        Editor(graph, model).prune()


def names_in(model: ir.Model) -> set[str]:
    """Names of all values and nodes of a model, subgraphs included."""
    names: set[str | None] = set()
    for graph in model.graphs():
        names.update(graph.initializers)
        names.update(value.name for value in graph.inputs)
        for node in graph:
            names.add(node.name)
            names.update(value.name for value in node.outputs)
    return {name for name in names if name}


def unique(base: str, taken: set[str]) -> str:
    """The first of ``base``, ``base_1``, ``base_2`` … that is not in ``taken``; adds it there."""
    name, count = base, 0
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    taken.add(name)
    return name


def nbytes(value: ir.Value) -> int | None:
    """Bytes of a value with a static shape and a known element type, else ``None``."""
    shape = static_shape(value)
    if shape is None or value.dtype is None or value.dtype == ir.DataType.STRING:
        return None
    return math.ceil(math.prod(shape) * value.dtype.itemsize)


def _release(graph: ir.Graph) -> None:
    """Drops all nodes of a subgraph, so that what they captured outside is no longer used."""
    for node in graph:
        for inner in subgraphs(node):
            _release(inner)
    graph.outputs.clear()
    graph.remove(list(graph), safe=True)
