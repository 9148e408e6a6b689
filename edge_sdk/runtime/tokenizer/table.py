"""A tokenizer's tables in one file, which is mapped: pages of it are shared and can be dropped.

::

    magic | length of the header | header (JSON) | sections, each at a multiple of eight

Disposable: what cannot be read, or was made for something else, is made again.
"""

from __future__ import annotations

import mmap
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edge_sdk.bundle.record import Frozen

MAGIC = b"edge-sdk tokenizer 1\n\0\0\0"
BYTES = 256
NONE = 0xFFFFFFFF  # no such token
_LIMIT = 16 * 1024 * 1024  # largest header, in bytes
_SECTIONS = ("bytes", "text", "offsets", "pairs", "merged", "order")


class Added(Frozen, frozen=True, kw_only=True):
    """A token that is found in a text as it is, before anything else.

    Attributes:
        content: How it is written.
        special: Whether it is left out of shown texts.
        normalized: Whether it is found in the text's normal form, after the others.
    """

    content: str
    special: bool
    normalized: bool


class Header(Frozen, frozen=True, kw_only=True):
    """Everything that is not a table.

    Attributes:
        source: Digest of the ``tokenizer.json``.
        unicode: Version of the Unicode database that it was compared with.
        refused: Why the library has to be used; empty where these tables can be.
        patterns: See :class:`~edge_sdk.runtime.tokenizer.splitting.Splitter`.
        composed: The same.
        whole: Whether a piece that is a token is taken without merging.
        added: Token -> what is added.
        sections: Name -> offset and length in bytes.
        crc32: Of all sections.
    """

    source: str
    unicode: str
    refused: str = ""
    patterns: tuple[str, ...] = ()
    composed: bool = False
    whole: bool = False
    added: dict[int, Added] = msgspec.field(default_factory=dict)
    sections: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    crc32: int = 0


class Table:
    """The tables of one tokenizer, read where they are mapped.

    Args:
        header: The header.
        data: The file from behind the header.

    Attributes:
        header: The header.
        of_byte: The token of each byte; :data:`NONE` where there is none.
    """

    def __init__(self, header: Header, data: memoryview) -> None:
        self.header = header
        parts = {
            name: data[offset : offset + length]
            for name, (offset, length) in header.sections.items()
        }
        self.of_byte: list[int] = parts["bytes"].cast("I").tolist()
        self._text = parts["text"]
        self._offsets = parts["offsets"].cast("I")
        self._pairs = parts["pairs"].cast("Q")
        self._merged = parts["merged"].cast("Q")
        self._order = parts["order"].cast("I")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; empty where there is no such token."""
        if not 0 <= token < len(self):
            return b""
        return bytes(self._text[self._offsets[token] : self._offsets[token + 1]])

    def merge(self, left: int, right: int) -> tuple[int, int] | None:
        """The rank of a pair, lowest first, and the token that it becomes; ``None`` if none."""
        key = left << 32 | right
        place = bisect_left(self._pairs, key)
        if place == len(self._pairs) or self._pairs[place] != key:
            return None
        return divmod(self._merged[place], 1 << 32)

    def find(self, piece: bytes) -> int | None:
        """The token that stands for these bytes, of those that a text can have merged into."""
        place = bisect_left(self._order, piece, key=self.bytes_of)
        if place < len(self._order) and self.bytes_of(self._order[place]) == piece:
            return self._order[place]
        return None


def written(header: Header, sections: Mapping[str, bytes]) -> bytes:
    """The bytes of a file.

    Args:
        header: All but where its sections are.
        sections: Name -> bytes; none for a refusal.
    """
    body = bytearray()
    places = {}
    for name, data in sections.items():
        body += bytes(-len(body) % 8)
        places[name] = (len(body), len(data))
        body += data
    header = msgspec.structs.replace(header, sections=places, crc32=zlib.crc32(body))
    encoded = msgspec.json.encode(header)
    encoded += b" " * (-len(encoded) % 8)
    return MAGIC + len(encoded).to_bytes(8, "little") + encoded + body


def packed(kind: str, values: list[int]) -> bytes:
    """Numbers as a section has them: ``I`` of four bytes, ``Q`` of eight."""
    return array(kind, values).tobytes()


def read(path: Path, source: str, unicode: str) -> Header | Table | None:
    """What was prepared: the tables, a refusal's header, or nothing that is of use.

    Args:
        path: The file.
        source: Digest of the ``tokenizer.json``.
        unicode: Version of the Unicode database.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # absent, or empty
        return None
    found = parsed(memoryview(mapped))
    if found is None or (found[0].source, found[0].unicode) != (source, unicode):
        return None
    header, data = found
    if header.refused:
        return header
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)  # texts need little of what was just read
    return Table(header, data)


def parsed(file: memoryview) -> tuple[Header, memoryview] | None:
    """Header and sections of a file; ``None`` where it is not one, or damaged."""
    start = len(MAGIC) + 8
    if file[: len(MAGIC)] != MAGIC or sys.byteorder != "little":
        return None
    end = start + min(_LIMIT, int.from_bytes(file[len(MAGIC) : start], "little"))
    try:
        header = msgspec.json.decode(file[start:end], type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    data = file[end:]
    whole = header.refused or set(header.sections) == set(_SECTIONS)
    return (header, data) if whole and zlib.crc32(data) == header.crc32 else None
