"""WAV files: integer and floating-point PCM. The standard library's reader knows no floats."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_sdk.errors import DataError
from edge_sdk.runtime.inputs import Array

INTEGERS, FLOATS, EXTENSIBLE = 1, 3, 0xFFFE
DTYPES = {
    (INTEGERS, 8): "u1",
    (INTEGERS, 16): "<i2",
    (INTEGERS, 24): "u1",  # joined afterwards
    (INTEGERS, 32): "<i4",
    (FLOATS, 32): "<f4",
    (FLOATS, 64): "<f8",
}


def read_wav(path: Path) -> tuple[Array, int]:
    """All samples of a file and their rate.

    Returns:
        ``[samples, channels]`` as stored (24 bits in the upper bytes of int32), and samples
        per second.

    Raises:
        DataError: It cannot be read, or is encoded otherwise.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error
    chunks = dict(_chunks(data)) if data[:4] == b"RIFF" and data[8:12] == b"WAVE" else {}
    if len(chunks.get(b"fmt ", b"")) < 16 or b"data" not in chunks:
        raise _refused("it is no complete WAV file", path)
    form, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    if form == EXTENSIBLE and len(chunks[b"fmt "]) >= 26:
        (form,) = struct.unpack_from("<H", chunks[b"fmt "], 24)
    if (form, bits) not in DTYPES or not channels or not rate or frame != channels * bits // 8:
        raise _refused(f"its encoding is {form} with {bits} bits", path)
    held = chunks[b"data"]
    samples: Array = np.frombuffer(held[: len(held) // frame * frame], DTYPES[form, bits])
    if bits == 24:
        wide = np.zeros((samples.size // 3, 4), np.uint8)
        wide[:, 1:] = samples.reshape(-1, 3)
        samples = wide.view("<i4")
    return samples.reshape(-1, channels), rate


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """RIFF chunks; the first of a name counts, and a recording that was cut off ends early."""
    seen = set()
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name not in seen:
            yield name, data[at + 8 : at + 8 + size]
        seen.add(name)
        at += 8 + size + size % 2


def _refused(why: str, path: Path) -> DataError:
    return DataError(
        f"cannot be read: {why}",
        where=str(path),
        remedy="convert it to PCM: ffmpeg -i FILE -ac 1 -ar 16000 FILE.wav",
    )
