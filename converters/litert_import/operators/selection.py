"""What makes places or marks out of values."""

from __future__ import annotations

import onnx_ir as ir

from converters.litert_import.call import Call, operator


@operator("WHERE")
def where(call: Call) -> None:
    """The places of what is not zero, one per row."""
    found = call.emit("Transpose", [call.emit("NonZero", [call.get(0)])], perm=[1, 0])
    call.set(call.emit("Cast", [found], to=call.out_dtype))


@operator("ONE_HOT")
def one_hot(call: Call) -> None:
    """A mark at each place."""
    row = call.values.array([1], "int64")
    depth = call.emit("Reshape", [call.int64(1), row])
    marks = [call.emit("Reshape", [call.get(i), row]) for i in (3, 2)]
    values = call.emit("Concat", marks, axis=0)
    places = call.emit("Cast", [call.get(0)], to=ir.DataType.INT64)
    call.set(call.emit("OneHot", [places, depth, values], axis=int(call.option("axis", -1))))
