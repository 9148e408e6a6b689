"""Two graphs out of the three of an export; nothing is computed twice, nor for nothing."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from converters.passes.base import each_graph
from edge_sdk.errors import SourceError

HIDDEN = "encoder_hidden_states"
TOKENS = "decoder_input_ids"
MASK = "attention_mask"
PAST, PRESENT = "past_key_values", "present"
# What the exporter calls them in the decoder's graph.
_EXPORTED = {"input_ids": TOKENS, "encoder_attention_mask": MASK}


def encoder_with_cross(encoder: ir.Model, first: ir.Model) -> ir.Model:
    """The encoder with the cross attention's keys and values as its outputs.

    Args:
        encoder: The caller's inputs to the last hidden state.
        first: The decoder without past, which projects that state; it is taken apart.

    Raises:
        SourceError: The decoder's cross keys and values depend on more than that state.
    """
    wanted = [v.name for v in first.graph.outputs if v.name and ".encoder." in v.name]
    if not wanted:
        raise SourceError(
            "the decoder has no keys and values of its cross attention among its outputs",
            where="decoder_model.onnx",
            remedy="export with a past (task …-with-past)",
        )
    _batch_of_encoder(first.graph)
    try:
        cross = ir.convenience.extract(first.graph, [HIDDEN], wanted)
    except ValueError as error:
        raise SourceError(str(error), where="decoder_model.onnx") from error
    _rename(cross, "cross/")
    joined = encoder.clone()
    graph, hidden = joined.graph, joined.graph.outputs[0]
    ir.convenience.replace_all_uses_with(cross.inputs[0], hidden)
    outputs = list(cross.outputs)
    cross.outputs.clear()
    initializers = list(cross.initializers.values())
    cross.initializers.clear()
    for value in initializers:
        graph.initializers.add(value)
    nodes = list(cross)
    cross.remove(nodes)
    graph.extend(nodes)
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    for value, name in zip(outputs, wanted, strict=True):
        value.name = name
    common.RemoveUnusedNodesPass()(joined)
    return joined


def step_decoder(with_past: ir.Model) -> ir.Model:
    """The decoder with past, for any number of tokens, under names that both graphs share."""
    model = with_past.clone()
    for value in model.graph.inputs:
        value.name = _EXPORTED.get(value.name or "", value.name)
    tokens = next(v for v in model.graph.inputs if v.name == TOKENS)
    logits = model.graph.outputs[0]
    # The exporter traced one token and says so, though the graph does not depend on it.
    if tokens.shape is not None and logits.shape is not None:
        logits.shape = ir.Shape([*tokens.shape, logits.shape[-1]])
    return model


def _batch_of_encoder(graph: ir.Graph) -> None:
    """Reads the batch size off the encoder's state.

    Cross keys are reshaped to a batch size that was read off the decoder's, which is the same.
    """
    hidden = next(value for value in graph.inputs if value.name == HIDDEN)
    shape = ir.node("Shape", [hidden])
    for node in graph:
        if node.op_type != "Gather" or node.inputs[0] is None or node.inputs[1] is None:
            continue
        source, index = node.inputs[0].producer(), ir.convenience.get_const_tensor(node.inputs[1])
        if source is None or source.op_type != "Shape" or index is None:
            continue
        if index.size == 1 and not index.numpy().any():
            node.replace_input_with(0, shape.outputs[0])
    graph.insert_before(graph[0], shape)


def _rename(graph: ir.Graph, prefix: str) -> None:
    """Names that cannot clash with another graph's."""
    for inner in each_graph(graph):
        for value in list(inner.initializers.values()):
            value.name = prefix + (value.name or "")
        for node in inner:
            node.name = prefix + (node.name or "")
            for value in node.outputs:
                value.name = prefix + (value.name or "")
