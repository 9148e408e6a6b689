"""Reads calibration and evaluation data: ``.npz``, ``.jsonl``, or a folder of ``.npz`` or media.

How arrays are cut. An array with its input's rank + 1 is a list of samples;
one of equal rank is cut along the first axis with batch 1 kept (a fixed first
dimension is kept instead); a 0-d input takes one scalar per sample, or one for
all. For a model with recurrent states there is one more level: rank + 2 is
[sequence, step, …], and rank + 1 or equal rank is the steps of one sequence,
so each file of a folder may be one sequence.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec import Struct

from converters.dataset import Array, Dataset, Feeds, stack_labels, zero_states
from converters.jsonl import read_jsonl
from converters.media import read_media
from edge_sdk.bundle.record import State, TensorSpec
from edge_sdk.errors import DataError
from edge_sdk.runtime.steps import Image, Spectrogram, Tokenize, Waveform, find_step

LABELS = "labels"
MIN_SPLIT = 8  # fewer samples than this serve both halves: either half alone says too little
MAX_STEPS = 1024  # of each half of a single sequence, whose calls are small

Sample = tuple[Feeds, ...]


def load_data(
    path: Path,
    inputs: Sequence[TensorSpec],
    states: Sequence[State] = (),
    tokenizer: Path | None = None,
    classes: Sequence[str] | None = None,
    max_length: int | None = None,
    steps: Sequence[Struct] = (),
) -> Dataset:
    """Reads the data a user gives for calibration and evaluation.

    Args:
        path: An ``.npz`` (one array per model input, optional ``labels``), a
            folder of them, a ``.jsonl`` of ``{"text": …, "label": …}``, or a folder of
            pictures or sounds, in a folder per class if they have labels.
        inputs: The model's inputs.
        states: Recurrences; their inputs may be in the data as initial values only.
        tokenizer: ``tokenizer.json``, for ``.jsonl``.
        classes: Class names in the order of the model's scores; labels given
            as text become their indices.
        max_length: Tokens per text; the tokenizer's own limit, else 512, when ``None``.
        steps: How the model takes text, pictures or sound, where that is known.

    Returns:
        Samples with the model's dtypes and ranks; origin ``user``.

    Raises:
        DataError: The file cannot be read or does not fit the model.
    """
    if not path.exists():
        raise DataError("no such file or folder", where=str(path))
    if path.is_dir():
        parts = _read_folder(path, inputs, states, steps)
    elif path.suffix == ".npz":
        parts = [_read_npz(path, inputs, states)]
    elif path.suffix == ".jsonl":
        parts = [read_jsonl(path, inputs, tokenizer, max_length, find_step(steps, Tokenize))]
    else:
        raise DataError(
            f"unknown kind of data {path.suffix!r}",
            where=str(path),
            remedy="give an .npz file, a .jsonl file, or a folder of .npz files, pictures or "
            "sounds",
        )
    samples = tuple(sample for part, _ in parts for sample in part)
    if not samples or not all(samples):
        lacking = "a sequence in it has no steps" if samples else "there are no samples in it"
        raise DataError(lacking, where=str(path))
    labels = _labels([label for _, part in parts for label in part], len(samples), classes, path)
    return Dataset(samples, labels, "user", content_digest(samples, labels))


def split(
    dataset: Dataset, max_calibration: int = 200, max_evaluation: int = 1000
) -> tuple[Dataset, Dataset]:
    """Divides a dataset into one to calibrate on and one to evaluate with.

    Samples are dealt by a fixed shuffle, because files are often sorted by class;
    the first few of either half are a fair sample too. A single long sequence is
    cut into its first and second half, and fewer than 8 samples serve as both.

    Args:
        dataset: What was loaded or generated.
        max_calibration: Most samples to calibrate on.
        max_evaluation: Most samples to evaluate with.
    """
    if len(dataset) == 1 and len(dataset.samples[0]) >= MIN_SPLIT:
        return _halves(dataset)
    if len(dataset) < MIN_SPLIT:
        return dataset, dataset
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    middle = min(len(dataset) // 2, max_calibration)
    return dataset.take(order[:middle]), dataset.take(order[middle : middle + max_evaluation])


def content_digest(samples: Iterable[Sample], labels: Array | None) -> str:
    """``sha256:…`` over names, dtypes, shapes and bytes, independent of the file format."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"sample {len(sample)}\n".encode())
        for feeds in sample:
            for name in sorted(feeds):
                _hash_array(digest, name, feeds[name])
    if labels is not None:
        _hash_array(digest, LABELS, labels)
    return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True)
class _Stack:
    """An array cut into calls; ``axes`` of its leading axes count sequences and steps."""

    values: Array
    axes: int

    def at(self, sequence: int, step: int) -> Array:
        return np.asarray(self.values[(sequence, step)[: self.axes]])


