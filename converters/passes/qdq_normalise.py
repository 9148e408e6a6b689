"""Brings a float graph into the forms that have integer kernels, before ``static-qdq`` places.

Both rewrites are what ONNX Runtime does itself when it loads a float graph, so
they cost nothing where the node then stays in float. Results keep their names,
under which they were calibrated.
"""

from __future__ import annotations

import onnx_ir as ir

from converters.passes.graph_tools import (
    Editor,
    constant,
    is_op,
    only_consumer,
    other_input,
    static_shape,
)


def normalise(editor: Editor, *, dense_outputs: bool = False) -> int:
    """Rewrites one graph in place; returns the number of changes.

    Args:
        editor: The graph.
        dense_outputs: Whether dense layers are to give integers, their bias added.
    """
    changes = 0
    for node in list(editor.graph):
        if is_op(node, "HardSwish"):
            _split_hard_swish(node, editor)
            changes += 1
        elif is_op(node, "Conv"):
            changes += _take_bias(node, editor)
        elif dense_outputs and is_op(node, "MatMul"):
            changes += _with_bias(node, editor)
    return changes


def _split_hard_swish(node: ir.Node, editor: Editor) -> None:
    """``HardSwish(x) = x * HardSigmoid(x)``, as the operator is defined."""
    source, output = node.inputs[0], node.outputs[0]
    name = node.name or str(output.name)
    gate = editor.node(
        "HardSigmoid",
        [source],
        before=node,
        name=f"{name}_gate",
        like=output,
        alpha=1 / 6,
        beta=0.5,
    )
    product = editor.node("Mul", [source, gate], before=node, name=f"{name}_product", like=output)
    _replace(node, product, editor)


def _take_bias(conv: ir.Node, editor: Editor) -> bool:
    """Moves a constant that is added per channel into a convolution without bias."""
    output = conv.outputs[0]
    add = only_consumer(output)
    if len([value for value in conv.inputs if value is not None]) != 2 or not is_op(add, "Add"):
        return False
    assert add is not None
    addend, weight = constant(other_input(add, output)), static_shape(conv.inputs[1])
    if addend is None or weight is None or add.graph is not conv.graph:
        return False
    channels, spatial = weight[0], (1,) * (len(weight) - 2)
    if addend.shape not in ((1, channels, *spatial), (channels, *spatial)):
        return False
    bias = editor.initializer(f"{conv.name or output.name}_bias", addend.reshape(channels))
    conv.resize_inputs(3)
    conv.replace_input_with(2, bias)
    _replace(add, output, editor)
    return True


def _with_bias(product: ir.Node, editor: Editor) -> bool:
    """Makes a product of matrices and the constant added to each row one ``Gemm``."""
    data, output = product.inputs[0], product.outputs[0]
    add, weight = only_consumer(output), static_shape(product.inputs[1])
    bias = other_input(add, output) if is_op(add, "Add") and add is not None else None
    if add is None or bias is None or add.graph is not product.graph:
        return False
    addend, matrix = constant(bias), constant(product.inputs[1])
    if addend is None or matrix is None or weight is None or addend.shape != weight[1:]:
        return False
    if data is None or data.shape is None or len(data.shape) != 2 or len(weight) != 2:
        return False
    name = product.name or str(output.name)
    result = editor.node(
        "Gemm", [*product.inputs, bias], before=add, name=f"{name}_gemm", like=add.outputs[0]
    )
    gemm = result.producer()
    _replace(add, result, editor)
    editor.graph.remove(product, safe=True)
    assert gemm is not None
    gemm.name = name  # by which recipes exclude it
    return True


def _replace(node: ir.Node, value: ir.Value, editor: Editor) -> None:
    """Puts ``value`` in the place of a node's output, under the same name."""
    old = node.outputs[0]
    name, is_output = old.name, old.is_graph_output()
    editor.redirect(old, value)
    editor.graph.remove(node, safe=True)
    if not is_output:
        value.name = name
