"""Data for one conversion: reading or generating it, and picking representative calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from converters.costs import node_costs, reference_dimensions
from converters.data import load_data
from converters.dataset import Array, Dataset, zero_states
from converters.describe import fixed_values, graph_inputs
from converters.generate import generate
from converters.materialize import open_path
from converters.source import Source
from edge_sdk.errors import DataError
from edge_sdk.runtime.steps import parse_steps

TIMED_CALLS = 4
# What a core does in float32, and what starting a node costs: right within a factor of
# six for some forty graphs, which is enough to tell 20 samples from 1000.
FLOPS = 4e10
NODE_SECONDS = 2e-6


def dataset_for(
    source: Source, data: Path | None, fixed: Mapping[str, float] | None = None
) -> Dataset:
    """The user's data, or inputs generated for the source.

    Args:
        source: The model.
        data: Where the data lie; generated when ``None``.
        fixed: Scalar inputs that never change; the data need not have them.

    Raises:
        SourceError: ``fixed`` names no scalar input, or gives it a value of another type.
        DataError: The data do not fit the model, or nothing generated makes it run.
    """
    constants = fixed_values(source.model, fixed or {})
    if data is None:
        session = open_path(source.path)
        return generate(source.model, session, source.states, fixed=constants)
    inputs = [
        replace(spec, required=spec.required and spec.name not in constants)
        for spec in graph_inputs(source.model)
    ]
    steps = parse_steps(source.preprocess)
    found = load_data(data, inputs, source.states, source.tokenizer, source.labels, steps=steps)
    return _with_constants(found, constants, data)


def _with_constants(dataset: Dataset, constants: Mapping[str, Array], path: Path) -> Dataset:
    for name, value in constants.items():
        given = [call[name] for sample in dataset.samples for call in sample if name in call]
        other = next((array for array in given if not np.array_equal(array, value)), None)
        if other is not None:
            raise DataError(
                f"input {name!r} is {other.item()} here, and fixed to {value.item()}",
                where=str(path),
                remedy=f"leave {name!r} out of the data, or out of --fix",
            )
    samples = tuple(tuple({**call, **constants} for call in sample) for sample in dataset.samples)
    return dataclasses.replace(dataset, samples=samples)


def seconds_per_sample(source: Source, dataset: Dataset) -> float:
    """About how long the source takes for one sample on one thread, by its operations.

    Not by the clock: how many samples are compared follows from it, and what the
    comparison finds is part of the variant's identity.
    """
    calls = [call for sample in dataset.samples for call in sample[:1]]
    costs = node_costs(source.model, reference_dimensions(graph_inputs(source.model), calls))
    one_call = sum(cost.flops for cost in costs) / FLOPS + max(1, len(costs)) * NODE_SECONDS
    return max(map(len, dataset.samples)) * one_call


def representative_calls(source: Source, dataset: Dataset) -> list[Mapping[str, Array]]:
    """Calls with states, of the sample of median size and the one after it."""
    sizes = [
        sum(a.nbytes for feeds in sample for a in feeds.values()) for sample in dataset.samples
    ]
    by_size = sorted(range(len(sizes)), key=sizes.__getitem__)
    middle = len(by_size) // 2
    chosen = [dataset.samples[index][:TIMED_CALLS] for index in by_size[middle : middle + 2]]
    if not source.states:  # and no need to open what may be gigabytes
        return [feeds for sample in chosen for feeds in sample]
    session = open_path(source.path)
    zeros = zero_states(graph_inputs(source.model), source.states)
    calls: list[Mapping[str, Array]] = []
    for sample in chosen:
        carried = dict(zeros)
        for feeds in sample:
            calls.append({**carried, **feeds})
            outputs = session.run(calls[-1])
            carried = {state.input: outputs[state.output] for state in source.states}
    return calls
