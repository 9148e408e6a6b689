"""What the engine does with a weight: its packed bytes, and the layout that they are in.

onnxruntime packs a constant weight for the CPU when a session opens. Asked to save
its graph, it writes the packed bytes beside the raw ones and notes ``key|offset;length;
checksum`` with the tensor (external-data key ``prepacked_0``). The key is the operator
and a hash of the packed bytes.

A session that opens such a graph packs the tensor's bytes all the same, looks the key
up, and from then on uses the mapped bytes instead. So a tensor must stay there, but it
need not be the raw weight: here the packed bytes stand in for it (their first
``length`` bytes), under the key that packing *these* gives. The raw weight is
not needed any more, and every key is as unique as the weight.

A key that does not fit is no error to the engine: it then computes with the
stand-in. Hence the checks around this module.
"""

from __future__ import annotations

import hashlib
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.errors import EngineError
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.engines.onnx import EXTERNAL_DATA, native_options, split_options
from edge_sdk.runtime.prepared.graph import OP, Tensor, decode
from edge_sdk.runtime.prepared.wire import field, fields, message

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array

TESTED = ("1.31.1",)
"""Versions of onnxruntime whose internal format is known to be the one described above."""
_PROBES = ((4, 32, False), (4, 128, False), (4, 32, True), (8, 32, False))
_ROWS, _WIDTH = 32, 256


@dataclass(frozen=True)
class Packed:
    """Packed bytes as the engine has saved them.

    Attributes:
        key: The engine's name for them: operator and hash.
        file: Where they are.
        offset: First byte.
        length: Number of bytes.
    """

    key: str
    file: Path
    offset: int
    length: int


def save(
    model: bytes, folder: Path, options: SessionOptions, work: Path
) -> tuple[Any, dict[str, Packed]]:
    """Opens a model and lets the engine save what it packed.

    Args:
        model: An encoded model.
        folder: Where its external tensors are.
        options: Those of the session that will use the packed bytes.
        work: A folder for the saved files; the caller clears it.

    Returns:
        The engine's session, and tensor name -> packed bytes.

    Raises:
        EngineError: The engine refused.
    """
    target = work / "saved.onnx"
    extra = {
        "session.save_external_prepacked_constant_initializers": "1",
        "session.optimized_model_external_initializers_file_name": "saved.data",
        "session.optimized_model_external_initializers_min_size_in_bytes": "0",
    }
    session = open_model(model, folder, options, extra, target)
    found = {}
    for tensor in _external(target.read_bytes()):
        if tensor.packed:
            key, _, place = tensor.packed.partition("|")
            offset, length, _ = (int(part) for part in place.split(";"))
            found[tensor.name] = Packed(key, work / "saved.data", offset, length)
    return session, found


def open_model(
    model: bytes,
    folder: Path,
    options: SessionOptions,
    extra: Mapping[str, str] | None = None,
    save_as: Path | None = None,
) -> Any:
    """An engine's session of a model in memory, single-threaded.

    Raises:
        EngineError: The engine refused.
    """
    import onnxruntime

    config, _ = split_options(options.options)
    config[EXTERNAL_DATA] = str(folder)
    lean = SessionOptions(threads=1, optimize=options.optimize, arena=False)
    native = native_options(onnxruntime, lean, config | dict(extra or {}))
    if save_as is not None:
        native.optimized_model_filepath = str(save_as)
    try:
        return onnxruntime.InferenceSession(model, native, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(f"ONNX Runtime cannot pack a weight: {error}") from error


def product(session: Any, width: int) -> bytes:
    """What a node alone computes from two fixed rows, bit by bit."""
    given = session.get_inputs()[0]
    dtype = np.float16 if given.type == "tensor(float16)" else np.float32
    rows = np.random.default_rng(0).standard_normal((2, width)).astype(dtype)
    [result] = session.run(None, {given.name: rows})
    return bytes(result.tobytes())


def layout_id(options: SessionOptions) -> str:
    """Names how the engine packs weights here: version, CPU, options; 64 hex digits.

    Small weights of each kind are packed and hashed, because nothing else tells
    reliably which of its kernels the engine chooses on this CPU.

    Raises:
        EngineError: The engine refused.
    """
    return _layout_id(options.optimize, tuple(sorted(options.options.items())))


@lru_cache
def _layout_id(optimize: bool, config: tuple[tuple[str, str], ...]) -> str:
    import onnxruntime

    digest = hashlib.sha256(repr((onnxruntime.__version__, platform.machine(), config)).encode())
    with tempfile.TemporaryDirectory() as work:
        options = SessionOptions(optimize=optimize, options=dict(config))
        _, packed = save(_probe_model(), Path(work), options, Path(work))
        for name, found in sorted(packed.items()):
            with found.file.open("rb") as file:
                file.seek(found.offset)
                digest.update(f"{name} {found.key} {found.length}".encode())
                digest.update(file.read(found.length))
    return digest.hexdigest()


def _external(model: bytes) -> list[Tensor]:
    graphs = (message(value) for number, value, _ in fields(memoryview(model)) if number == 7)
    return [
        tensor
        for graph in graphs
        for number, value, _ in fields(graph)
        if number == 5 and (tensor := decode(message(value)))
    ]


def _probe_model() -> bytes:
    """One small node of each kind that the engine may pack in its own way."""
    body = [field(2, "probe"), field(11, _value("x"))]
    for index, (bits, block, zero_points) in enumerate(_PROBES):
        blocks = _WIDTH // block
        weight = np.arange(_ROWS * _WIDTH * bits // 8).reshape(_ROWS, blocks, -1) * 37 % 251
        scales = np.arange(1, _ROWS * blocks + 1).reshape(_ROWS, blocks) / 1024
        tensors: list[Array] = [weight.astype(np.uint8), scales.astype(np.float32)]
        if zero_points:
            count = -(-blocks * bits // 8)
            tensors.append((np.arange(_ROWS * count).reshape(_ROWS, count) % 13).astype(np.uint8))
        names = [f"{index}.{position}" for position in range(1, 1 + len(tensors))]
        attributes = {
            "K": _WIDTH,
            "N": _ROWS,
            "bits": bits,
            "block_size": block,
            "accuracy_level": 4,
        }
        body.append(field(1, _node(["x", *names], f"y{index}", attributes)))
        body += (field(5, _inline(*pair)) for pair in zip(names, tensors, strict=True))
        body.append(field(12, _value(f"y{index}")))
    opsets = field(8, field(2, 21)) + field(8, field(1, "com.microsoft") + field(2, 1))
    return field(1, 10) + opsets + field(7, b"".join(body))


def _node(inputs: list[str], output: str, attributes: Mapping[str, int]) -> bytes:
    return b"".join(
        (
            *(field(1, name) for name in inputs),
            field(2, output),
            field(4, OP),
            *(
                field(5, field(1, key) + field(3, value) + field(20, 2))
                for key, value in attributes.items()
            ),
            field(7, "com.microsoft"),
        )
    )


def _inline(name: str, array: Array) -> bytes:
    element = 1 if array.dtype == np.float32 else 2
    dims = b"".join(field(1, size) for size in array.shape)
    return dims + field(2, element) + field(8, name) + field(9, array.tobytes())


def _value(name: str) -> bytes:
    return field(1, name) + field(2, field(1, field(1, 1)))
