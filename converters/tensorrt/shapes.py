"""Shapes that an engine is built for: for each input the smallest, the usual and the largest.

TensorRT chooses kernels for the usual shape and refuses shapes outside the range; the
runtime then takes another provider. So the range is what the data have, widened where more
is sure to come: any number of samples, and texts of any length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from converters.dataset import Feeds
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.runtime.inputs import dimensions

Shape = tuple[int, ...]

# Samples per call that an engine takes at least: as many texts as are embedded at once.
MOST_SAMPLES = 8


@dataclass(frozen=True)
class ShapeProfile:
    """Range of an input's shape: an optimization profile, in TensorRT's words."""

    min: Shape
    opt: Shape
    max: Shape


def shape_profile(
    inputs: Sequence[TensorSpec], calls: Iterable[Feeds], longest_text: int | None = None
) -> dict[str, ShapeProfile]:
    """The range of every input with a dynamic dimension.

    Args:
        inputs: The graph's inputs.
        calls: Calls as they occur, states included.
        longest_text: Most tokens of a text, where the inputs are tokens.
    """
    seen: dict[str, list[int]] = defaultdict(list)
    for feeds in calls:
        for symbol, value in dimensions(inputs, feeds).items():
            seen[symbol].append(value)
    ranges = {symbol: _seen_range(sizes) for symbol, sizes in seen.items()}
    for spec in inputs:
        for axis, size in enumerate(spec.shape or ()):
            if isinstance(size, int):
                continue
            _, usual, largest = ranges.get(size, (1, 1, 1))
            if axis == 0 and len(spec.shape or ()) > 1:
                ranges[size] = 1, usual, max(largest, MOST_SAMPLES)
            elif axis == 1 and longest_text and spec.dtype.startswith("int"):
                ranges[size] = 1, usual, max(largest, longest_text)
    return {
        spec.name: ShapeProfile(*(_shape(spec.shape, ranges, i) for i in range(3)))
        for spec in inputs
        if spec.shape and any(isinstance(size, str) for size in spec.shape)
    }


def _seen_range(sizes: list[int]) -> tuple[int, int, int]:
    ordered = sorted(sizes)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def _shape(
    shape: Sequence[int | str], ranges: Mapping[str, tuple[int, int, int]], which: int
) -> Shape:
    return tuple(
        size if isinstance(size, int) else ranges.get(size, (1, 1, 1))[which] for size in shape
    )
