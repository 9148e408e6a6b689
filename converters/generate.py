"""Plausible inputs for a model that comes without data, from its signature and its graph.

Token ids stay below the rows of the table they index, masks are ones, images
lie in 0..1, states start at zero, and free dimensions get sizes that the model
is seen to run with. What is generated can show that a candidate computes the
same function; it cannot stand for the data the model will meet, so the report
says ``generated``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import onnx_ir as ir

from converters.data import Sample, content_digest, describe
from converters.dataset import Array, Dataset, roll, zero_states
from converters.describe import graph_inputs
from edge_sdk.bundle.record import State, TensorSpec
from edge_sdk.errors import DataError, EngineError
from edge_sdk.runtime.engine import Session

STEPS = 16
_TEXT_LENGTHS = (32, 16, 64, 128, 256, 512, 576, 1024, 16000, 8, 4, 1)
_AUDIO_LENGTHS = (16000, 32000, 8000, 512, 576, 400, 256, 128)
_IMAGES = ((224, 224), (32, 32), (64, 64), (48, 320), (320, 320), (416, 416), (640, 640))
_VARIED = (8, 64)  # lengths of the samples, where the model takes them all
_AUDIO_WORDS = ("sample", "audio", "wave", "pcm")
_TIME_WORDS = ("seq", "time", "len", "frame", *_AUDIO_WORDS)
# Operators whose output holds their first input's values, moved around or in another type.
_CARRIERS = {
    "Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Slice",
    "Expand", "Clip",
}  # fmt: skip


@dataclass(frozen=True)
class Meaning:
    """What the graph says about an input's values.

    Attributes:
        bound: Ids lie below this: the rows of a table, or the depth of a one-hot.
        compared: Constants that the graph compares it with.
    """

    bound: int | None = None
    compared: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Attempt:
    length: int
    image: tuple[int, int]
    positive: bool


def generate(
    model: ir.Model,
    session: Session,
    states: Sequence[State] = (),
    count: int = 32,
    seed: int = 0,
    fixed: Mapping[str, Array] | None = None,
) -> Dataset:
    """Makes samples that the model runs with.

    Args:
        model: The source graph; tells what integer inputs index.
        session: A session over it, to try shapes with.
        states: Recurrences; a sample is then a sequence of calls.
        count: Number of samples.
        seed: The same seed gives the same samples.
        fixed: Inputs that have one value only.

    Returns:
        A dataset of origin ``generated``.

    Raises:
        DataError: No shape or value tried makes the model run without an error or NaN.
    """
    inputs = graph_inputs(model)
    zeros = zero_states(inputs, states)
    maker = _Maker(
        tuple(spec for spec in inputs if spec.required and spec.name not in zeros),
        {value.name or "": meaning(value) for value in model.graph.inputs},
        STEPS if states else 1,
        fixed or {},
    )
    failure: EngineError | None = None
    for attempt in _attempts(maker.inputs):
        sample = maker.sample(np.random.default_rng(seed), attempt)
        failure = _failure(session, sample, states, zeros)
        if failure is None:
            samples = _series(maker, attempt, session, (count, seed), states)
            return Dataset(samples, None, "generated", content_digest(samples, None))
    raise DataError(
        f"no generated input makes the model run; the engine's last words: {failure}",
        where=f"inputs {', '.join(map(describe, inputs))}",
        remedy="give real inputs with --data",
    )


def meaning(value: ir.Value) -> Meaning:
    """Follows an input to the tables it indexes and the constants it is compared with."""
    bounds: list[int] = []
    compared: list[float] = []
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        for node, index in current.uses():
            bounds += _bounds(node, index)
            if node.op_type == "Equal":
                other = ir.convenience.get_const_tensor(node.inputs[1 - index] or current)
                compared += [] if other is None else other.numpy().ravel().tolist()
            if node.op_type in _CARRIERS and index == 0 and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                pending.append(node.outputs[0])
    return Meaning(min(bounds, default=None), tuple(sorted(set(compared))))


def _bounds(node: ir.Node, index: int) -> list[int]:
    if node.op_type == "OneHot" and index == 0 and node.inputs[1] is not None:
        depth = ir.convenience.get_const_tensor(node.inputs[1])
        return [] if depth is None else [int(depth.numpy().ravel()[0])]
    table, axis = None, 0
    if node.op_type in ("Gather", "GatherBlockQuantized") and index == 1:
        table, axis = node.inputs[0], node.attributes.get_int("axis", 0)
    elif node.op_type == "EmbedLayerNormalization" and index in (0, 1):
        table = node.inputs[(2, 4)[index]]
    if table is None or table.shape is None or ir.convenience.get_const_tensor(table) is None:
        return []
    rows = table.shape[axis]
    return [rows] if isinstance(rows, int) else []


@dataclass(frozen=True)
class _Maker:
    """Fills inputs that are not ``fixed``; ``steps`` calls make one sample."""

    inputs: tuple[TensorSpec, ...]
    meanings: Mapping[str, Meaning]
    steps: int
    fixed: Mapping[str, Array]

    def sample(self, rng: np.random.Generator, attempt: _Attempt) -> Sample:
        """One sample of the attempt's sizes."""
        return tuple(
            {spec.name: self._array(rng, spec, attempt) for spec in self.inputs}
            for _ in range(self.steps)
        )

    def _array(self, rng: np.random.Generator, spec: TensorSpec, attempt: _Attempt) -> Array:
        if spec.name in self.fixed:
            return self.fixed[spec.name]
        shape = tuple(
            size if isinstance(size, int) else _size(spec, axis, attempt)
            for axis, size in enumerate(spec.shape or ())
        )
        if spec.dtype == "string":
            return np.full(shape, "edge", dtype=object)
        dtype = np.dtype(spec.dtype)
        name, meant = spec.name.lower(), self.meanings.get(spec.name, Meaning())
        if dtype.kind in "iub" and (told := _told_by_name(name, shape, attempt)) is not None:
            return told.astype(dtype)
        if meant.compared and not shape:
            return np.asarray(meant.compared[-1], dtype=dtype)
        if meant.bound is not None:
            return rng.integers(0, max(meant.bound, 1), shape).astype(dtype)
        if dtype.kind == "f":
            return _floats(rng, spec, shape, attempt.positive).astype(dtype)
        if dtype == np.uint8 and not meant.compared:
            return rng.integers(0, 256, shape).astype(dtype)  # pixels, or characters
        return rng.choice(meant.compared or (0, 1), shape).astype(dtype)


