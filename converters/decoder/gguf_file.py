"""GGUF files: metadata, and tensors read one at a time.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3.
The header is walked here because the ``gguf`` package makes arrays of every
token: 6.5 s and 490 MB for a vocabulary of 150,000, against 0.2 s. Its
``gguf.quants`` turns quantized types into floats.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray

from converters.decoder.stored import Stored, portions
from converters.decoder.weights import WeightFormat
from converters.quantize import Blocks, pack
from edge_sdk.errors import SourceError

MAGIC = b"GGUF"
BLOCK = 32
# Codes of GGUF's value types, as struct and numpy name them.
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_FORMATS = {Type.Q4_0: WeightFormat(4, BLOCK), Type.Q8_0: WeightFormat(8, BLOCK)}


@dataclass(frozen=True)
class GgufTensor(Stored):
    """A tensor with its GGUF type, and where its bytes begin.

    Attributes:
        type: Its element or block type.
        offset: First byte in the file.
        size: Number of bytes.
    """

    type: Type
    offset: int
    size: int

    def bytes(self, rows: slice) -> NDArray[Any]:
        """Bytes of some rows [rows, …, bytes], or of a vector; floats of 32 and 16 bits as such.

        Raises:
            SourceError: The file was cut off since its header was read.
        """
        count = rows.stop - rows.start
        size = self.size * count // self.shape[0]
        start = self.offset + self.size * rows.start // self.shape[0]
        data = np.fromfile(self.file, np.uint8, size, offset=start)
        if data.size < size:
            raise cut_off(self.file, self.file.stat().st_size, start + size)
        plain = {Type.F32: np.float32, Type.F16: np.float16}.get(self.type, np.uint8)
        shape = (count, *self.shape[1:])
        return data.view(plain).reshape(*shape[:-1], -1)


class _Info(NamedTuple):
    """A tensor as the header describes it; the offset is from the end of the header."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


class GgufFile:
    """A GGUF model, in one file or split into several.

    Attributes:
        files: Its files in order.
        metadata: Key -> number, text, or list of them.
        tensors: Name -> where it is.
    """

    def __init__(self, path: Path) -> None:
        """Reads the headers.

        Raises:
            SourceError: A file is missing, cut off, damaged or of another version.
        """
        self.files = _split_files(path)
        self.metadata: Mapping[str, Any] = {}
        tensors: dict[str, GgufTensor] = {}
        for number, file in enumerate(self.files):
            metadata, found = _Header(file).read()
            tensors |= found
            if number == 0:
                self.metadata = metadata
        self._tensors = tensors

    @property
    def tensors(self) -> Mapping[str, Stored]:
        """Name -> where it is."""
        return self._tensors

    def read(self, name: str) -> NDArray[np.float32]:
        """One tensor in float32."""
        tensor = self._tensors[name]
        value = np.empty(tensor.shape, np.float32)
        try:
            for rows in portions(tensor.shape):  # so that there is no second copy in memory
                value[rows] = gguf.quants.dequantize(tensor.bytes(rows), tensor.type)
        except NotImplementedError:
            raise SourceError(
                f"tensor {name!r} has the unsupported type {tensor.dtype}",
                where=str(tensor.file),
                remedy="give a file in F16, BF16, Q8_0 or Q4_0",
            ) from None
        return value

    def blocks(self, name: str, wanted: WeightFormat) -> Blocks | None:
        """Q4_0 and Q8_0 matrices, code for code, where that is what is wanted."""
        tensor = self._tensors[name]
        if _FORMATS.get(tensor.type) != wanted:
            return None
        raw = tensor.bytes(slice(0, tensor.shape[0])).reshape(
            tensor.shape[0], tensor.shape[1] // BLOCK, -1
        )
        scale = raw[..., :2].copy().view(np.float16)[..., 0].astype(np.float32)
        codes = raw[..., 2:]
        if tensor.type == Type.Q8_0:
            return Blocks(codes ^ np.uint8(128), scale, None)  # two's complement -> middle 128
        # A byte holds values i and i + 16 of its block; MatMulNBits has neighbours.
        halves = np.concatenate([codes & 15, codes >> 4], axis=-1)
        return Blocks(pack(halves, 4), scale, None)


