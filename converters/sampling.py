"""Data for one conversion: reading or generating it, and picking representative calls."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from converters.data import load_data
from converters.dataset import Array, Dataset, roll, zero_states
from converters.describe import graph_inputs
from converters.generate import generate
from converters.materialize import open_path
from converters.source import Source

TIMED_CALLS = 4


def dataset_for(source: Source, data: Path | None) -> Dataset:
    """The user's data, or inputs generated for the source.

    Raises:
        DataError: The data do not fit the model, or nothing generated makes it run.
    """
    if data is None:
        return generate(source.model, open_path(source.path), source.states)
    inputs = graph_inputs(source.model)
    return load_data(data, inputs, source.states, source.tokenizer, source.labels)


def seconds_per_sample(source: Source, dataset: Dataset) -> float:
    """How long the source takes for one sample, on one thread."""
    session = open_path(source.path)
    zeros = zero_states(graph_inputs(source.model), source.states)
    times = []
    for sample in dataset.samples[:3]:
        started = time.monotonic()
        for _ in roll(session, sample, source.states, zeros):
            pass
        times.append(time.monotonic() - started)
    return max(min(times), 1e-5)


def representative_calls(source: Source, dataset: Dataset) -> list[Mapping[str, Array]]:
    """Calls with states, of the sample of median size and the one after it."""
    sizes = [
        sum(a.nbytes for feeds in sample for a in feeds.values()) for sample in dataset.samples
    ]
    by_size = sorted(range(len(sizes)), key=sizes.__getitem__)
    middle = len(by_size) // 2
    session = open_path(source.path)
    zeros = zero_states(graph_inputs(source.model), source.states)
    calls: list[Mapping[str, Array]] = []
    for index in by_size[middle : middle + 2]:
        carried = dict(zeros)
        for feeds in dataset.samples[index][:TIMED_CALLS]:
            calls.append({**carried, **feeds})
            outputs = session.run(calls[-1])
            carried = {state.input: outputs[state.output] for state in source.states}
    return calls
