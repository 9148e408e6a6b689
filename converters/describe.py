"""What a graph is, read off the graph itself: signature, kind, task, recurrences.

Everything here is a guess that the user can override (``--task``, ``--state``);
a wrong guess costs speed or size, never correctness.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import onnx_ir as ir

from converters.dataset import Array
from converters.passes.base import each_graph
from device_profiles.schema import Kind
from edge_sdk.bundle.record import State, TensorSpec
from edge_sdk.errors import SourceError

_IMAGE_RANK = 4
_SEQUENCE_RANK = 3
_STATE_MARKS = {
    "in", "out", "input", "output", "new", "next", "prev", "previous", "past", "present",
    "final", "init", "initial", "updated", "last", "cur", "current", "old", "n", "t", "0", "1",
}  # fmt: skip


def tensor_spec(value: ir.Value, *, required: bool = True) -> TensorSpec:
    """Signature of a graph input or output; an unnamed dimension gets a name of its own."""
    name = value.name or ""
    if isinstance(value.type, ir.TensorType):
        dtype = "string" if value.dtype == ir.DataType.STRING else value.type.dtype.name.lower()
        dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    else:
        dtype = str(value.type).lower() if value.type else "unknown"
    if value.shape is None:
        return TensorSpec(name=name, dtype=dtype, shape=None, required=required)
    shape = tuple(_dimension(dim, f"{name}.{axis}") for axis, dim in enumerate(value.shape))
    return TensorSpec(name=name, dtype=dtype, shape=shape, required=required)


def _dimension(dim: int | ir.SymbolicDim, own_name: str) -> int | str:
    """A size, a symbol, or a name of its own for what exporters write for "unknown"."""
    if isinstance(dim, int):
        return dim if dim >= 0 else own_name
    return own_name if dim.value in (None, "", "?") else str(dim.value)


def graph_inputs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """Inputs in order; one that has a default (an initializer of its name) is not required."""
    return tuple(
        tensor_spec(value, required=value.name not in model.graph.initializers)
        for value in model.graph.inputs
    )


def graph_outputs(model: ir.Model) -> tuple[TensorSpec, ...]:
    """Outputs in order; one that the graph names twice is one output."""
    specs = {value.name: tensor_spec(value) for value in model.graph.outputs}
    return tuple(specs.values())


def kind_of(model: ir.Model) -> Kind:
    """``vision`` for 2-D convolutions over images, ``encoder`` for attention over tokens."""
    operators = {node.op_type for graph in each_graph(model.graph) for node in graph}
    ranks = {len(value.shape) for value in model.graph.inputs if value.shape is not None}
    if "Conv" in operators and _IMAGE_RANK in ranks:
        return "vision"
    attention = "Softmax" in operators and "MatMul" in operators
    if operators & {"Attention", "MultiHeadAttention"} or (attention and "Gather" in operators):
        return "encoder"
    return "generic"


def task_of(model: ir.Model, outputs: tuple[TensorSpec, ...]) -> str:
    """``feature-extraction``, ``classification`` or ``generic``, by the first output's shape."""
    first = outputs[0] if outputs else None
    if first is None or first.shape is None or not first.dtype.startswith("float"):
        return "generic"
    if kind_of(model) == "encoder" and len(first.shape) == _SEQUENCE_RANK:
        return "feature-extraction"
    classes = first.shape[1] if len(first.shape) == 2 else None
    return "classification" if isinstance(classes, int) and classes > 1 else "generic"


def find_states(model: ir.Model) -> tuple[State, ...]:
    """Pairs outputs with inputs that plainly are the same state.

    The names must be equal once marks such as ``in``, ``out``, ``past``, ``new``
    or a trailing ``n`` are gone, the types equal and the shapes compatible, and
    the match must be unique. A model has inputs beside its states: one that maps
    ``x`` to ``x_out`` and takes nothing else is no recurrence.
    """
    inputs: dict[str, list[ir.Value]] = {}
    for value in model.graph.inputs:
        inputs.setdefault(_stem(value.name or ""), []).append(value)
    states = []
    for output in model.graph.outputs:
        stem = _stem(output.name or "")
        matches = [value for value in inputs.get(stem, []) if stem and _fits(output, value)]
        if len(matches) == 1:
            states.append(State(input=matches[0].name or "", output=output.name or ""))
    bound = {state.input for state in states}
    given = {spec.name for spec in graph_inputs(model) if spec.required}
    return tuple(states) if len(bound) == len(states) and given - bound else ()


def check_states(model: ir.Model, states: tuple[State, ...]) -> tuple[State, ...]:
    """Checks recurrences the user named.

    Raises:
        SourceError: A name is no output or input of the graph, or their types differ.
    """
    inputs = {value.name: value for value in model.graph.inputs}
    outputs = {value.name: value for value in model.graph.outputs}
    for state in states:
        if state.output not in outputs or state.input not in inputs:
            raise SourceError(
                "names no output and input of the model",
                where=f"--state {state.output}={state.input}",
                remedy=f"its outputs are {', '.join(map(str, outputs))}; "
                f"its inputs are {', '.join(map(str, inputs))}",
            )
        if not _fits(outputs[state.output], inputs[state.input]):
            one, two = tensor_spec(outputs[state.output]), tensor_spec(inputs[state.input])
            raise SourceError(
                f"the output is {one.dtype} of shape {one.shape}, "
                f"the input is {two.dtype} of shape {two.shape}",
                where=f"--state {state.output}={state.input}",
                remedy="bind an output to an input of the same type and shape",
            )
    return states


def fixed_values(model: ir.Model, fixed: Mapping[str, float]) -> dict[str, Array]:
    """The arrays of scalar inputs that the user fixed.

    Raises:
        SourceError: A name is no scalar input of the graph, or the value is not of its type.
    """
    scalars = {
        spec.name: spec
        for spec in graph_inputs(model)
        if spec.dtype != "string" and spec.shape is not None and set(spec.shape) <= {1}
    }
    unknown = sorted(fixed.keys() - scalars.keys())
    if unknown:
        raise SourceError(
            f"{unknown[0]!r} cannot be fixed: it is no scalar input of the model",
            where="--fix",
            remedy=f"its scalar inputs are: {', '.join(scalars) or 'none'}",
        )
    return {name: _scalar(scalars[name], number) for name, number in fixed.items()}


def _scalar(spec: TensorSpec, number: float) -> Array:
    # An integer refuses what is beyond its range, or NaN, in one of three ways.
    with suppress(OverflowError, ValueError), np.errstate(invalid="ignore"):
        value = np.full([1] * len(spec.shape or ()), number, spec.dtype)
        if value.dtype.kind == "f" or value.item() == number:
            return value
    raise SourceError(f"{number:g} is no {spec.dtype}", where=f"--fix {spec.name}")


def _stem(name: str) -> str:
    words = re.split(r"[._/:\-]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    kept = [word for word in words if word and word not in _STATE_MARKS]
    stem = "_".join(kept)
    # `hn` and `h0`, `stateN`: usual names for the next and the first state.
    return stem[:-1] if re.fullmatch(r"(h|c|state)[n0]", stem) else stem


def _fits(output: ir.Value, value: ir.Value) -> bool:
    if output.dtype != value.dtype:
        return False
    if output.shape is None or value.shape is None:
        return True
    return len(output.shape) == len(value.shape) and all(
        a == b
        for a, b in zip(output.shape, value.shape, strict=True)
        if isinstance(a, int) and isinstance(b, int)
    )
