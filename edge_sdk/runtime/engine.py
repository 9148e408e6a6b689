"""The seam to inference engines: one protocol, found by name.

An engine opens one graph file and gives a session that runs it. Engines are
entry points of the group ``edge_sdk.engines``, so that another vendor's NPU is
a package with an engine and a profile, not a fork. Engine modules are imported
on first use and import their library lazily.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import MissingEngineError
from edge_sdk.plugins import load_plugin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Feeds = Mapping[str, Array]
    Outputs = dict[str, Array]


@dataclass(frozen=True)
class SessionOptions:
    """How a session is to be opened.

    Attributes:
        threads: Intra-op threads; 0 lets the engine decide.
        providers: Execution providers in order of preference; empty means the engine's default.
        options: Engine-specific options, passed through.
        optimize: Whether the engine may optimize the graph (all levels).
        arena: Whether the engine may keep a growing memory arena (faster, larger RSS).
    """

    threads: int = 1
    providers: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    optimize: bool = True
    arena: bool = True


class Session(Protocol):
    """One loaded graph, ready to run. Safe to call from several threads."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Graph inputs in order."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Graph outputs in order."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What differs from what was asked for (a provider that is not here)."""

    def run(self, feeds: Feeds) -> Outputs:
        """Runs the graph once.

        Args:
            feeds: Input name -> array with the graph's dtype and rank.

        Returns:
            Output name -> array.

        Raises:
            EngineError: The engine failed; the message is the engine's own.
        """


class Binding(Protocol):
    """A call over buffers of the caller: nothing is copied in or out. For one thread.

    An input and an output may be the same buffer where the graph updates it in
    place. The binding keeps the arrays alive.
    """

    def set_input(self, name: str, array: Array) -> None:
        """Reads an input from this C-contiguous array from now on, whatever it then holds."""

    def set_output(self, name: str, array: Array) -> None:
        """Writes an output into this C-contiguous array from now on."""

    def run(self) -> None:
        """Runs the graph once on what is bound.

        Raises:
            EngineError: The engine failed; the message is the engine's own.
        """


@runtime_checkable
class RestingSession(Protocol):
    """A session that can do with less memory until it is run again."""

    def rest(self) -> None:
        """Gives memory back that the next call takes again. Not while a call is running."""


@runtime_checkable
class BindableSession(Session, Protocol):
    """A session that can also run over buffers of the caller, as decoders need it."""

    @property
    def shares_weights(self) -> bool:
        """Whether another session over the same weights takes little memory."""

    def bind(self) -> Binding:
        """A call with nothing bound yet; a session may have any number of them."""


@runtime_checkable
class BackgroundSession(Session, Protocol):
    """A session beside which something goes on, to change how it serves."""

    settled: Event

    def close(self) -> None:
        """Ends what goes on."""


class Engine(Protocol):
    """Opens graphs of some formats."""

    name: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]

    def version(self) -> str | None:
        """Version of the installed engine library, or ``None`` where it is absent."""

    def open(self, graph: Path, options: SessionOptions) -> Session:
        """Opens a graph file; external data are files beside it.

        Raises:
            MissingEngineError: The library is not installed.
            EngineError: The engine refused the graph.
        """


@dataclass(frozen=True)
class Compilation:
    """What an engine has to do once on a device, before it runs as fast as it can.

    Attributes:
        identity: What the result depends on beside graph and options: versions of the
            compiler and its drivers, the accelerator.
        meanwhile: Options of a session that runs at once, without what is to be compiled.
        budget_s: Seconds that it may take.
    """

    identity: Mapping[str, str]
    meanwhile: SessionOptions
    budget_s: float


@runtime_checkable
class CompilingEngine(Engine, Protocol):
    """An engine that compiles graphs on the device, for minutes or with options only."""

    def compilation(self, options: SessionOptions) -> Compilation | None:
        """What is to be compiled for a session with these options; ``None`` if nothing is."""

    def compile(
        self, graph: Path, options: SessionOptions, folder: Path, calls: Sequence[Feeds]
    ) -> None:
        """Compiles a graph; runs in a process of its own, which may be killed at any time.

        Args:
            graph: The graph file.
            options: Those of the sessions that will use the result.
            folder: An empty folder for the result.
            calls: Inputs as they will come.

        Raises:
            EngineError: It cannot be compiled.
        """

    def open_compiled(self, graph: Path, options: SessionOptions, folder: Path) -> Session:
        """Opens what :meth:`compile` has left in ``folder``.

        Raises:
            EngineError: It cannot be opened.
        """


def find_engine(name: str) -> Engine:
    """The engine of that name; its library may be absent, and no other engine is imported.

    Raises:
        MissingEngineError: No such engine is registered here, or it cannot be imported.
    """
    if name == "onnx":  # ours; to look through all installed packages takes a while
        from edge_sdk.runtime.engines.onnx import OnnxEngine

        return OnnxEngine()
    if name == "litert":
        from edge_sdk.runtime.engines.litert import LiteRtEngine

        return LiteRtEngine()
    from importlib.metadata import entry_points

    registered = entry_points(group="edge_sdk.engines")
    if name not in registered.names:
        raise MissingEngineError(
            f"no engine {name!r} here; registered are: {', '.join(sorted(registered.names))}",
            remedy="install the package that provides this engine",
        )
    engine: Engine = load_plugin(registered[name], MissingEngineError)()
    return engine