def _size(spec: TensorSpec, axis: int, attempt: _Attempt) -> int:
    """A size for one free dimension, by its name and place."""
    shape = spec.shape or ()
    name = str(shape[axis]).lower()
    if "batch" in name or (axis == 0 and not _is_time(spec, axis)):
        return 1
    if "past" in name:
        return 0
    if len(shape) == 4:
        spatial = (1, 2) if shape[3] in (1, 3, 4) else (2, 3)
        return attempt.image[spatial.index(axis)] if axis in spatial else 3
    return attempt.length


def _is_time(spec: TensorSpec, axis: int) -> bool:
    """Whether a dimension's own name (not one made up from its tensor's) tells of time."""
    name = str((spec.shape or ())[axis])
    return name != f"{spec.name}.{axis}" and any(word in name.lower() for word in _TIME_WORDS)


def _floats(
    rng: np.random.Generator, spec: TensorSpec, shape: tuple[int, ...], positive: bool
) -> Array:
    if "mask" in spec.name.lower():
        return np.ones(shape)
    if len(shape) == 4 and (shape[1] in (1, 3, 4) or shape[3] in (1, 3, 4)):
        return _image(rng, shape)
    return rng.random(shape) if positive or not shape else rng.standard_normal(shape)


def _image(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Patches with some noise, in 0..1: white noise alone excites a network like no photo."""
    coarse = rng.random([min(size, 8) for size in shape])
    grid = np.ix_(*(np.arange(size) * min(size, 8) // max(size, 1) for size in shape))
    return np.asarray(0.8 * coarse[grid] + 0.2 * rng.random(shape))


def _told_by_name(name: str, shape: tuple[int, ...], attempt: _Attempt) -> Array | None:
    """Values of an integer input whose conventional name says what they are."""
    if "mask" in name:
        return np.ones(shape)
    if "type" in name or "segment" in name:
        return np.zeros(shape)
    if "position" in name and shape:
        return np.broadcast_to(np.arange(shape[-1]), shape)
    if "len" in name:
        return np.full(shape, attempt.length)
    if not shape and ("rate" in name or name == "sr"):
        return np.asarray(16000)
    return None


def _attempts(inputs: Sequence[TensorSpec]) -> Iterator[_Attempt]:
    """Sizes to try, likely ones first; only those that some input depends on."""
    probes = [_Attempt(_TEXT_LENGTHS[0], _IMAGES[0], False), _Attempt(-1, (-1, -1), False)]
    free = [
        [_size(spec, axis, probe) for probe in probes]
        for spec in inputs
        for axis, size in enumerate(spec.shape or ())
        if isinstance(size, str)
    ]
    has_length = any(a == probes[0].length and b == -1 for a, b in free)
    has_image = any(a in probes[0].image and b == -1 for a, b in free)
    names = " ".join(f"{spec.name} {spec.shape}" for spec in inputs).lower()
    is_audio = any(word in names for word in _AUDIO_WORDS)
    lengths = dict.fromkeys((_AUDIO_LENGTHS if is_audio else ()) + _TEXT_LENGTHS)
    for positive, length, image in product(
        (False, True),
        list(lengths) if has_length else _TEXT_LENGTHS[:1],
        _IMAGES if has_image else _IMAGES[:1],
    ):
        yield _Attempt(length, image, positive)


def _series(
    maker: _Maker,
    attempt: _Attempt,
    session: Session,
    count_and_seed: tuple[int, int],
    states: Sequence[State],
) -> tuple[Sample, ...]:
    """All samples: of varied length, or of the one that ran where the model takes no other."""
    count, seed = count_and_seed
    rng = np.random.default_rng(seed)
    zeros = zero_states(session.inputs, states)
    varied = attempt.length == _TEXT_LENGTHS[0]
    samples: list[Sample] = []
    for _ in range(count):
        length = int(rng.integers(*_VARIED)) if varied else attempt.length
        sample = maker.sample(rng, replace(attempt, length=length))
        if _failure(session, sample, states, zeros):
            varied = False
            sample = maker.sample(rng, attempt)
        samples.append(sample)
    return tuple(samples)


def _failure(
    session: Session, sample: Sample, states: Sequence[State], zeros: Mapping[str, Array]
) -> EngineError | None:
    """The engine's error on a sample, or one of ours where NaN comes out."""
    try:
        for outputs in roll(session, sample, states, zeros):
            for name, array in outputs.items():
                floats = isinstance(array, np.ndarray) and array.dtype.kind == "f"
                if floats and np.isnan(array).any():
                    return EngineError(f"output {name!r} has NaN")
    except EngineError as error:
        return error
    return None