def _read_npz(
    path: Path, inputs: Sequence[TensorSpec], states: Sequence[State]
) -> tuple[list[Sample], list[Array]]:
    arrays = _load(path)
    initial = zero_states(inputs, states)
    stacks: dict[str, _Stack] = {}
    for spec in inputs:
        if spec.name in initial:
            continue
        if spec.name in arrays:
            where = f"{path}: array {spec.name!r}"
            stacks[spec.name] = _cut(_conform(arrays[spec.name], spec, where), spec, initial, where)
        elif spec.required:
            raise DataError(
                f"input {describe(spec)} is missing; the arrays found are {_found(arrays)}",
                where=str(path),
                remedy=f"the model takes {', '.join(map(describe, inputs))}",
            )
    samples = _assemble(stacks, bool(states), str(path))
    _set_initial(samples, arrays, initial)
    labels = arrays.get(LABELS) if all(spec.name != LABELS for spec in inputs) else None
    return [tuple(sample) for sample in samples], _label_rows(labels, samples, path)


def _read_folder(
    path: Path, inputs: Sequence[TensorSpec], states: Sequence[State], steps: Sequence[Struct]
) -> list[tuple[list[Sample], list[Array]]]:
    """``.npz`` files where there are any, else pictures or sounds."""
    if files := sorted(path.glob("*.npz")):
        return [_read_npz(file, inputs, states) for file in files]
    sound = find_step(steps, Waveform) or find_step(steps, Spectrogram)
    parts = list(read_media(path, inputs, find_step(steps, Image) or sound))
    if not parts:
        raise DataError("the folder has no .npz file, picture or sound", where=str(path))
    return parts


def _load(path: Path) -> dict[str, Array]:
    try:
        # Opened here: numpy leaves a broken file open when given its path.
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is no complete zip archive")
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot be read as .npz: {error}",
            where=str(path),
            remedy="write plain arrays with numpy.savez; Python objects are refused",
        ) from error


def _conform(array: Array, spec: TensorSpec, where: str) -> Array:
    """Casts within a kind of number (float64 to float32, int32 to int64), and no further.

    Infinities may be meant (masks), but no model's data has NaN.
    """
    try:
        wanted = np.dtype(object if spec.dtype == "string" else spec.dtype)
    except TypeError as error:
        raise DataError(f"arrays cannot fill an input of type {spec.dtype}", where=where) from error
    if array.dtype.kind == "f" and (gaps := np.argwhere(np.isnan(array))).size:
        raise DataError(
            f"{len(gaps)} values are NaN, the first at {gaps[0].tolist()}",
            where=where,
            remedy="leave such samples out, or fill the gaps as the model expects",
        )
    if array.dtype == wanted:
        return array
    if array.dtype.kind + wanted.kind in ("ff", "UO"):
        return array.astype(wanted)
    integers = array.dtype.kind in "iu" and wanted.kind in "iu"
    if integers and np.array_equal(cast := array.astype(wanted), array):
        return cast
    raise DataError(
        f"{array.dtype} values do not fit the input's {spec.dtype}",
        where=where,
        remedy=f"store it as {spec.dtype}, scaled the way the model expects",
    )


def _cut(array: Array, spec: TensorSpec, initial: Mapping[str, Array], where: str) -> _Stack:
    if spec.shape is None:
        return _Stack(array, 1)
    rank, most = len(spec.shape), 2 if initial else 1
    given, axes = list(array.shape), array.ndim - rank
    if axes == 0 and rank:
        first = spec.shape[0] if isinstance(spec.shape[0], int) else 1
        array, axes = _chunks(array, first), 1
    elif axes == 1 and rank and initial and _is_batch(spec) and array.shape[1] > 1:
        array, axes = array[:, :, None], 2  # [sequence, step, …] with the batch axis left out
    shape = array.shape[axes:] if axes >= 0 else ()
    fits = 0 <= axes <= most and all(
        size == given
        for size, given in zip(spec.shape, shape, strict=True)
        if isinstance(size, int)
    )
    if not fits:
        ranks = f"rank {rank} to {rank + most}"
        raise DataError(
            f"shape {given} does not fit the input {describe(spec)}",
            where=where,
            remedy=f"give an array of {ranks}, samples first, fixed dimensions as in the model",
        )
    return _Stack(array, axes)


def _chunks(array: Array, first: int) -> Array:
    """Cuts along the first axis, keeping a batch of ``first`` in each piece."""
    if first < 1 or array.shape[0] % first:
        return array[None]  # does not divide: the shape check reports it
    return array.reshape(-1, first, *array.shape[1:])


def _is_batch(spec: TensorSpec) -> bool:
    """Whether the first axis of a recurrent model's input is its batch.

    A symbol that names time (``sequence_length``) says no: such an input takes
    many frames in one call.
    """
    first = (spec.shape or (0,))[0]
    if isinstance(first, int):
        return first == 1
    unnamed = first[:-1].rstrip("._") == spec.name
    return unnamed or not any(word in first.lower() for word in ("seq", "time", "len", "frame"))


