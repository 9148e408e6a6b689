"""Runs arrays as a file holds them: one call, or a list of samples or steps.

An array with its input's rank is one call; where the input's first dimension is
fixed and the array has more rows, it is cut along that axis. An array of
rank + 1 is a list of samples, and for a model with recurrent states the steps
of one sequence; rank + 2 is then a list of sequences. An array with fewer axes
than the others is the same for every sample; a state is the initial one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import DataError, WorkError
from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.model import Model

Arrays = Mapping[str, Array]
LABELS = "labels"  # what evaluation data may hold besides inputs


def run_arrays(model: Model, arrays: Arrays) -> dict[str, Array]:
    """Runs all samples.

    Args:
        model: The model.
        arrays: Input name -> array; ``labels`` is ignored where no input has that name.

    Returns:
        Output name -> array, with the leading axes that the inputs had.

    Raises:
        DataError: The arrays do not fit the model or one another.
        WorkError: Outputs are no arrays, or differ in shape between samples.
    """
    specs = {spec.name: spec for spec in model.inputs}
    given = {name: array for name, array in arrays.items() if name in specs or name != LABELS}
    depth = max(_levels(given, specs).values(), default=0)
    if depth:
        return _run_list(model, given, specs, depth)
    batches = {name: _cut(array, specs.get(name)) for name, array in given.items()}
    if all(batches[name].ndim == array.ndim for name, array in given.items()):
        return model.run(given)
    outputs = _run_list(model, batches, specs, 1)
    return {name: value.reshape(-1, *value.shape[2:]) for name, value in outputs.items()}


def _run_list(
    model: Model, arrays: Arrays, specs: Mapping[str, TensorSpec], depth: int
) -> dict[str, Array]:
    samples = _samples(arrays, _levels(arrays, specs), depth)
    if depth > 1 and model.record.states:
        return _stacked([_run_list(model, sample, specs, depth - 1) for sample in samples])
    return _stacked([*_run_steps(model, samples)])


def _run_steps(model: Model, samples: Iterable[Arrays]) -> Iterator[dict[str, Array]]:
    """Without states, steps are samples that know nothing of one another."""
    states = {state.input for state in model.record.states}
    stream = model.stream()
    for number, sample in enumerate(samples):
        # Given states are those before the first step; later ones come from the stream.
        later = {name: array for name, array in sample.items() if name not in states}
        yield stream.run(later if number else sample)


def _samples(arrays: Arrays, levels: Mapping[str, int], depth: int) -> Iterator[Arrays]:
    """Takes the arrays of full depth apart along their first axis."""
    counts = {name: len(array) for name, array in arrays.items() if levels[name] == depth}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise DataError(
            "arrays must have the same number of samples, at least one; found "
            + ", ".join(f"{name}: {count}" for name, count in counts.items())
        )
    for index in range(min(counts.values())):
        yield {name: array[index] if name in counts else array for name, array in arrays.items()}


def _levels(arrays: Arrays, specs: Mapping[str, TensorSpec]) -> dict[str, int]:
    """How many axes each array has more than its input."""
    shapes = {name: specs[name].shape if name in specs else None for name in arrays}
    return {
        name: 0 if shape is None else array.ndim - len(shape)
        for (name, array), shape in zip(arrays.items(), shapes.values(), strict=True)
    }


def _cut(array: Array, spec: TensorSpec | None) -> Array:
    """Rows as batches of the fixed first dimension that the input has, if it has one."""
    rows = spec.shape[0] if spec is not None and spec.shape else None
    if not isinstance(rows, int) or rows < 1 or len(array) == rows or len(array) % rows:
        return array
    return array.reshape(-1, rows, *array.shape[1:])


def _stacked(outputs: Sequence[Arrays]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for name in outputs[0]:
        values = [output[name] for output in outputs]
        if not isinstance(values[0], np.ndarray):
            raise WorkError("is no array, so samples cannot be stacked", where=f"output {name!r}")
        shapes = {value.shape for value in values}
        if len(shapes) > 1:
            raise WorkError(
                f"differs in shape between samples: {', '.join(map(str, sorted(shapes)))}",
                where=f"output {name!r}",
                remedy="give one sample per file",
            )
        found[name] = np.stack(values)
    return found
