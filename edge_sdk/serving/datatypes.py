"""Element types by the Open Inference Protocol's names and by numpy's."""

from __future__ import annotations

NUMPY_NAMES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "string",
}
"""The protocol's name -> numpy's, or ``string`` as records have it."""

_PROTOCOL_NAMES = {numpy: protocol for protocol, numpy in NUMPY_NAMES.items()}


def datatype_of(name: str) -> str | None:
    """The protocol's name of an element type; ``None`` where it has none."""
    return _PROTOCOL_NAMES.get(name)
