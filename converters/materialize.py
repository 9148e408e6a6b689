"""From an in-memory graph to files and sessions, with the runtime's own engines.

Converters run candidates exactly as a device would, through
:mod:`edge_sdk.runtime`. Weights go to external files, so models above the 2 GB
protobuf limit take the same way as small ones; tensors that already lie in the
target folder are referred to and not written again, so a candidate costs only
what its recipe changed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir

from edge_sdk.runtime.engine import Session, SessionOptions, find_engine

INLINE_BYTES = 1024


def is_external(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor belongs outside the graph file.

    Tensors below 1 KiB stay inside, where shape inference needs them; ONNX has
    no external form for strings.
    """
    return tensor.nbytes >= INLINE_BYTES and tensor.dtype != ir.DataType.STRING


def save(model: ir.Model, folder: Path, stem: str = "model") -> Path:
    """Writes ``<stem>.onnx``, and ``<stem>.bin`` with tensors not yet in ``folder``.

    The model's large tensors refer to the files afterwards, which frees their memory.

    Returns:
        The path of the graph file.
    """
    values = []
    for value in (v for graph in model.graphs() for v in graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or _lies_in(tensor, folder):
            continue
        if is_external(tensor):
            values.append(value)
        elif isinstance(tensor, ir.ExternalTensor):  # small, and in a file of the source's
            value.const_value = ir.Tensor(tensor.numpy(), tensor.dtype, name=tensor.name)
    tensors = [value.const_value for value in values if value.const_value is not None]
    if tensors:
        externals = ir.external_data.convert_tensors_to_external(tensors, folder, f"{stem}.bin")
        for value, tensor in zip(values, externals, strict=True):
            value.const_value = tensor
    path = folder / f"{stem}.onnx"
    onnx.save(ir.to_proto(model), path)
    return path


def complaint(path: Path) -> str | None:
    """What ``onnx.checker`` has against a graph file, in one line; ``None`` if nothing.

    Operators that ONNX Runtime keeps in the standard domain without ONNX knowing
    them (``SimplifiedLayerNormalization``) are nothing against a graph.
    """
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        text = str(error)
        return None if "No Op registered for" in text else text.splitlines()[0]
    return None


def _lies_in(tensor: ir.TensorProtocol, folder: Path) -> bool:
    return isinstance(tensor, ir.ExternalTensor) and Path(tensor.base_dir) == folder


def open_path(path: Path, options: SessionOptions | None = None, engine: str = "onnx") -> Session:
    """Opens a graph file with the runtime engine of that name.

    Raises:
        MissingEngineError: No such engine is registered, or its library is absent.
        EngineError: The engine refused the graph.
    """
    return find_engine(engine).open(path, options or SessionOptions())


@contextmanager
def opened(
    model: ir.Model, options: SessionOptions | None = None, engine: str = "onnx"
) -> Iterator[Session]:
    """A session over ``model`` for the duration of a ``with`` block; files are temporary.

    ``model`` itself stays as it is.
    """
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        yield open_path(save(model.clone(), Path(folder)), options, engine)
