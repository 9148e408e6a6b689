"""LiteRT over a file of packed weights, which every session and process maps.

Only LiteRT's newer interface (``CompiledModel``) knows such a file; it takes some 13 MB of
mapped libraries more than the interpreter, once per process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import EngineError
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.engines.litert import opening, quiet

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array, Feeds, Outputs

# The last is there since the version that can be told of such a file; lean installations lack
# the first, which LiteRT names as a requirement but the interpreter does without.
MODULES = ("ml_dtypes", "ai_edge_litert", "ai_edge_litert.cpu_options")


def is_available() -> bool:
    """Whether the installed LiteRT knows files of packed weights."""
    return all(find_spec(module) is not None for module in MODULES)


def open_shared(
    path: Path,
    weights: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    options: SessionOptions,
) -> SharedSession:
    """Opens a file over its packed weights; writes those first where ``weights`` is absent.

    Args:
        path: The ``.tflite`` file.
        weights: The file of packed weights.
        inputs: Inputs by the names of the file's only signature.
        outputs: Outputs by their names.
        options: How to open it; providers and engine options have no meaning here.

    Raises:
        EngineError: LiteRT refused, or the file has another signature.
    """
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import CpuOptions, Options

    cpu = CpuOptions(num_threads=options.threads, xnnpack_weight_cache_path=str(weights))

    def opened() -> Any:
        with opening(path), quiet():
            try:
                return CompiledModel.from_file(
                    str(path),
                    environment=_environment(),
                    options=Options(hardware_accelerators=HardwareAccelerator.CPU, cpu_options=cpu),
                )
            except Exception as error:
                raise EngineError(
                    f"LiteRT cannot open the file: {_first_line(error)}", where=str(path)
                ) from error

    return SharedSession(opened, tuple(inputs), tuple(outputs))


class SharedSession:
    """One file opened over packed weights. Safe to call from several threads, in turns.

    After a call that failed the model is opened again (:class:`.litert.LiteRtSession`).

    Attributes:
        inputs: In the order that was given.
        outputs: In the order that was given.
        notes: None.
    """

    def __init__(
        self,
        opened: Callable[[], Any],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.notes: tuple[str, ...] = ()
        self._opened = opened
        self._model = opened()
        self._failed = False
        self._lock = Lock()
        self._shapes: dict[str, tuple[int, ...]] = {}  # of the call before
        self._buffers: tuple[list[Any], list[Any]] = ([], [])
        signatures = list(self._model.get_signature_list().values())
        names = [{spec.name for spec in side} for side in (inputs, outputs)]
        if (
            len(signatures) != 1
            or [set(signatures[0][side]) for side in ("inputs", "outputs")] != names
        ):
            raise EngineError("has another signature than the variant says")
        self._names: Mapping[str, list[str]] = signatures[0]

    def run(self, feeds: Feeds) -> Outputs:
        """Runs the graph once; outputs come by name.

        Raises:
            EngineError: LiteRT failed, or an input does not fit.
        """
        for spec in self.inputs:
            if spec.name not in feeds or feeds[spec.name].dtype != np.dtype(spec.dtype):
                raise EngineError(f"is absent, or no {spec.dtype}", where=f"input {spec.name!r}")
        with self._lock:
            if self._failed:
                self._model, self._shapes = self._opened(), {}
            self._failed = True  # until it has not
            found = self._computed(feeds)
            self._failed = False
            return found

    def _computed(self, feeds: Feeds) -> Outputs:
        # It tells of itself once more when the first call is made.
        with nullcontext() if self._shapes else quiet():
            try:
                self._resize({name: feeds[name].shape for name in self._names["inputs"]})
                for name, buffer in zip(self._names["inputs"], self._buffers[0], strict=True):
                    buffer.write(_bytes(feeds[name]))
                self._model.run_by_index(0, *self._buffers)
                found = dict(zip(self._names["outputs"], self._buffers[1], strict=True))
                return {spec.name: _read(found[spec.name], spec) for spec in self.outputs}
            except Exception as error:
                raise EngineError(
                    f"LiteRT failed while running the file: {_first_line(error)}"
                ) from error

    def _resize(self, shapes: dict[str, tuple[int, ...]]) -> None:
        if shapes == self._shapes:
            return
        before, self._shapes = self._shapes, {}
        for position, (name, shape) in enumerate(shapes.items()):
            spec = next(spec for spec in self.inputs if spec.name == name)
            if spec.shape != shape and before.get(name) != shape:
                self._model.resize_input_tensor(position, shape)  # refuses a size that is fixed
        self._buffers = self._model.create_input_buffers(0), self._model.create_output_buffers(0)
        self._shapes = shapes


def _bytes(array: Array) -> Array:
    """An array as bytes: LiteRT's buffers take these for every type, and few types by name."""
    return np.ascontiguousarray(array).reshape(-1).view(np.int8)


def _read(buffer: Any, spec: TensorSpec) -> Array:
    shape = buffer.get_tensor_details()["shape"]
    dtype = np.dtype(spec.dtype)
    count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    array: Array = buffer.read(count, np.int8).view(dtype).reshape(shape)
    return array


@cache
def _environment() -> Any:
    """LiteRT's own, one per process; it looks for no accelerators and compilers of vendors."""
    from ai_edge_litert.environment import Environment, EnvironmentOptions

    nowhere = str(Path(__file__).parent)
    return Environment.create(
        options=EnvironmentOptions(
            runtime_path=nowhere, compiler_plugin_path=nowhere, dispatch_library_path=nowhere
        )
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
