"""Runs a float model over calibration data and gathers statistics of its activations.

Calls are processed one by one, so memory is bounded by the activations of one
call, whatever the amount of data. Values inside subgraphs are not observed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.calibration.statistics import (
    HISTOGRAM_BINS,
    SMALLEST_REACH,
    Statistics,
    TensorStatistics,
    reach_of,
)
from converters.dataset import Array, Dataset, roll
from converters.materialize import opened
from converters.passes.qdq_placement import observable
from edge_sdk.bundle.record import State, TensorSpec
from edge_sdk.runtime.engine import SessionOptions

HALF = HISTOGRAM_BINS // 2


def wanted(model: ir.Model) -> tuple[str, ...]:
    """Names of the main graph's activations that some quantization pass may ask for."""
    # The type of what comes from an operator unknown to shape inference is unknown.
    return tuple(
        value.name
        for value in observable(model.graph)
        if value.name and value.dtype in (ir.DataType.FLOAT, None)
    )


def collect(
    model: ir.Model,
    dataset: Dataset,
    states: Sequence[State] = (),
    names: Collection[str] | None = None,
    initial: Mapping[str, Array] | None = None,
) -> Statistics:
    """Observes activations of ``model`` over all samples of ``dataset``.

    Args:
        model: A float model; it is not changed.
        dataset: What to run it on.
        states: Recurrences, rolled forward along each sample.
        names: Values of the main graph to observe; :func:`wanted` ones by default.
        initial: State input -> value before the first call; zeros where absent.

    Returns:
        Statistics of those values that exist, are float32 and were computed. They are a
        function of model and data alone: one thread, and no dependence on sample order.
    """
    observed, aliases = _observe(model, wanted(model) if names is None else names)
    tensors: dict[str, _Accumulator] = {}
    with opened(observed, SessionOptions(threads=1)) as session:
        before = _initial(session.inputs, states, initial or {})
        for sample in dataset.samples:
            for outputs in roll(session, sample, states, before):
                for output, name in aliases.items():
                    if outputs[output].dtype == np.float32:
                        tensors.setdefault(name, _Accumulator()).add(outputs[output])
    return Statistics({name: found.result() for name, found in tensors.items() if found.count})


def _observe(model: ir.Model, names: Collection[str]) -> tuple[ir.Model, dict[str, str]]:
    """A copy of ``model`` with more outputs, and output name -> observed value's name."""
    copy = model.clone()
    graph = copy.graph
    aliases: dict[str, str] = {}
    outputs = {value.name for value in graph.outputs}
    for value in [*graph.inputs, *(value for node in graph for value in node.outputs)]:
        if not value.name or value.name not in names:
            continue
        output = value
        if value.is_graph_input():
            identity = ir.node("Identity", [value])
            output = identity.outputs[0]
            output.name = f"{value.name}/observed"
            graph.append(identity)
        aliases[str(output.name)] = value.name
        if output.name not in outputs:
            graph.outputs.append(output)
    return copy, aliases


def _initial(
    inputs: Sequence[TensorSpec], states: Sequence[State], given: Mapping[str, Array]
) -> dict[str, Array]:
    specs = {spec.name: spec for spec in inputs}
    values: dict[str, Array] = {}
    for state in states:
        spec = specs[state.input]
        shape = tuple(size if isinstance(size, int) else 1 for size in spec.shape or ())
        values[state.input] = given.get(state.input, np.zeros(shape, spec.dtype))
    return values


class _Accumulator:
    """Running statistics of one tensor."""

    def __init__(self) -> None:
        self.count = 0
        self.low = np.inf
        self.high = -np.inf
        self.reach = SMALLEST_REACH
        self.histogram = np.zeros(HISTOGRAM_BINS, np.int64)
        self.channels: NDArray[np.float32] | None = None

    def add(self, array: NDArray[np.generic]) -> None:
        """Takes one more array into account; values that are not finite are left out."""
        rows = array.reshape(-1, array.shape[-1] if array.ndim else 1).astype(
            np.float32, copy=False
        )
        if rows.size == 0:
            return
        low, high = rows.min(axis=0), rows.max(axis=0)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            rows = rows[np.isfinite(rows)].reshape(-1, 1)
            if rows.size == 0:
                return
            low, high = rows.min(axis=0), rows.max(axis=0)
        self._add_channels(np.maximum(np.abs(low), np.abs(high)))
        self.count += rows.size
        self.low = min(self.low, float(low.min()))
        self.high = max(self.high, float(high.max()))
        self._add_counts(rows)

    def result(self) -> TensorStatistics:
        """The statistics of everything added so far."""
        varies = self.channels is None or self.channels.size == 0
        return TensorStatistics(
            low=self.low,
            high=self.high,
            histogram=self.histogram,
            channel_absmax=None if varies or self.channels is None else _short(self.channels),
        )

    def _add_channels(self, absmax: NDArray[np.float32]) -> None:
        if self.channels is None:
            self.channels = absmax
        elif self.channels.shape == absmax.shape:
            self.channels = np.maximum(self.channels, absmax)
        else:  # no meaning per index; an empty array never matches again
            self.channels = np.zeros(0, np.float32)

    def _add_counts(self, rows: NDArray[np.float32]) -> None:
        reach = reach_of(max(abs(self.low), abs(self.high)))
        if reach > self.reach:
            self.histogram = _widen(self.histogram, round(np.log2(reach / self.reach)))
            self.reach = reach
        # Truncation is floor here: the sums are not negative.
        bins = (rows.ravel() * np.float32(HALF / self.reach) + np.float32(HALF)).astype(np.intp)
        self.histogram += np.bincount(
            np.minimum(bins, HISTOGRAM_BINS - 1), minlength=HISTOGRAM_BINS
        )


def _widen(histogram: NDArray[np.int64], doublings: int) -> NDArray[np.int64]:
    """The same counts over an extent ``2 ** doublings`` times as large."""
    wide = np.zeros_like(histogram)
    from_zero = np.arange(HALF) >> min(doublings, 62)
    np.add.at(wide, HALF + from_zero, histogram[HALF:])
    np.add.at(wide, HALF - 1 - from_zero, histogram[:HALF][::-1])
    return wide


def _short(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Four significant digits: enough for scales, and a tenth of the text in a bundle."""
    short = np.array([float(f"{value:.4g}") for value in values])
    finite: NDArray[np.float32] = np.minimum(short, np.finfo(np.float32).max).astype(np.float32)
    return finite