class _Header:
    """Walks the header of one file."""

    def __init__(self, file: Path) -> None:
        self._file, self._at = file, 0
        self._data = memoryview(b"")
        with file.open("rb") as opened:
            if file.stat().st_size:
                self._data = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))

    def read(self) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
        """Metadata, and the tensors by name."""
        if bytes(self._take(4)) != MAGIC:
            raise SourceError("not a GGUF file", where=str(self._file))
        version = self._number("I")
        if version not in (2, 3):
            kind = "for big-endian machines" if version & 0xFFFF == 0 else f"of version {version}"
            raise SourceError(
                f"a GGUF file {kind}",
                where=str(self._file),
                remedy="convert it again with a current llama.cpp",
            )
        count, keys = self._number("Q"), self._number("Q")
        metadata = {self._text(): self._value(self._number("I")) for _ in range(keys)}
        infos = [
            _Info(self._text(), self._shape(), self._number("I"), self._number("Q"))
            for _ in range(count)
        ]
        step = metadata.get("general.alignment", 32)
        if not isinstance(step, int) or step < 1:
            raise self._damaged(f"general.alignment = {step!r}")
        start = -(-self._at // step) * step
        return metadata, {info.name: self._tensor(info, start) for info in infos}

    def _shape(self) -> tuple[int, ...]:
        """GGUF names the innermost dimension first."""
        count = self._number("I")
        if not 1 <= count <= 4:
            raise self._damaged(f"a tensor of {count} dimensions")
        return tuple(reversed(self._numbers("Q", count)))

    def _tensor(self, info: _Info, start: int) -> GgufTensor:
        name, shape = info.name, info.shape
        try:
            kind = Type(info.type)
        except ValueError:
            raise SourceError(
                f"tensor {name!r} has the unknown type {info.type}", where=str(self._file)
            ) from None
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if not all(shape) or shape[-1] % block:
            raise self._damaged(f"tensor {name!r} of shape {list(shape)} is not whole blocks")
        size = math.prod(shape) // block * size
        if start + info.offset + size > len(self._data):
            raise cut_off(self._file, len(self._data), start + info.offset + size)
        return GgufTensor(self._file, kind.name, shape, kind, start + info.offset, size)

    def _value(self, code: int) -> Any:
        if code == _STRING:
            return self._text()
        if code == _ARRAY:
            inner, count = self._number("I"), self._number("Q")
            if inner in _SCALARS:
                return self._numbers(_SCALARS[inner], count)
            if inner == _STRING:
                return [self._text() for _ in range(count)]
            code = inner  # lists of lists are in no model
        if code not in _SCALARS:
            raise self._damaged(f"unknown value type {code}")
        return self._number(_SCALARS[code])

    def _text(self) -> str:
        data = self._take(self._number("Q"))
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError:
            raise self._damaged("text that is not UTF-8") from None

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(code)))[0]

    def _numbers(self, code: str, count: int) -> list[Any]:
        return list(struct.unpack(f"<{count}{code}", self._take(count * struct.calcsize(code))))

    def _take(self, size: int) -> memoryview:
        end = self._at + size
        if end > len(self._data):
            raise cut_off(self._file, len(self._data), end)
        self._at, start = end, self._at
        return self._data[start:end]

    def _damaged(self, what: str) -> SourceError:
        return SourceError(
            f"damaged near byte {self._at}: {what}",
            where=str(self._file),
            remedy="download it again",
        )


def cut_off(file: Path, size: int, needed: int) -> SourceError:
    """The error for a file that ends too early."""
    return SourceError(
        f"cut off or damaged: it has {size} bytes and needs {needed}",
        where=str(file),
        remedy="download it again",
    )


def _split_files(path: Path) -> tuple[Path, ...]:
    """All files of a model that was split; the one file otherwise."""
    found = re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})\.gguf", path.name)
    if not found:
        return (path,)
    stem, count = found[1], int(found[3])
    files = tuple(path.with_name(f"{stem}-{i + 1:05}-of-{count:05}.gguf") for i in range(count))
    for file in files:
        if not file.is_file():
            raise SourceError(
                "this part of a split model is not there",
                where=str(file),
                remedy=f"download all {count} parts",
            )
    return files