def _assemble(
    stacks: Mapping[str, _Stack], stateful: bool, where: str
) -> list[list[dict[str, Array]]]:
    """Sample -> calls -> input name -> array."""
    if stateful and all(stack.axes < 2 for stack in stacks.values()):
        # One sequence: what counts samples of a stateless model counts its steps.
        stacks = {
            name: _Stack(stack.values[None], 2) if stack.axes else stack
            for name, stack in stacks.items()
        }
    samples, steps = _agreed(stacks, 0, where), _agreed(stacks, 1, where)
    return [
        [{name: stack.at(i, step) for name, stack in stacks.items()} for step in range(steps)]
        for i in range(samples)
    ]


def _agreed(stacks: Mapping[str, _Stack], axis: int, where: str) -> int:
    """The length of a leading axis that all arrays with that axis share; 1 where none has it."""
    counts = {name: s.values.shape[axis] for name, s in stacks.items() if s.axes > axis}
    if len(set(counts.values())) > 1:
        raise DataError(
            f"arrays differ in their number of samples: {counts}",
            where=where,
            remedy="give every input as many samples; only scalars may be given once for all",
        )
    return next(iter(counts.values()), 1)


def _set_initial(
    samples: list[list[dict[str, Array]]],
    arrays: Mapping[str, Array],
    zeros: Mapping[str, Array],
) -> None:
    """Puts states found in the data into each sequence's first call, where they fit."""
    for name, zero in zeros.items():
        given = arrays.get(name)
        if given is None or not np.can_cast(given.dtype, zero.dtype, "same_kind"):
            continue
        given = given.astype(zero.dtype)
        for index, sample in enumerate(samples):
            value = given
            if given.ndim > zero.ndim:
                value = given[index if len(given) == len(samples) else 0]
            if value.ndim > zero.ndim and len(value):
                value = value[0]
            if value.shape == zero.shape and sample:
                sample[0][name] = value


def _label_rows(
    labels: Array | None, samples: Sequence[Sequence[Feeds]], path: Path
) -> list[Array]:
    """Labels per sample: a value, or one per step of a sequence."""
    if labels is None:
        return []
    if len(samples) == 1 and labels.shape[:1] == (len(samples[0]),):
        labels = labels[None]
    if labels.ndim == 0 or len(labels) != len(samples):
        raise DataError(
            f"labels of shape {list(labels.shape)} do not fit {len(samples)} samples",
            where=str(path),
            remedy="give one label per sample along the first axis",
        )
    return [np.asarray(row) for row in labels]


def _labels(
    rows: list[Array], samples: int, classes: Sequence[str] | None, path: Path
) -> Array | None:
    if not rows:
        return None
    if len(rows) != samples:
        raise DataError(f"only {len(rows)} of {samples} samples have labels", where=str(path))
    if classes and all(row.dtype.kind == "U" for row in rows):
        index = {name: i for i, name in enumerate(classes)}
        unknown = sorted({str(text) for row in rows for text in row.flat} - set(index))
        if unknown:
            raise DataError(
                f"unknown label {unknown[0]!r}",
                where=str(path),
                remedy=f"the model's classes are: {', '.join(classes)}",
            )
        rows = [np.vectorize(index.__getitem__, otypes=[np.int64])(row) for row in rows]
    return stack_labels(rows)


def _halves(dataset: Dataset) -> tuple[Dataset, Dataset]:
    steps, middle = dataset.samples[0], len(dataset.samples[0]) // 2
    pieces = []
    for begin, stop in ((0, middle), (middle, len(steps))):
        end = min(stop, begin + MAX_STEPS)
        labels = dataset.labels
        if labels is not None and labels.ndim > 1 and labels.shape[1] == len(steps):
            labels = labels[:, begin:end]
        pieces.append(Dataset((steps[begin:end],), labels, dataset.origin, dataset.digest))
    return pieces[0], pieces[1]


def describe(spec: TensorSpec) -> str:
    """An input for people: ``x (float32 [batch, 3, 224, 224])``."""
    shape = "of any rank" if spec.shape is None else f"[{', '.join(map(str, spec.shape))}]"
    return f"{spec.name} ({spec.dtype} {shape})"


def _found(arrays: Mapping[str, Array]) -> str:
    listed = (f"{name} ({array.dtype} {list(array.shape)})" for name, array in arrays.items())
    return ", ".join(listed) or "none"


def _hash_array(digest: hashlib._Hash, name: str, array: Array) -> None:
    digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
    if array.dtype == object:
        for item in array.flat:
            digest.update(repr(np.asarray(item).tolist()).encode())
    else:
        digest.update(np.ascontiguousarray(array).tobytes())
