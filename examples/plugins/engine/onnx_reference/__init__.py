"""An engine that runs ONNX graphs with ONNX's own reference evaluator: no native code, slow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import EngineError, MissingEngineError
from edge_sdk.runtime.engine import SessionOptions

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Feeds, Outputs

PROFILES = Path(__file__).parent


class ReferenceEngine:
    """Opens ONNX graphs of standard operators with ``onnx.reference``."""

    name: ClassVar[str] = "onnx-reference"
    formats: ClassVar[tuple[str, ...]] = ("onnx",)

    def version(self) -> str | None:
        """Version of the installed onnx, or ``None`` where there is none."""
        with suppress(PackageNotFoundError):
            return version("onnx")
        return None

    def open(self, graph: Path, options: SessionOptions) -> ReferenceSession:
        """Opens a graph; it has no threads, providers or options to choose.

        Raises:
            MissingEngineError: onnx is not installed.
            EngineError: onnx refused the graph.
        """
        if self.version() is None:
            raise MissingEngineError("onnx is not installed", remedy="pip install onnx")
        import onnx
        from onnx.reference import ReferenceEvaluator

        try:
            model = onnx.load(graph)
            return ReferenceSession(ReferenceEvaluator(model), model.graph)
        except Exception as error:
            raise EngineError(f"onnx.reference: {error}", where=str(graph)) from error


class ReferenceSession:
    """One graph opened by the reference evaluator."""

    def __init__(self, evaluator: Any, graph: Any) -> None:
        self._evaluator = evaluator
        self._lock = Lock()  # sessions are called from several threads; the evaluator says nothing
        self.inputs = _specs(graph.input)
        self.outputs = _specs(graph.output)
        self.notes: tuple[str, ...] = ()

    def run(self, feeds: Feeds) -> Outputs:
        """Runs the graph once.

        Raises:
            EngineError: An operator failed.
        """
        try:
            with self._lock:
                values = self._evaluator.run(None, dict(feeds))
        except Exception as error:
            raise EngineError(f"onnx.reference: {error}") from error
        return dict(zip((spec.name for spec in self.outputs), values, strict=True))


def _specs(values: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name=value.name, dtype=_dtype(value), shape=_shape(value)) for value in values
    )


def _dtype(value: Any) -> str:
    from onnx.helper import tensor_dtype_to_np_dtype

    dtype = tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return "string" if dtype.hasobject else dtype.name


def _shape(value: Any) -> tuple[int | str, ...]:
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or f"{value.name}_{axis}"
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
    )
