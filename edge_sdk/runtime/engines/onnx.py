"""ONNX Runtime: opens a graph by its path, so that weights are mapped and not copied.

Engine options (:attr:`SessionOptions.options`) are ONNX Runtime's own names:
``session.…``, ``mlas.…`` and the like become session configuration entries;
``<Name>ExecutionProvider.key`` becomes an option of that provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import EngineError, MissingEngineError
from edge_sdk.runtime import process
from edge_sdk.runtime.engine import Compilation, SessionOptions
from edge_sdk.runtime.engines import tensorrt

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Array, Feeds, Outputs

CPU = "CPUExecutionProvider"
EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"
# ONNX Runtime reports failures by exception as well; its log would say them twice on stderr.
FATAL_ONLY = 4
# Idle threads spin, ready for the next call, here for longer than what lies between two tokens.
# By default it is some 40 ms, also after loading, on a core that others could use.
SPIN = {"session.intra_op.spin_duration_us": "5000"}
# ONNX Runtime's element types whose numpy name differs.
NUMPY_NAMES = {"float": "float32", "double": "float64"}


class OnnxEngine:
    """Opens ONNX graphs with ONNX Runtime."""

    name: ClassVar[str] = "onnx"
    formats: ClassVar[tuple[str, ...]] = ("onnx",)

    def version(self) -> str | None:
        """Version of the installed onnxruntime, or ``None`` where there is none."""
        if find_spec("onnxruntime") is None:
            return None
        import onnxruntime

        version: str = onnxruntime.__version__
        return version

    def open(self, graph: Path, options: SessionOptions) -> OnnxSession:
        """Opens a graph file; its external data are files beside it, and are mapped.

        Providers that are not available here are left out and named in the
        session's ``notes``; the CPU provider always comes last.

        Raises:
            MissingEngineError: onnxruntime is not installed.
            EngineError: onnxruntime refused the graph or an option.
        """
        return self._open(str(graph), str(graph), options, {})

    def compilation(self, options: SessionOptions) -> Compilation | None:
        """An engine of TensorRT, where its provider was asked for and is here."""
        if tensorrt.PROVIDER not in options.providers or find_spec("onnxruntime") is None:
            return None
        import onnxruntime

        if tensorrt.PROVIDER not in onnxruntime.get_available_providers():
            return None
        return tensorrt.compilation(options, onnxruntime.__version__)

    def compile(
        self, graph: Path, options: SessionOptions, folder: Path, calls: Sequence[Feeds]
    ) -> None:
        """Builds TensorRT's engine of a graph into ``folder``.

        Raises:
            EngineError: TensorRT is not in use, or failed.
        """
        session = self.open(graph, tensorrt.building(options, folder))
        for feeds in calls:  # without ranges of shapes, engines are built at the first call
            session.run(feeds)
        if tensorrt.PROVIDER not in session.providers:
            raise EngineError("ONNX Runtime could not load TensorRT", where=str(graph))
        del session  # what it leaves behind may be written as late as now
        if not tensorrt.is_built(folder):
            raise EngineError("TensorRT took no part of the graph", where=str(graph))

    def open_compiled(self, graph: Path, options: SessionOptions, folder: Path) -> OnnxSession:
        """Opens a graph with the engine that :meth:`compile` built.

        Raises:
            EngineError: TensorRT is not in use, or refused the engine.
        """
        session = self.open(*tensorrt.built(graph, options, folder))
        if tensorrt.PROVIDER not in session.providers:
            raise EngineError("ONNX Runtime could not load TensorRT", where=str(graph))
        return session

    def open_bytes(self, model: bytes, folder: Path, options: SessionOptions) -> OnnxSession:
        """Opens a graph held in memory; its external data are found relative to ``folder``.

        Raises:
            MissingEngineError: onnxruntime is not installed.
            EngineError: onnxruntime refused the graph or an option.
        """
        return self._open(model, f"graph over {folder}", options, {EXTERNAL_DATA: str(folder)})

    def _open(
        self, model: str | bytes, where: str, options: SessionOptions, extra: Mapping[str, str]
    ) -> OnnxSession:
        if find_spec("onnxruntime") is None:
            raise MissingEngineError(
                "this variant runs on ONNX Runtime, which is not installed",
                remedy="pip install 'edge-sdk[onnx]', or the build of your board's vendor "
                "(onnxruntime-gpu on a Jetson), which that extra would overwrite",
            )
        import onnxruntime

        config, provider_options = split_options(options.options)
        providers, notes = choose_providers(
            options.providers, onnxruntime.get_available_providers()
        )
        try:
            session = onnxruntime.InferenceSession(
                model,
                sess_options=native_options(onnxruntime, options, config | dict(extra)),
                providers=[(name, provider_options.get(name, {})) for name in providers],
            )
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime {onnxruntime.__version__} cannot open the graph: {error}",
                where=where,
            ) from error
        return OnnxSession(session, notes)


class OnnxSession:
    """One graph opened by ONNX Runtime. Safe to call from several threads.

    Attributes:
        notes: What differs from what was asked for (providers that are not here).
        shares_weights: Another session over the same weights takes little memory.
        tables: Where files are mapped, for as long as the session is open, of which a call
            reads few rows.
    """

    def __init__(self, session: Any, notes: tuple[str, ...] = ()) -> None:
        self._session = session
        self.notes = notes
        self.shares_weights = False
        self.tables: tuple[tuple[int, int], ...] = ()
        self._inputs = tuple(tensor_spec(node) for node in session.get_inputs())
        self._outputs = tuple(tensor_spec(node) for node in session.get_outputs())
        self._output_names = [spec.name for spec in self._outputs]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Graph inputs in order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Graph outputs in order."""
        return self._outputs

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers in use, in order of preference."""
        return tuple(self._session.get_providers())

    def run(self, feeds: Feeds) -> Outputs:
        """Runs the graph once; outputs come by name, in the graph's order.

        Raises:
            EngineError: ONNX Runtime failed; the message is its own.
        """
        try:
            values = self._session.run(self._output_names, feeds)
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed while running the graph: {error}") from error
        return dict(zip(self._output_names, values, strict=True))

    def rest(self) -> None:
        """Takes rows of tables that were read out of memory; they are mapped again when read."""
        process.leave(self.tables)

    def bind(self) -> OnnxBinding:
        """A call over buffers of the caller, with nothing bound yet."""
        return OnnxBinding(self._session)


class OnnxBinding:
    """A call over buffers in host memory, by their address. For one thread."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._arrays: dict[str, Array] = {}  # ONNX Runtime keeps addresses only

    def set_input(self, name: str, array: Array) -> None:
        """Reads an input from this C-contiguous array from now on."""
        self._set(self._binding.bind_input, name, array)

    def set_output(self, name: str, array: Array) -> None:
        """Writes an output into this C-contiguous array from now on."""
        self._set(self._binding.bind_output, name, array)

    def run(self) -> None:
        """Runs the graph once on what is bound.

        Raises:
            EngineError: ONNX Runtime failed; the message is its own.
        """
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed while running the graph: {error}") from error

    def _set(self, bind: Callable[..., None], name: str, array: Array) -> None:
        bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._arrays[name] = array


