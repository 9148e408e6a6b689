"""LiteRT (TensorFlow Lite): maps a ``.tflite`` file and runs it, by default with XNNPACK.

The library is ``ai_edge_litert`` or, on boards that have only that, ``tflite_runtime``.
Engine options (:attr:`SessionOptions.options`):

=================  =================================================================
``resolver``       ``auto`` (by default), or ``reference``: kernels written for
                   clarity, the oracle of the optimized ones
``delegate``       shared library that takes over what it can, such as an Edge TPU's
``delegate.KEY``   option of that library
``weight_cache``   ``auto`` (by default), ``always`` or ``never``: whether packed weights
                   are kept in a file that sessions share (:mod:`edge_sdk.runtime.prepared`);
                   ``auto`` does so from 32 MiB on
=================  =================================================================
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import EngineError, MissingEngineError
from edge_sdk.runtime import process
from edge_sdk.runtime.engine import SessionOptions

if TYPE_CHECKING:
    from edge_sdk.runtime.engine import Feeds, Outputs

    Named = tuple[str, Mapping[str, Any]]

LIBRARIES = ("ai_edge_litert", "tflite_runtime")
DELEGATE = "delegate"
RESOLVER = "resolver"
WEIGHT_CACHE = "weight_cache"
WEIGHT_CACHES = ("auto", "always", "never")
RESOLVERS = {"auto": "AUTO", "reference": "BUILTIN_REF"}
# Neither XNNPACK nor another delegate that the library applies by itself.
PLAIN = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"

# What LiteRT tells of itself on stderr, line by line.
CHATTER = (b"INFO: ", b"WARNING: [")

_opening = Lock()  # so that what is mapped meanwhile is known to be one's own
_redirecting = Lock()


class LiteRtEngine:
    """Opens ``.tflite`` files with LiteRT."""

    name: ClassVar[str] = "litert"
    formats: ClassVar[tuple[str, ...]] = ("tflite",)

    def version(self) -> str | None:
        """Version of the installed library, or ``None`` where there is none."""
        library = _library()
        if library is None:
            return None
        version: str = import_module(library).__version__
        return version

    def open(self, graph: Path, options: SessionOptions) -> LiteRtSession:
        """Opens a file, which stays mapped.

        A delegate that is not here is left out and named in the session's ``notes``.

        Raises:
            MissingEngineError: Neither library is installed.
            EngineError: The library refused the file, or an option is unknown.
        """
        library = _library()
        if library is None:
            raise MissingEngineError(
                "this variant runs on LiteRT, which is not installed",
                remedy="pip install 'edge-sdk[litert]', or the build of your board's vendor "
                "(tflite-runtime needs numpy below 2 and Python below 3.12)",
            )
        delegate = check_options(options.options)
        native = import_module(f"{library}.interpreter")
        try:
            interpreter, notes = _opened(native, graph, options, delegate)
            file = os.open(graph, os.O_RDONLY)  # which may lose its name while the session lives
        except Exception as error:
            raise EngineError(
                f"{library} {self.version()} cannot open the file: {error}", where=str(graph)
            ) from error
        again = partial(_opened, native, Path(f"/proc/self/fd/{file}"), options, delegate)
        session = LiteRtSession(interpreter, tuple(notes), lambda: again()[0])
        weakref.finalize(session, os.close, file)
        return session


class LiteRtSession:
    """One file opened by LiteRT. Safe to call from several threads, which take turns.

    A call that fails leaves the interpreter in a state that can end the process at a later
    one (XNNPACK, at sizes that it refuses); so it is replaced before the next call.

    Args:
        interpreter: The file, opened.
        notes: What differs from what was asked for (a delegate that is not here).
        again: Opens the file once more.
    """

    def __init__(self, interpreter: Any, notes: tuple[str, ...], again: Callable[[], Any]) -> None:
        self.notes = notes
        self._interpreter = interpreter
        self._again = again
        self._failed = False
        self._lock = Lock()  # an interpreter has one set of buffers
        inputs, outputs = _named(interpreter)
        self._inputs = {name: detail["index"] for name, detail in inputs}
        self._outputs = {name: detail["index"] for name, detail in outputs}
        self._input_specs = tuple(tensor_spec(*item) for item in inputs)
        self._output_specs = tuple(tensor_spec(*item) for item in outputs)
        self._shapes: dict[str, tuple[int, ...]] = {}  # of the call before

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs in the file's order, named as its signature does."""
        return self._input_specs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs in the file's order, named as its signature does."""
        return self._output_specs

    def run(self, feeds: Feeds) -> Outputs:
        """Runs the graph once; outputs come by name, in the file's order.

        What a recurrent layer keeps between calls inside the file is cleared before.

        Raises:
            EngineError: LiteRT failed, or an input does not fit; the message is its own.
        """
        absent = self._inputs.keys() - feeds.keys()
        if absent or feeds.keys() - self._inputs.keys():
            raise EngineError(
                f"inputs are {', '.join(self._inputs)}, and not {', '.join(feeds)}", where="feeds"
            )
        with self._lock:
            try:
                if self._failed:
                    self._interpreter, self._shapes = self._again(), {}
                self._failed = True  # until it has not
                self._resize({name: feeds[name].shape for name in self._inputs})
                for name, index in self._inputs.items():
                    self._interpreter.set_tensor(index, feeds[name])
                self._interpreter.invoke()
                self._failed = False
                return {n: self._result(i) for n, i in self._outputs.items()}
            except Exception as error:
                raise EngineError(f"LiteRT failed while running the file: {error}") from error

    def _result(self, index: int) -> Any:
        from numpy import asarray, zeros

        try:
            return asarray(self._interpreter.get_tensor(index))  # it gives scalars as numbers
        except ValueError:  # it refuses those without elements, as a search without hits gives
            details = self._interpreter.get_output_details()
            found = next(detail for detail in details if detail["index"] == index)
            if found["shape"].all():
                raise
            return zeros(found["shape"], found["dtype"])

    def _resize(self, shapes: dict[str, tuple[int, ...]]) -> None:
        """Fits the interpreter to these inputs: microseconds, and weights stay packed."""
        if shapes == self._shapes:
            self._interpreter.reset_all_variables()
            return
        for name, shape in shapes.items():
            self._interpreter.resize_tensor_input(self._inputs[name], shape, strict=True)
        self._interpreter.allocate_tensors()  # which resets variables
        self._shapes = shapes


