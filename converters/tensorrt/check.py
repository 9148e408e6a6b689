"""A graph before TensorRT's own parser and builder, on a machine without a GPU.

The toolchain ``tensorrt-rtx`` has both. What it accepts, the TensorRT of a Jetson is
expected to accept; what it rejects would run beside TensorRT at best, so that such a
candidate is rejected here, by node, operator and reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import onnx_ir as ir

from converters import toolchains
from converters.passes.graph_tools import subgraphs
from converters.tensorrt.options import uses_tensorrt, workspace
from converters.tensorrt.shapes import ShapeProfile
from converters.tensorrt.toolchain import TENSORRT_RTX
from converters.workshop import Built
from device_profiles.schema import Profile
from edge_sdk.errors import ConversionError, ToolchainError, UnsupportedOperatorError

GPU = "SM86"
TIMEOUT_S = 900.0
NOT_VERIFIED = f"not verified: edge-sdk toolchain install {TENSORRT_RTX.name}"
_OTHERWISE = (
    "convert for arm64, the board's CPU; or give a recipe by --recipe, which ships as it is: what "
    "TensorRT does not take then runs on CUDA or the CPU"
)
_FLOAT = f"give the float model that it was quantized from; else {_OTHERWISE}"
_REMEDY = f"replace it in the source by standard operators; else {_OTHERWISE}"

Say = Callable[[str], None]


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """A node that the parser does not take.

    Attributes:
        index: Its place in the graph; -1 for a graph input.
        node: Its name.
        op: Its operator.
        reason: The parser's own words.
    """

    index: int
    node: str
    op: str
    reason: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the toolchain found.

    Attributes:
        version: Of TensorRT for RTX.
        rejected: Nodes that are not accepted.
        seconds: What building the engine took.
        error: Why none could be built; empty if one was.
    """

    version: str
    rejected: tuple[Rejection, ...]
    seconds: float
    error: str


class Inspector:
    """Checks candidates of one conversion for one profile, each file once.

    Args:
        profile: The device.
        shapes: Ranges of the inputs with dynamic dimensions.
        say: Told what happens.
    """

    def __init__(self, profile: Profile, shapes: Mapping[str, ShapeProfile], say: Say) -> None:
        self._profile = profile
        self._shapes = shapes
        self._say = say
        self._found: dict[Path, str | ConversionError] = {}

    def objection(self, built: Built) -> ConversionError | None:
        """Why TensorRT cannot run a candidate; ``None`` where it can, or nothing is known."""
        found = self._check(built)
        return found if isinstance(found, ConversionError) else None

    def notes(self, built: Built) -> tuple[str, ...]:
        """What is known of a candidate and what is not, for the report."""
        found = self._check(built)
        return (str(found).partition("\n")[0],) if found else ()

    def _check(self, built: Built) -> str | ConversionError:
        engine = next((e for e in self._profile.engines if e.name == built.recipe.engine), None)
        if engine is None or not uses_tensorrt(engine):
            return ""
        if built.path not in self._found:
            self._say(f"{self._profile.name}: asking TensorRT about {built.recipe.name}")
            limit = workspace(self._profile)
            try:
                self._found[built.path] = check(built.path, self._shapes, limit)
            except ToolchainError as error:
                self._found[built.path] = f"not verified: {str(error).partition(chr(10))[0]}"
            except ConversionError as error:
                self._found[built.path] = error
        return self._found[built.path]


