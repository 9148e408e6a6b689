"""Low-rank adapters: the arrays that a graph with adapter inputs takes.

An adapter's file is in the safetensors format: tensors ``lora.{node}.a`` [in, rank]
and ``lora.{node}.b`` [rank, out], float16 or float32, named like the graph's inputs.
A node without them is computed as the base model's: its rank is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import Adapter, TensorSpec
from edge_sdk.errors import BundleError

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array

PREFIX = "lora."
FILE_LIMIT = 256 * 1024 * 1024  # largest adapter that is read, in bytes
HEADER_LIMIT = 1024 * 1024
DTYPES = {"F16": "<f2", "F32": "<f4"}


class Entry(msgspec.Struct, frozen=True):
    """One tensor of a safetensors file.

    Attributes:
        dtype: Its element type in safetensors' names.
        shape: Its shape.
        data_offsets: First byte and end, counted from the end of the header.
    """

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_adapter(
    adapter: Adapter, inputs: Sequence[TensorSpec], blobs: BlobStore
) -> dict[str, Array]:
    """What the graph's adapter inputs take, the adapter's scale in it.

    Args:
        adapter: An adapter of the variant.
        inputs: All inputs of its graph.
        blobs: Where its file is.

    Raises:
        BundleError: The file is malformed, or does not fit the graph.
    """
    where = f"adapter {adapter.name!r}"
    specs = {spec.name: spec for spec in inputs if spec.name.startswith(PREFIX)}
    data = b"".join(blobs.read(part, FILE_LIMIT) for part in adapter.parts)
    given = parse_safetensors(data, where)
    if not given or given.keys() - specs.keys():
        odd = min(given.keys() - specs.keys(), default="no tensor")
        raise BundleError(f"{odd} is no input of graph {adapter.graph!r}", where=where)
    arrays: dict[str, Array] = {}
    for node in sorted({name.rpartition(".")[0] for name in specs}):
        a, b = (specs[f"{node}.{side}"] for side in "ab")
        down, up = _pair(given, a, b, where)
        arrays[a.name] = np.ascontiguousarray(down, a.dtype)
        scaled = np.multiply(up, adapter.scale, dtype=np.float32)
        arrays[b.name] = np.ascontiguousarray(scaled, b.dtype)
    return arrays


def _pair(given: dict[str, Array], a: TensorSpec, b: TensorSpec, where: str) -> tuple[Array, Array]:
    """A node's two arrays, of rank 0 where the adapter leaves it alone."""
    width, out = (a.shape or (0,))[0], (b.shape or (0,))[-1]
    none = np.zeros((int(width), 0), np.float32), np.zeros((0, int(out)), np.float32)
    down, up = given.get(a.name, none[0]), given.get(b.name, none[1])
    rank = down.shape[-1] if down.ndim == 2 else -1
    if down.shape != (width, rank) or up.shape != (rank, out):
        raise BundleError(
            f"{a.name} {list(down.shape)} and {b.name} {list(up.shape)} do not fit the graph: "
            f"[{width}, rank] and [rank, {out}]",
            where=where,
        )
    return down, up


def parse_safetensors(data: bytes, where: str) -> dict[str, Array]:
    """The tensors of a safetensors file, as views of its bytes.

    Raises:
        BundleError: It is malformed, or has a type other than float16 and float32.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(HEADER_LIMIT, len(data) - 8):
        raise BundleError("not a safetensors file", where=where)
    try:
        header = msgspec.json.decode(data[8 : 8 + size], type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(raw, type=Entry) for name, raw in header.items()}
    except msgspec.DecodeError as error:
        raise BundleError(f"not a safetensors file: {error}", where=where) from error
    body = memoryview(data)[8 + size :]
    return {name: _tensor(name, entry, body, where) for name, entry in entries.items()}


def _tensor(name: str, entry: Entry, body: memoryview, where: str) -> Array:
    begin, end = entry.data_offsets
    if entry.dtype not in DTYPES:
        raise BundleError(f"{name} is {entry.dtype}, not F16 or F32", where=where)
    dtype = np.dtype(DTYPES[entry.dtype])
    if not 0 <= begin <= end <= len(body) or end - begin != math.prod(entry.shape) * dtype.itemsize:
        raise BundleError(f"{name} does not lie within the file", where=where)
    return np.frombuffer(body[begin:end], dtype).reshape(entry.shape)