def check_options(options: Mapping[str, str]) -> dict[str, str]:
    """The delegate's own options among an engine's.

    Raises:
        EngineError: An option or a value that this engine does not know.
    """
    delegate = {}
    known: dict[str, Collection[str]] = {RESOLVER: RESOLVERS, WEIGHT_CACHE: WEIGHT_CACHES}
    for key, value in options.items():
        if key.startswith(f"{DELEGATE}."):
            delegate[key.partition(".")[2]] = value
        elif key != DELEGATE and value not in known.get(key, ()):
            choices = (f"{name} = {' | '.join(values)}" for name, values in known.items())
            raise EngineError(
                f"unknown engine option {key} = {value!r}",
                where="engine.options",
                remedy=f"write {DELEGATE}, {DELEGATE}.KEY, {', or '.join(choices)}",
            )
    return delegate


def tensor_spec(name: str, detail: Mapping[str, Any]) -> TensorSpec:
    """Name, numpy dtype name and shape from what the interpreter says of a tensor."""
    import numpy as np

    dtype = np.dtype(detail["dtype"])
    signature = detail["shape_signature"]
    sizes = signature if len(signature) else detail["shape"]
    # Every free dimension gets a name of its own.
    shape = tuple(f"{name}_{axis}" if size < 0 else int(size) for axis, size in enumerate(sizes))
    return TensorSpec(name=name, dtype="string" if dtype.kind in "SO" else dtype.name, shape=shape)


