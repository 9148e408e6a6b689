"""Compression on the wire: of what shrinks by it, as documents and graphs do and weights do not.

Digests are of the bytes themselves, so this is between the two ends of a connection.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator

from edge_sdk.transport.source import Piece

PACKED_UP_TO = 4 * 1024 * 1024
"""Size in bytes beyond which a blob is not tried: it holds weights."""
_SAMPLE, _SAMPLES = 1024, 8  # bytes, and how many times, evenly spread
_WORTH = 0.6  # of the size; quantized weights stay above it


def pack(data: bytes) -> bytes | None:
    """Compresses bytes by gzip, always to the same; ``None`` where they hardly shrink."""
    stride = max(_SAMPLE, len(data) // _SAMPLES)
    sample = b"".join(data[at : at + _SAMPLE] for at in range(0, len(data), stride))
    if len(zlib.compress(sample, 1)) > _WORTH * len(sample):
        return None
    packed = gzip.compress(data, 6, mtime=0)
    return packed if len(packed) <= _WORTH * len(data) else None


def unpack(pieces: Iterable[bytes], largest: int) -> Iterator[Piece]:
    """The bytes that gzip stands for, never more than ``largest`` at a time.

    Raises:
        zlib.error: It is not gzip.
    """
    inflate = zlib.decompressobj(wbits=31)
    for packed in pieces:
        travelled = len(packed)
        while packed:
            yield Piece(inflate.decompress(packed, largest), travelled)
            packed, travelled = inflate.unconsumed_tail, 0
