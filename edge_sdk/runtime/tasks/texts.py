"""Texts through a variant, in batches that fit the graph and the memory limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from edge_sdk.errors import DataError, InputError, MemoryLimitError
from edge_sdk.runtime.steps import Tokenize
from edge_sdk.runtime.tasks.variant import Outputs, Variant
from edge_sdk.runtime.text import Batch, Text

DEFAULT_BATCH = 8  # a 6-layer encoder gains a fifth over one by one, and nothing beyond


def run_texts(
    variant: Variant, texts: Sequence[Text], batch: int = DEFAULT_BATCH, windows: bool = False
) -> Iterator[tuple[Batch, Outputs]]:
    """Runs texts, or pairs of texts, in batches of similar length.

    Args:
        variant: What runs them.
        texts: What is tokenized.
        batch: Largest number of texts run at once.
        windows: Whether texts that are too long are read to their end, window by window.

    Yields:
        Each batch with the variant's outputs; batches come in any order.

    Raises:
        InputError: The variant takes no text, or ``batch`` is less than 1.
    """
    size, length, pads = _form(variant, batch)
    yield from run_batches(variant, variant.encoder.batches(texts, size, length, pads, windows))


def run_pair(variant: Variant, short: str, long: str) -> Iterator[tuple[Batch, Outputs]]:
    """Runs a short text beside each window of a long one; see :func:`run_texts`.

    Raises:
        DataError: The short text leaves no room for the long one.
    """
    size, length, pads = _form(variant, DEFAULT_BATCH)
    yield from run_batches(variant, variant.pair_encoder.batches(short, long, size, length, pads))


def run_batches(variant: Variant, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Outputs]]:
    """Runs batches, in halves where the whole is predicted not to fit the memory limit."""
    step = variant.need(Tokenize, "take text")
    for part in batches:
        feeds = {
            name: part.arrays[kind].astype(variant.inputs[name].dtype, copy=False)
            for name, kind in step.inputs.items()
        }
        try:
            outputs = variant.run(feeds)
        except MemoryLimitError:
            if len(part.rows) == 1:
                raise
            yield from run_batches(variant, part.halves())
        else:
            yield part, outputs


def texts_of(given: Any, pairs: bool = True) -> list[Text]:
    """One or several texts as a list.

    Args:
        given: A text, or a sequence of texts.
        pairs: Whether a pair of texts may stand for a text.

    Raises:
        DataError: Something among them is neither.
    """
    rows = [given] if isinstance(given, str) or (pairs and is_pair(given)) else list(given)
    for row in rows:
        if not isinstance(row, str) and not (pairs and is_pair(row)):
            raise DataError(f"expected str, given {type(row).__name__}", where="texts")
    return rows


def is_pair(given: Any) -> bool:
    """Whether it is a pair of texts: a tuple, for a list is two texts."""
    return isinstance(given, tuple) and len(given) == 2 and all(isinstance(t, str) for t in given)


def text_of(given: Any, where: str) -> str:
    """A text with something in it.

    Raises:
        DataError: It is none, or blank.
    """
    if not isinstance(given, str):
        raise DataError(f"expected str, given {type(given).__name__}", where=where)
    if not given.strip():
        raise DataError("is empty", where=where, remedy="give a text with words in it")
    return given


def at_least_one(name: str, value: int) -> None:
    """Refuses numbers below 1.

    Raises:
        InputError: It is one.
    """
    if value < 1:
        raise InputError(f"must be at least 1, given {value}", where=name)


def _form(variant: Variant, batch: int) -> tuple[int, int | None, bool]:
    """Rows and length of a batch, and whether rows may be padded."""
    step = variant.need(Tokenize, "take text")
    at_least_one("batch", batch)
    rows, length = variant.token_shape()
    return min(batch, rows or batch), length, "mask" in step.inputs.values()
