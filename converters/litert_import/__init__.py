"""``.tflite`` files as ONNX graphs.

The way through::

    file.read             the flatbuffer, checked            -> File
    graph.to_onnx         node by node                       -> onnx_ir.Model
    operators/            one function per operator, by theme; each registers itself
    call.Call             one node and its operands, handed to such a function
    values.Values         tensor -> ONNX values, in the layouts and types asked for

Inputs and outputs keep names, types and ranks: a picture that was NHWC stays so.
Inside, convolutions are channels first, and what computes element by element stays in
the layout that its operand has, so that few transposes are left. Quantized tensors become
QuantizeLinear / DequantizeLinear pairs; weights that were quantized for the file's size alone
(by a layer over floats) become floats again, so that every recipe applies to them.
"""

from __future__ import annotations

from converters.litert_import.file import File, read
from converters.litert_import.graph import signature, to_onnx

__all__ = ["File", "read", "signature", "to_onnx"]
