"""Small ONNX models written byte by byte, so that device-side tests need no ``onnx`` package.

Field numbers are those of ``onnx.proto3``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ELEMENTS = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "string": 8,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
}


def field(number: int, value: int | bytes | str) -> bytes:
    """One protobuf field: a varint, or bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value & (2**64 - 1))
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def node(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    name: str = "",
    domain: str = "",
    **attributes: int | str,
) -> bytes:
    """A node with integer and text attributes."""
    return b"".join(
        (
            *(field(1, item) for item in inputs),
            *(field(2, item) for item in outputs),
            field(3, name or outputs[0]),
            field(4, op),
            field(7, domain),
            *(field(5, _attribute(key, given)) for key, given in attributes.items()),
        )
    )


def value(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    """A graph input or output."""
    dims = b"".join(field(1, field(1 if isinstance(dim, int) else 2, dim)) for dim in shape)
    return field(1, name) + field(2, field(1, field(1, ELEMENTS[dtype]) + field(2, dims)))


def sequence_value(name: str, dtype: str) -> bytes:
    """A graph output that is a sequence of tensors."""
    element = field(1, field(1, ELEMENTS[dtype]))
    return field(1, name) + field(2, field(4, field(1, element)))


def tensor(name: str, array: np.ndarray, location: str | None = None) -> bytes:
    """An initializer; ``location`` names the file beside the graph that holds its bytes."""
    head = b"".join(field(1, size) for size in array.shape)
    head += field(2, ELEMENTS[array.dtype.name]) + field(8, name)
    if location is None:
        return head + field(9, array.tobytes())
    entries = {"location": location, "offset": "0", "length": str(array.nbytes)}
    external = (field(13, field(1, key) + field(2, text)) for key, text in entries.items())
    return head + b"".join(external) + field(14, 1)


def model(
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    tensors: Sequence[bytes] = (),
    opset: int = 17,
) -> bytes:
    """A model of one graph."""
    graph = b"".join(
        (
            *(field(1, item) for item in nodes),
            field(2, "test"),
            *(field(5, item) for item in tensors),
            *(field(11, item) for item in inputs),
            *(field(12, item) for item in outputs),
        )
    )
    extensions = field(8, field(1, "com.microsoft") + field(2, 1))
    opsets = field(8, field(2, opset)) + field(8, field(1, "com.microsoft") + field(2, 1))
    return field(1, 8) + field(7, graph) + opsets + extensions


def _attribute(name: str, given: int | str) -> bytes:
    if isinstance(given, str):
        return field(1, name) + field(4, given) + field(20, 3)
    return field(1, name) + field(3, given) + field(20, 2)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])
