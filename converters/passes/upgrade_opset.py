"""Raises the opset, so that later passes find per-axis QDQ (13) and LayerNormalization (17)."""

from __future__ import annotations

import onnx.version_converter
import onnx_ir as ir
from onnxscript.version_converter import ConvertVersionPass

from converters.passes.base import GraphPass, Options, each_graph
from converters.passes.graph_tools import constant, is_op

# The opset in which Resize began to say where it samples.
COORDINATES = 11


class UpgradeOptions(Options, frozen=True, kw_only=True):
    """Options of ``upgrade-opset``."""

    target: int = 17


class UpgradeOpset(GraphPass):
    """Converts the default domain to ``target``; a model that cannot be converted is left alone."""

    name = "upgrade-opset"
    options_type = UpgradeOptions

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Runs ONNX's version converter on a copy, so a failure half-way changes nothing."""
        opset = model.opset_imports.get("", self.options.target)
        if opset >= self.options.target:
            return ir.passes.PassResult(model, modified=False)
        if opset < COORDINATES and not _samples_forward(model):
            self.context.notes.append(
                f"opset {opset} kept: it rounds a shrinking Resize its own way"
            )
            return ir.passes.PassResult(model, modified=False)
        upgraded = model.clone()
        try:
            result = ConvertVersionPass(self.options.target, fallback=True)(upgraded)
        except (ir.passes.PassError, onnx.version_converter.ConvertError, RuntimeError) as error:
            self.context.notes.append(f"opset {opset} kept: {str(error).splitlines()[0]}")
            return ir.passes.PassResult(model, modified=False)
        if opset < COORDINATES:
            _name_coordinates(result.model)
        model.graph = result.model.graph
        model.functions.clear()
        model.functions.update(result.model.functions)
        return ir.passes.PassResult(model, modified=result.modified)


def _samples_forward(model: ir.Model) -> bool:
    """Whether every nearest ``Resize`` enlarges; a shrinking one rounded up before opset 11."""
    for graph in each_graph(model.graph):
        for node in graph:
            if is_op(node, "Resize") and node.attributes.get_string("mode", "nearest") == "nearest":
                scales = constant(node.inputs[1])
                if scales is None or scales.min(initial=1) < 1:
                    return False
    return True


def _name_coordinates(model: ir.Model) -> None:
    """Keeps the old sampling of ``Resize`` and ``Upsample``, which ONNX's converter drops."""
    for graph in each_graph(model.graph):
        for node in graph:
            if is_op(node, "Resize"):
                node.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
                node.attributes.add(ir.AttrString("nearest_mode", "floor"))
