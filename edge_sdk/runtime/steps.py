"""Pre- and post-processing steps of a variant: what the record says, as typed options.

The registry: an ``op`` in the record names one class here, and the step's
options are that class's fields. Converters write steps with :func:`to_step`,
the runtime reads them with :func:`parse_steps`; :mod:`edge_sdk.runtime.text`
and :mod:`edge_sdk.runtime.scores` carry them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge_sdk.bundle.record import Step
from edge_sdk.errors import BundleError

Encoding = Literal["ids", "mask", "types"]


class Tokenize(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Text to token arrays.

    Attributes:
        inputs: Model input -> which array of the encoding it takes.
        max_length: Tokens kept of each text, special tokens included.
        file: The tokenizer among the variant's files.
    """

    inputs: dict[str, Encoding]
    max_length: Annotated[int, Meta(gt=0)]
    file: str = "tokenizer.json"


class Pool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Token vectors to one vector per text.

    Attributes:
        output: Model output, ``[batch, sequence, size]``, or ``[batch, size]`` for ``none``.
        mode: ``mean`` over the tokens of the text, the first token (``cls``), or ``none``.
        normalize: Whether vectors are scaled to unit length.
    """

    output: str
    mode: Literal["mean", "cls", "none"] = "mean"
    normalize: bool = True


class Softmax(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Logits to probabilities over the last axis.

    Attributes:
        output: Model output, ``[batch, classes]``.
    """

    output: str


class Labels(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Names of the classes.

    Attributes:
        output: Model output with one score per class, ``[batch, classes]``.
        names: The names in order of the classes, or
        file: a text file among the variant's files with one name per line.
    """

    output: str
    names: tuple[str, ...] = ()
    file: str | None = None


class Classification(msgspec.Struct, frozen=True):
    """One class with its score: a probability where the variant has a softmax step."""

    label: str
    score: float


STEPS: dict[str, type[msgspec.Struct]] = {
    "tokenize": Tokenize,
    "pool": Pool,
    "softmax": Softmax,
    "labels": Labels,
}
Parsed = TypeVar("Parsed", bound=msgspec.Struct)


def to_step(options: msgspec.Struct) -> Step:
    """The record's form of typed step options."""
    op = next(op for op, kind in STEPS.items() if isinstance(options, kind))
    return Step(op=op, options=msgspec.to_builtins(options))


def parse_steps(steps: Sequence[Step]) -> tuple[Any, ...]:
    """Typed options of each step, in order.

    Raises:
        BundleError: An unknown step, or options that do not fit it.
    """
    return tuple(_parse(step) for step in steps)


def find_step(steps: Sequence[Any], kind: type[Parsed]) -> Parsed | None:
    """The first parsed step of that kind."""
    return next((step for step in steps if isinstance(step, kind)), None)


def _parse(step: Step) -> msgspec.Struct:
    if step.op not in STEPS:
        raise BundleError(
            f"unknown step; this version knows {', '.join(STEPS)}",
            where=f"step {step.op!r}",
            remedy="run the bundle with the edge-sdk version that made it, or a newer one",
        )
    try:
        return msgspec.convert(step.options, STEPS[step.op])
    except msgspec.ValidationError as error:
        raise BundleError(str(error), where=f"step {step.op!r}") from error
