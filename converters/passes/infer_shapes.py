"""Shape inference: every later pass that asks for a shape reads what this one found.

ONNX's own inference does the work, with the values of small shape tensors
propagated. It is given the graph without its weights, so models above 2 GB and
external data take the same way as small ones; symbolic dimensions survive.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from converters.passes.base import GraphPass, each_graph

# Larger tensors hold weights, not shapes, axes or sizes.
SHAPE_TENSOR_BYTES = 1024


class InferShapes(GraphPass):
    """Annotates values with element type and shape as far as they can be inferred."""

    name = "infer-shapes"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs the pass; what cannot be inferred stays as it was."""
        try:
            # Not strict: one node that inference cannot handle must not stop it for all others.
            inferred = ir.from_proto(
                onnx.shape_inference.infer_shapes(
                    _without_weights(model), strict_mode=False, data_prop=True
                )
            )
        except onnx.shape_inference.InferenceError as error:
            self.context.notes.append(f"shape inference stopped: {error}")
            return ir.passes.PassResult(model, modified=False)
        changes = 0
        graphs = zip(each_graph(model.graph), each_graph(inferred.graph), strict=True)
        for graph, found in graphs:
            for node, twin in zip(graph, found, strict=True):
                for value, answer in zip(node.outputs, twin.outputs, strict=True):
                    changes += _annotate(value, answer)
        return ir.passes.PassResult(model, modified=changes > 0)


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model's graph, with tensors above 1 KiB as references to a file that is never read."""
    skeleton = model.clone()
    for graph in each_graph(skeleton.graph):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.nbytes > SHAPE_TENSOR_BYTES:
                value.const_value = ir.ExternalTensor(
                    "weights",
                    offset=0,
                    length=tensor.nbytes,
                    dtype=tensor.dtype,
                    shape=ir.Shape(tensor.shape.numpy()),
                    name=value.name or "",
                )
    return ir.to_proto(skeleton)


def _annotate(value: ir.Value, answer: ir.Value) -> bool:
    """Takes over type and shape where they say more; returns whether anything changed."""
    before = (value.type, value.shape)
    if answer.type is not None:
        value.type = answer.type
    if answer.shape is not None:
        value.shape = _with_names_of(value.shape, answer.shape)
    return (value.type, value.shape) != before


def _with_names_of(declared: ir.Shape | None, inferred: ir.Shape) -> ir.Shape:
    """The inferred shape, with the names that the model's author gave to symbolic dimensions."""
    if declared is None or len(declared) != len(inferred):
        return inferred
    return ir.Shape(
        size if isinstance(size, int) or (isinstance(name, int) or name.value is None) else name
        for size, name in zip(inferred, declared, strict=True)
    )