def check(graph: Path, shapes: Mapping[str, ShapeProfile], limit: int) -> str:
    """Verifies that TensorRT takes a graph as a whole and can build an engine of it.

    Args:
        graph: An ONNX file, its external data beside it.
        shapes: Ranges of the inputs with dynamic dimensions.
        limit: Bytes that a kernel may take.

    Returns:
        What was verified and what was not, in a sentence for the report.

    Raises:
        UnsupportedOperatorError: A node is rejected.
        ConversionError: All nodes are accepted, but no engine can be built.
        ToolchainError: The toolchain failed.
    """
    environment = toolchains.find(TENSORRT_RTX.name)
    if environment.state != "installed":
        return NOT_VERIFIED
    request = {
        "graph": str(graph),
        "profile": {name: vars(shape) for name, shape in shapes.items()},
        "target": GPU,
        "workspace": limit,
    }
    answer = msgspec.convert(
        environment.call("check", request, lambda step: None, timeout=TIMEOUT_S), Answer
    )
    model = ir.load(graph)
    nodes = model.graph.num_nodes()
    if answer.rejected:
        raise _rejection(answer, nodes)
    if answer.error:
        raise _unbuilt(answer, model)
    return (
        f"TensorRT-RTX {answer.version} accepts every node ({nodes}) and built an engine for {GPU} "
        f"in {answer.seconds:.1f} s; latency, the engine for the device's own GPU and what its "
        "kernels compute only the device can show"
    )


def _rejection(answer: Answer, nodes: int) -> UnsupportedOperatorError:
    named = [r for r in answer.rejected if r.op] or list(answer.rejected)
    first = named[0]
    share = 1 - len({r.index for r in named if r.index >= 0}) / max(nodes, 1)
    others = sorted({r.op for r in named[1:]} - {first.op})
    also = f"; {', '.join(others)} neither" if others else ""
    return UnsupportedOperatorError(
        first.op or "an input's type",
        first.node or "graph input",
        engine=f"TensorRT (RTX {answer.version} accepts {share:.1%} of {nodes} nodes)",
        reason=_plain(first.reason) + also,
        remedy=_FLOAT if "UINT8" in first.reason else _REMEDY,
    )


def _unbuilt(answer: Answer, model: ir.Model) -> ConversionError:
    missing = _without_kernel(answer.error, model)
    if missing is not None:
        return UnsupportedOperatorError(
            missing.op_type,
            missing.name or "",
            engine=f"TensorRT (RTX {answer.version})",
            reason="its parser takes the operator, but it has no kernel of it",
            remedy=_REMEDY,
        )
    branching = next((node for node in model.graph if subgraphs(node)), None)
    deciding = re.match("the value of input '(.+)' decides", answer.error)
    where, remedy = f"an engine for {GPU}", _REMEDY
    if deciding:
        remedy = f"fix it by --fix {deciding[1]}=VALUE; else {_OTHERWISE}"
    elif branching is not None:
        where = f"node {branching.name!r} ({branching.op_type})"
        remedy = (
            f"do without its {branching.op_type}: --fix the input that selects its branch, or "
            f"export the model without control flow; else {_OTHERWISE}"
        )
    return ConversionError(
        f"TensorRT-RTX {answer.version} accepts all {model.graph.num_nodes()} nodes, but cannot "
        f"build an engine: {_plain(answer.error)}",
        where=where,
        remedy=remedy,
    )


def _without_kernel(error: str, model: ir.Model) -> ir.Node | None:
    """The node of a layer without a kernel: layers are called after nodes or their results."""
    layer = re.search(r"(\S+?)(?:_\d+)? has no runners", error)
    if layer is None:
        return None
    names = {value.name: node for node in model.graph for value in node.outputs}
    return names.get(layer[1]) or next((n for n in model.graph if n.name == layer[1]), None)


def _plain(reason: str) -> str:
    """The parser's words without its source code: it reports failed assertions."""
    if "Plugin not found" in reason or reason == "false":
        return "TensorRT has no such operator"
    quoted = re.findall(r'"([^"]+)"', reason)
    if quoted:
        return str(quoted[-1]).rstrip(".")
    built = re.search(r"Error Code \d+: [\w ]+\((.*?)(?:\s+In \S+ at \S+)?\)(?:;|$)", reason)
    if built:
        return str(built[1]).rstrip(".")
    words = re.sub(r"^.*Assertion failed: (?:[\w.()>-]+: )?", "", reason)
    return " ".join(words.split()).rstrip(".")
