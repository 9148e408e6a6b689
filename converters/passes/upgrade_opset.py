"""Raises the opset, so that later passes find per-axis QDQ (13) and LayerNormalization (17)."""

from __future__ import annotations

import onnx.version_converter
import onnx_ir as ir
from onnxscript.version_converter import ConvertVersionPass

from converters.passes.base import GraphPass, Options


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
        upgraded = model.clone()
        try:
            result = ConvertVersionPass(self.options.target, fallback=True)(upgraded)
        except (ir.passes.PassError, onnx.version_converter.ConvertError, RuntimeError) as error:
            self.context.notes.append(f"opset {opset} kept: {str(error).splitlines()[0]}")
            return ir.passes.PassResult(model, modified=False)
        model.graph = result.model.graph
        model.functions.clear()
        model.functions.update(result.model.functions)
        return ir.passes.PassResult(model, modified=result.modified)
