"""A variant as its tasks see it: steps, files, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import TensorSpec, VariantRecord
from edge_sdk.errors import BundleError, InputError
from edge_sdk.runtime.inputs import Array
from edge_sdk.runtime.steps import (
    Ctc,
    Entities,
    Fill,
    Labels,
    Pool,
    Span,
    Tokenize,
    find_step,
    parse_steps,
)

if TYPE_CHECKING:
    from edge_sdk.runtime.text import PairEncoder, TextEncoder

FILE_LIMIT = 64 * 1024 * 1024  # largest tokenizer, vocabulary or label file, in bytes

Outputs = Mapping[str, Array]
Run = Callable[[Mapping[str, Any]], Outputs]
Parsed = TypeVar("Parsed", bound=msgspec.Struct)


class Variant:
    """Steps, files, inputs and ``run`` of one variant.

    Args:
        record: The variant.
        blobs: Where its files are.
        inputs: What ``run`` takes.
        run: Runs the variant.

    Attributes:
        inputs: Model input -> its signature.
        run: Runs the variant.

    Raises:
        BundleError: A step is unknown, or names an input or output that is not there.
    """

    def __init__(
        self, record: VariantRecord, blobs: BlobStore, inputs: Sequence[TensorSpec], run: Run
    ) -> None:
        self.inputs = {spec.name: spec for spec in inputs}
        self.run = run
        self._record = record
        self._blobs = blobs
        self._steps = parse_steps((*record.preprocess, *record.postprocess))
        _check_names(self._steps, set(self.inputs), {spec.name for spec in record.outputs})

    def find(self, kind: type[Parsed]) -> Parsed | None:
        """The variant's step of that kind, if it has one."""
        return find_step(self._steps, kind)

    def need(self, kind: type[Parsed], what: str) -> Parsed:
        """The variant's step of that kind.

        Args:
            kind: The step.
            what: What it is needed for, to complete "cannot …".

        Raises:
            InputError: It has none.
        """
        step = self.find(kind)
        if step is None:
            raise self.cannot(what, f"its record has no {kind.__name__.lower()} step")
        return step

    def cannot(self, what: str, why: str) -> InputError:
        """The error for a task that this variant is not made for."""
        able = " or ".join(f"{task}()" for task in self.tasks)
        return InputError(
            f"this variant cannot {what}: {why}",
            where=f"{self._record.name} ({self._record.profile})",
            remedy=f"use {able}"
            if able
            else "use run() with arrays, or convert the source together with its tokenizer, "
            "labels or preprocessor_config.json",
        )

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Methods of a model that this variant is made for, beside ``run``."""
        found = [method for kind, method in METHODS.items() if self.find(kind)]
        if self._record.generation or (self._record.decoding and self.find(Tokenize)):
            found.append("generate")
        elif self._record.decoding:
            found.append("transcribe")
        return tuple(found)

    def read(self, path: str) -> bytes:
        """Content of one of the variant's files.

        Raises:
            BundleError: It has no such file.
        """
        for file in self._record.files:
            if file.path == path:
                return self._blobs.read(file.blob, FILE_LIMIT)
        raise BundleError("the variant has no such file", where=path)

    def output(self, name: str) -> TensorSpec:
        """Signature of an output."""
        return next(spec for spec in self._record.outputs if spec.name == name)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, or of the tags, in order; none where there are neither."""
        step = self.find(Labels) or self.find(Entities)
        if isinstance(step, Labels) and step.file is not None:
            return tuple(self.read(step.file).decode(errors="replace").splitlines())
        return step.names if step else ()

    def token_shape(self) -> tuple[int | None, int | None]:
        """Batch and sequence length of the token inputs, where the graph fixes them."""
        name = next(iter(self.need(Tokenize, "take text").inputs))
        shape = self.inputs[name].shape
        if shape is None or len(shape) != 2:
            raise BundleError(
                f"tokens need an input [batch, sequence], this one is {shape}", where=name
            )
        rows, length = (size if isinstance(size, int) else None for size in shape)
        return rows, length

    @cached_property
    def encoder(self) -> TextEncoder:
        """The tokenizer; texts are cut at what the step and the graph take.

        Raises:
            InputError: The variant takes no text.
            BundleError: The tokenizer cannot be read.
        """
        from edge_sdk.runtime.text import TextEncoder

        step, longest, stride = self._longest()
        return TextEncoder(self.read(step.file), longest, step.file, stride)

    @cached_property
    def pair_encoder(self) -> PairEncoder:
        """The tokenizer for a question beside the windows of a context.

        Raises:
            InputError: The variant takes no text.
            BundleError: The tokenizer cannot be read.
        """
        from edge_sdk.runtime.text import PairEncoder

        step, longest, stride = self._longest()
        return PairEncoder(self.read(step.file), longest, step.file, stride)

    def _longest(self) -> tuple[Tokenize, int, int]:
        """Tokens of a window, and those it shares with the next, as the graph takes them."""
        step = self.need(Tokenize, "take text")
        _, length = self.token_shape()
        longest = min(step.max_length, length or step.max_length)
        return step, longest, min(step.stride, longest // 2)


METHODS: dict[type[msgspec.Struct], str] = {
    Pool: "embed",
    Labels: "classify",
    Entities: "tag",
    Span: "answer",
    Fill: "fill",
    Ctc: "transcribe",
}


def _check_names(steps: Sequence[Any], inputs: set[str], outputs: set[str]) -> None:
    for step in steps:
        read = {*_said(step, "input", "mask"), *getattr(step, "inputs", ())}
        written = _said(step, "output", "start", "end")
        for named, known in ((read, inputs), (written, outputs)):
            if named - known:
                raise BundleError(
                    f"names {sorted(named - known)}, the variant has {sorted(known)}",
                    where=f"step {type(step).__name__.lower()!r}",
                )


def _said(step: Any, *fields: str) -> set[str]:
    values = (getattr(step, field, None) for field in fields)
    return {value for value in values if value is not None}
