"""Protobuf's wire format, as far as ONNX graphs need it: a board has no ``onnx`` package.

Fields are copied as they stand; only what is to change is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_sdk.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """The fields of a message, in order.

    Yields:
        Field number; value (an ``int`` for varints, else bytes); the whole field as it stands.

    Raises:
        BundleError: The bytes are no message.
    """
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        value: int | memoryview
        if kind == VARINT:
            value, at = _varint(message, at)
        elif kind == BYTES or kind in _FIXED:
            size, at = _varint(message, at) if kind == BYTES else (_FIXED[kind], at)
            value, at = message[at : at + size], at + size
        else:
            raise BundleError(f"wire type {kind} at byte {start}", where="ONNX graph")
        if at > len(message):
            raise BundleError(f"ends inside the field at byte {start}", where="ONNX graph")
        yield number, value, message[start:at]


def field(number: int, value: int | bytes | str | memoryview) -> bytes:
    """One encoded field: a varint, or bytes with their length."""
    if isinstance(value, int):
        return _encode(number << 3 | VARINT) + _encode(value)
    data = value.encode() if isinstance(value, str) else bytes(value)
    return _encode(number << 3 | BYTES) + _encode(len(data)) + data


def text(value: int | memoryview) -> str:
    """A field's value as text."""
    try:
        return bytes(_bytes(value)).decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"has a name that is no text: {error}", where="ONNX graph") from error


def message(value: int | memoryview) -> memoryview:
    """A field's value as an embedded message."""
    return _bytes(value)


def integer(value: int | memoryview) -> int:
    """A field's value as a number."""
    if not isinstance(value, int):
        raise BundleError("has bytes where a number is expected", where="ONNX graph")
    return value


def integers(value: int | memoryview) -> tuple[int, ...]:
    """The numbers of a repeated field's value, packed or not."""
    if isinstance(value, int):
        return (value,)
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return tuple(found)


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise BundleError("has a number where bytes are expected", where="ONNX graph")
    return value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise BundleError(f"no number at byte {at}", where="ONNX graph")


def _encode(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])