@contextmanager
def opening(graph: Path) -> Iterator[None]:
    """Gives back the pages of a file that was mapped in the block: packed copies stand in.

    And code: what started Python and imported, what packs weights.
    """
    with _opening:
        mapped = process.mappings(graph)
        process.drop_code()
        yield
        process.drop_code()
        process.drop_pages(graph, process.mappings(graph) - mapped)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what LiteRT tells of itself off stderr; other lines come after the block."""
    with _redirecting, os.fdopen(os.memfd_create("stderr"), "w+b") as kept:
        try:
            stderr = os.dup(2)
        except OSError:  # a daemon may have closed it
            yield
            return
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            kept.seek(0)
            os.write(2, b"".join(line for line in kept if not line.startswith(CHATTER)))


def _library() -> str | None:
    return next((name for name in LIBRARIES if find_spec(name)), None)


def _opened(
    native: Any, graph: Path, options: SessionOptions, delegate: Mapping[str, str]
) -> tuple[Any, list[str]]:
    """An interpreter with the delegate, or else without it and with a note."""
    with opening(graph), quiet():
        return _with_delegate(native, graph, options, delegate)


def _with_delegate(
    native: Any, graph: Path, options: SessionOptions, delegate: Mapping[str, str]
) -> tuple[Any, list[str]]:
    path = options.options.get(DELEGATE)
    if path is None:
        return _interpreter(native, graph, options), []
    try:
        if not hasattr(ctypes.CDLL(path), "tflite_plugin_create_delegate"):
            raise OSError("no delegate of LiteRT")
        return _interpreter(native, graph, options, [native.load_delegate(path, delegate)]), []
    except (OSError, ValueError, RuntimeError) as error:
        # Absent, in want of its device, of another version, or no delegate at all.
        note = f"the delegate {path} is left out, the CPU does its work: {error}"
        return _interpreter(native, graph, options), [note]


def _interpreter(
    native: Any, graph: Path, options: SessionOptions, delegates: Sequence[Any] = ()
) -> Any:
    resolver = RESOLVERS[options.options.get(RESOLVER, "auto")]
    if resolver == "AUTO" and not options.optimize:
        resolver = PLAIN
    interpreter = native.Interpreter(
        model_path=str(graph),
        num_threads=options.threads or None,
        experimental_delegates=list(delegates),
        experimental_op_resolver_type=native.OpResolverType[resolver],
    )
    process.drop_code()  # what registers kernels lies beside all of them
    try:
        interpreter.allocate_tensors()
    except RuntimeError:
        details = interpreter.get_input_details()
        if all(min(detail["shape_signature"], default=0) >= 0 for detail in details):
            raise
        # The ones that the file has for free dimensions may be too few: a call will say.
    return interpreter


def _named(interpreter: Any) -> tuple[list[Named], list[Named]]:
    """Inputs and outputs, named as a signature over the main graph does if the file has one.

    A file without signatures has the names of its tensors.
    """
    sides = interpreter.get_input_details(), interpreter.get_output_details()
    orders = [[_identity(detail) for detail in side] for side in sides]
    for key in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(key)
        found = list(runner.get_input_details().items()), list(runner.get_output_details().items())
        if all(
            {_identity(detail) for _, detail in side} == set(order)
            for side, order in zip(found, orders, strict=True)
        ):
            inputs, outputs = (
                sorted(side, key=lambda item: order.index(_identity(item[1])))
                for side, order in zip(found, orders, strict=True)
            )
            return inputs, outputs
    inputs, outputs = ([(detail["name"], detail) for detail in side] for side in sides)
    return inputs, outputs


def _identity(detail: Mapping[str, Any]) -> tuple[int, str]:
    """Tells a tensor from those of other subgraphs."""
    return detail["index"], detail["name"]
