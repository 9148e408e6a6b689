"""One or more graphs plus wiring, run as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edge_sdk.bundle.record import TensorSpec, VariantRecord, Wire
from edge_sdk.errors import BundleError
from edge_sdk.runtime.engine import BackgroundSession, Session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_sdk.runtime.engine import Feeds, Outputs

Port = tuple[str, str]  # graph, output


class Runner(Protocol):
    """What a loaded variant's calls go through, whatever kind it is."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the caller feeds."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the caller gets."""

    @property
    def sessions(self) -> Mapping[str, Session]:
        """Graph name -> session, for the self-test."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Where this machine differs from what was asked for."""

    def run(self, feeds: Feeds) -> Outputs:
        """Runs the variant once on checked inputs."""

    def close(self) -> None:
        """Lets go of what would outlive the last reference to this."""


@dataclass(frozen=True)
class Stage:
    """One graph at its place in the order.

    Attributes:
        graph: Its name.
        fed: Inputs that the caller feeds.
        wires: Edges that feed its other inputs from earlier graphs.
        visible: Outputs that reach the caller.
        done: Outputs of earlier graphs that no later graph needs.
    """

    graph: str
    fed: tuple[str, ...]
    wires: tuple[Wire, ...]
    visible: tuple[str, ...]
    done: tuple[Port, ...]


class Pipeline:
    """Sessions of all graphs of a variant, run in the record's order.

    Args:
        record: The variant.
        sessions: Graph name -> session.

    Raises:
        BundleError: The wiring does not fit the graphs.
    """

    def __init__(self, record: VariantRecord, sessions: Mapping[str, Session]) -> None:
        self.sessions: Mapping[str, Session] = dict(sessions)
        self.inputs: tuple[TensorSpec, ...] = caller_inputs(record)
        self.outputs: tuple[TensorSpec, ...] = record.outputs
        self._stages = stages(record)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of all sessions, each once."""
        return tuple(dict.fromkeys(note for s in self.sessions.values() for note in s.notes))

    def run(self, feeds: Feeds) -> Outputs:
        """Runs all graphs once, each on the caller's feeds and the earlier graphs' outputs.

        Intermediate values are dropped after their last use.
        """
        if len(self._stages) == 1:
            return self.sessions[self._stages[0].graph].run(feeds)
        outputs: Outputs = {}
        between: dict[Port, NDArray[np.generic]] = {}
        for stage in self._stages:
            inputs = {name: feeds[name] for name in stage.fed if name in feeds}
            for wire in stage.wires:
                inputs[wire.input] = between[wire.source_graph, wire.output]
            for port in stage.done:
                del between[port]
            for name, value in self.sessions[stage.graph].run(inputs).items():
                if name in stage.visible:
                    outputs[name] = value
                else:
                    between[stage.graph, name] = value
        return outputs

    def close(self) -> None:
        """Ends what goes on beside the sessions; they end with the last run that uses them."""
        for session in self.sessions.values():
            if isinstance(session, BackgroundSession):
                session.close()


def stages(record: VariantRecord) -> tuple[Stage, ...]:
    """The order in which a variant's graphs run, and what flows between them.

    Raises:
        BundleError: A wire comes from no earlier graph's output, or ends at no input;
            or two graphs give the caller an output of the same name.
    """
    _check_wiring(record)
    last_use = {
        (wire.source_graph, wire.output): graph.name
        for graph in record.graphs
        for wire in record.wiring
        if wire.target_graph == graph.name
    }
    found = []
    for graph in record.graphs:
        wires = tuple(wire for wire in record.wiring if wire.target_graph == graph.name)
        wired = {wire.input for wire in wires}
        found.append(
            Stage(
                graph=graph.name,
                fed=tuple(spec.name for spec in graph.inputs if spec.name not in wired),
                wires=wires,
                visible=tuple(
                    s.name for s in graph.outputs if (graph.name, s.name) not in last_use
                ),
                done=tuple(port for port, user in last_use.items() if user == graph.name),
            )
        )
    return tuple(found)


def caller_inputs(record: VariantRecord) -> tuple[TensorSpec, ...]:
    """What the caller feeds: an input that several graphs share once, states optional."""
    states = {state.input for state in record.states}
    specs: dict[str, TensorSpec] = {}
    for spec in record.inputs:
        required = spec.required and spec.name not in states
        first = specs.setdefault(
            spec.name,
            TensorSpec(name=spec.name, dtype=spec.dtype, shape=spec.shape, required=required),
        )
        if first.dtype != spec.dtype:
            raise BundleError(
                f"graphs disagree on its dtype: {first.dtype} and {spec.dtype}",
                where=f"input {spec.name!r}",
            )
    return tuple(specs.values())


def _check_wiring(record: VariantRecord) -> None:
    seen: set[Port] = set()
    for graph in record.graphs:
        names = {spec.name for spec in graph.inputs}
        for wire in record.wiring:
            if wire.target_graph != graph.name:
                continue
            if (wire.source_graph, wire.output) not in seen or wire.input not in names:
                raise BundleError(
                    "does not lead from an earlier graph's output to an input of this graph",
                    where=f"wire {wire.source_graph}.{wire.output} -> {graph.name}.{wire.input}",
                )
        seen |= {(graph.name, spec.name) for spec in graph.outputs}
    outputs = [spec.name for spec in record.outputs]
    twice = {name for name in outputs if outputs.count(name) > 1}
    if twice:
        raise BundleError("several graphs have this output", where=f"output {min(twice)!r}")