def split_options(
    options: Mapping[str, str],
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Sorts engine options into session configuration entries and options per provider.

    Raises:
        EngineError: A key without a prefix; ONNX Runtime would ignore it silently.
    """
    config: dict[str, str] = {}
    providers: dict[str, dict[str, str]] = {}
    for key, value in options.items():
        prefix, dot, rest = key.partition(".")
        if not dot:
            raise EngineError(
                f"unknown engine option {key!r}",
                where="engine.options",
                remedy="write session.<entry> or <Name>ExecutionProvider.<option>",
            )
        if prefix.endswith("ExecutionProvider"):
            providers.setdefault(prefix, {})[rest] = value
        else:
            config[key] = value
    return config, providers


def choose_providers(
    wanted: tuple[str, ...], available: list[str]
) -> tuple[list[str], tuple[str, ...]]:
    """The wanted providers that are available, CPU last, and a note for each that is not."""
    chosen = [name for name in wanted if name in available and name != CPU]
    missing = [name for name in wanted if name not in available and name != CPU]
    notes = (f"{name} is not available here; continuing without it" for name in missing)
    return [*chosen, CPU], tuple(notes)


def tensor_spec(node: Any) -> TensorSpec:
    """Name, numpy dtype name and shape of one of a session's inputs or outputs.

    Sequences, maps and optionals keep ONNX Runtime's type (``seq(tensor(float))``)
    as their dtype and have no shape.
    """
    kind: str = node.type
    if not kind.startswith("tensor("):
        return TensorSpec(name=node.name, dtype=kind, shape=None)
    element = kind[len("tensor(") : -1]
    # An unnamed dimension is None; every one is free, so each gets a name of its own.
    shape = tuple(
        f"{node.name}_{axis}" if size is None else size for axis, size in enumerate(node.shape)
    )
    return TensorSpec(name=node.name, dtype=NUMPY_NAMES.get(element, element), shape=shape)


def native_options(onnxruntime: Any, options: SessionOptions, config: Mapping[str, str]) -> Any:
    """ONNX Runtime's own options object."""
    native = onnxruntime.SessionOptions()
    native.log_severity_level = FATAL_ONLY
    native.intra_op_num_threads = options.threads
    native.inter_op_num_threads = 1
    if not options.optimize:
        native.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not options.arena:
        native.enable_cpu_mem_arena = False
        native.enable_mem_pattern = False
    for key, value in (SPIN | dict(config)).items():
        native.add_session_config_entry(key, value)
    return native
