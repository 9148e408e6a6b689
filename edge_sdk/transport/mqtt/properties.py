"""Properties of MQTT 5 packets (2.2.2) and the data types they are made of (1.5)."""

from __future__ import annotations

from collections.abc import Mapping

from edge_sdk.errors import TransferError

SESSION_EXPIRY, SERVER_KEEP_ALIVE, RECEIVE_MAXIMUM, LARGEST_PACKET = 0x11, 0x13, 0x21, 0x27
NONE = b"\0"

_NUMBERS = {  # how many bytes each takes (table 2-4)
    0x01: 1, 0x02: 4, 0x11: 4, 0x13: 2, 0x17: 1, 0x18: 4, 0x19: 1, 0x21: 2, 0x22: 2, 0x23: 2,
    0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip
_STRINGS = {
    0x03: 1,
    0x08: 1,
    0x09: 1,
    0x12: 1,
    0x15: 1,
    0x16: 1,
    0x1A: 1,
    0x1C: 1,
    0x1F: 1,
    0x26: 2,
}
_SUBSCRIPTION_ID = 0x0B


class Cursor:
    """Reads data types one after another; ``IndexError`` where there is nothing left."""

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self._data, self._position, self._end = data, position, end

    @property
    def left(self) -> int:
        """Bytes that are still to be read."""
        return self._end - self._position

    def take(self, count: int) -> bytes:
        """So many bytes."""
        position = self._position
        if count > self._end - position:
            raise IndexError
        self._position += count
        return self._data[position : position + count]

    def byte(self) -> int:
        """A byte."""
        return self.take(1)[0]

    def two(self) -> int:
        """A number of two bytes."""
        return int.from_bytes(self.take(2), "big")

    def number(self) -> int:
        """A number of one to four times seven bits."""
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise IndexError

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)


def decode(cursor: Cursor) -> dict[int, int]:
    """Properties that are numbers, by identifier; others are checked and passed over.

    Raises:
        TransferError: An identifier is none of MQTT 5.
        IndexError: They end too soon.
    """
    found: dict[int, int] = {}
    inner = cursor.take(cursor.number())
    cursor = Cursor(inner, 0, len(inner))
    while cursor.left:
        identifier = cursor.number()
        if identifier in _NUMBERS:
            found[identifier] = int.from_bytes(cursor.take(_NUMBERS[identifier]), "big")
        elif identifier in _STRINGS:
            for _ in range(_STRINGS[identifier]):
                cursor.take(cursor.two())
        elif identifier == _SUBSCRIPTION_ID:
            cursor.number()
        else:
            raise malformed("packet", f"property {identifier:#04x}")
    return found


def skip(data: bytes, position: int, end: int) -> int:
    """Where what follows the properties begins; they are checked as by :func:`decode`."""
    if position < end and data[position] == 0:
        return position + 1
    cursor = Cursor(data, position, end)
    decode(cursor)
    return end - cursor.left


def encode(values: Mapping[int, int]) -> bytes:
    """Properties that are numbers, with their length before them."""
    body = b"".join(
        bytes((identifier,)) + value.to_bytes(_NUMBERS[identifier], "big")
        for identifier, value in values.items()
    )
    return length_prefix(len(body)) + body


def malformed(what: str, why: str) -> TransferError:
    """The one error for bytes that are no MQTT."""
    return TransferError(f"malformed {what}: {why}", remedy="is it an MQTT broker?")


def length_prefix(value: int) -> bytes:
    """A variable byte integer (1.5.5): seven bits in each byte, lowest first."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value: str) -> bytes:
    """A string: its length in two bytes, then UTF-8 (1.5.4)."""
    encoded = value.encode()
    return len(encoded).to_bytes(2, "big") + encoded
