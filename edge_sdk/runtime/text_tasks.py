"""``embed`` and ``classify``: what a variant's pre- and post-processing steps make of ``run``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import TensorSpec, VariantRecord
from edge_sdk.errors import BundleError, DataError, InputError, MemoryLimitError
from edge_sdk.runtime import scores
from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.scores import Float32
from edge_sdk.runtime.steps import (
    Classification,
    Labels,
    Pool,
    Softmax,
    Tokenize,
    find_step,
    parse_steps,
)

if TYPE_CHECKING:
    from edge_sdk.runtime.text import Batch, TextEncoder

DEFAULT_BATCH = 8  # a 6-layer encoder gains a fifth over one by one, and nothing beyond
FILE_LIMIT = 64 * 1024 * 1024  # largest tokenizer or label file that is read, in bytes

Outputs = Mapping[str, Array]
Run = Callable[[Mapping[str, Any]], Outputs]
Parsed = TypeVar("Parsed", bound=msgspec.Struct)


class TextTasks:
    """The steps of one variant around its ``run``.

    Args:
        record: The variant.
        blobs: Where its tokenizer and label files are.
        inputs: What ``run`` takes.
        run: Runs the variant.

    Raises:
        BundleError: A step is unknown, or names an input or output that is not there.
    """

    def __init__(
        self, record: VariantRecord, blobs: BlobStore, inputs: Sequence[TensorSpec], run: Run
    ) -> None:
        self._record = record
        self._blobs = blobs
        self._inputs = {spec.name: spec for spec in inputs}
        self._run = run
        self._steps = parse_steps((*record.preprocess, *record.postprocess))
        _check_names(self._steps, set(self._inputs), {spec.name for spec in record.outputs})

    def embed(self, texts: str | Sequence[str], batch: int) -> Float32:
        """One vector per text, ``[texts, size]``."""
        step = self._need(Pool, "embed texts")
        rows = _texts(texts)
        if not rows:
            return np.zeros((0, self._size(step)), np.float32)
        vectors: list[Float32] = []
        order: list[int] = []
        for part, outputs in self._run_texts(rows, batch):
            vectors.append(scores.pool(outputs[step.output], part.arrays["mask"], step))
            order += part.rows
        return np.concatenate(vectors)[np.argsort(order)]

    def classify(
        self, given: str | Sequence[str] | Mapping[str, Any], top: int
    ) -> list[list[Classification]]:
        """The best classes of each row, best first."""
        self._need(Labels, "classify")
        _at_least_one("top", top)
        if isinstance(given, Mapping):
            return self._ranked(self._run(given), top)
        rows = _texts(given)
        found: list[list[Classification]] = [[] for _ in rows]
        for part, outputs in self._run_texts(rows, DEFAULT_BATCH):
            for row, ranked in zip(part.rows, self._ranked(outputs, top), strict=True):
                found[row] = ranked
        return found

    def _ranked(self, outputs: Outputs, top: int) -> list[list[Classification]]:
        output = self._need(Labels, "classify").output
        values = outputs[output]
        step = find_step(self._steps, Softmax)
        if step is not None and step.output == output:
            values = scores.softmax(values)
        return scores.rank(values, self.labels, top, output)

    def _run_texts(self, texts: Sequence[str], batch: int) -> Iterator[tuple[Batch, Outputs]]:
        """Runs texts in batches of similar length; the batches come in any order."""
        step = self._need(Tokenize, "take text")
        _at_least_one("batch", batch)
        rows, length = self._fixed(step)
        pads = "mask" in step.inputs.values()
        for part in self._encoder.batches(texts, min(batch, rows or batch), length, pads):
            yield from self._run_batch(step, part)

    def _run_batch(self, step: Tokenize, part: Batch) -> Iterator[tuple[Batch, Outputs]]:
        """Runs one batch, in halves where the whole is predicted not to fit the memory limit."""
        feeds = {
            name: part.arrays[kind].astype(self._inputs[name].dtype, copy=False)
            for name, kind in step.inputs.items()
        }
        try:
            outputs = self._run(feeds)
        except MemoryLimitError:
            if len(part.rows) == 1:
                raise
            for half in part.halves():
                yield from self._run_batch(step, half)
        else:
            yield part, outputs

    @cached_property
    def _encoder(self) -> TextEncoder:
        from edge_sdk.runtime.text import TextEncoder

        step = self._need(Tokenize, "take text")
        _, length = self._fixed(step)
        longest = min(step.max_length, length or step.max_length)
        return TextEncoder(self._file(step.file), longest, step.file)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in order; none where the variant does not classify."""
        step = find_step(self._steps, Labels)
        if step is None or step.file is None:
            return step.names if step else ()
        return tuple(self._file(step.file).decode(errors="replace").splitlines())

    def _need(self, kind: type[Parsed], what: str) -> Parsed:
        step = find_step(self._steps, kind)
        if step is None:
            raise InputError(
                f"this variant cannot {what}: its record has no {kind.__name__.lower()} step",
                where=f"{self._record.name} ({self._record.profile})",
                remedy="use generate(): it is a dialogue model"
                if self._record.generation
                else "use run() with arrays, or convert the source together with its tokenizer "
                "or labels",
            )
        return step

    def _file(self, path: str) -> bytes:
        for file in self._record.files:
            if file.path == path:
                return self._blobs.read(file.blob, FILE_LIMIT)
        raise BundleError("the variant has no such file", where=path)

    def _fixed(self, step: Tokenize) -> tuple[int | None, int | None]:
        """Batch and sequence length of the graph, where they are fixed."""
        name = next(iter(step.inputs))
        shape = self._inputs[name].shape
        if shape is None or len(shape) != 2:
            raise BundleError(
                f"tokens need an input [batch, sequence], this one is {shape}", where=name
            )
        rows, length = (size if isinstance(size, int) else None for size in shape)
        return rows, length

    def _size(self, step: Pool) -> int:
        spec = next(spec for spec in self._record.outputs if spec.name == step.output)
        last = spec.shape[-1] if spec.shape else 0
        return last if isinstance(last, int) else 0


def _texts(given: str | Sequence[str]) -> list[str]:
    rows = [given] if isinstance(given, str) else list(given)
    for row in rows:
        if not isinstance(row, str):
            raise DataError(f"expected str, given {type(row).__name__}", where="texts")
    return rows


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"must be at least 1, given {value}", where=name)


def _check_names(steps: Sequence[Any], inputs: set[str], outputs: set[str]) -> None:
    for step in steps:
        named, known = (
            (set(step.inputs), inputs) if isinstance(step, Tokenize) else ({step.output}, outputs)
        )
        if not named or named - known:
            raise BundleError(
                f"names {sorted(named - known)}, the variant has {sorted(known)}",
                where=f"step {type(step).__name__.lower()!r}",
            )
