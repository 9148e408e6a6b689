"""Texts and pairs of texts to token arrays, in batches of similar length: little is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import BundleError, DataError
from edge_sdk.runtime.steps import Encoding

Ids = NDArray[np.int64]
Text = str | tuple[str, str]
# Texts encoded at a time: enough to sort by length, few enough to hold in memory.
WINDOW = 1024


@dataclass(frozen=True)
class Batch:
    """Token arrays of some texts, padded to one length.

    Attributes:
        rows: Which of the given texts these are; several rows may be windows of one.
        arrays: ``ids``, ``mask`` and ``types``, each int64 ``[batch, sequence]``.
        encodings: The tokenizers library's encoding of each row.
    """

    rows: tuple[int, ...]
    arrays: dict[Encoding, Ids]
    encodings: tuple[Any, ...] = ()

    def halves(self) -> tuple[Batch, Batch]:
        """The batch in two."""
        middle = len(self.rows) // 2
        first, second = (
            Batch(
                self.rows[cut],
                {kind: array[cut] for kind, array in self.arrays.items()},
                self.encodings[cut],
            )
            for cut in (slice(middle), slice(middle, None))
        )
        return first, second


class TextEncoder:
    """A Hugging Face ``tokenizer.json`` with truncation. Safe to call from several threads.

    Args:
        data: Content of ``tokenizer.json``.
        max_length: Tokens kept of each text, special tokens included.
        where: Where the file comes from, for errors.
        stride: Tokens that neighbouring windows of a longer text share.

    Raises:
        BundleError: The tokenizers library cannot read it, or the stride fills a window.
    """

    def __init__(self, data: bytes, max_length: int, where: str, stride: int = 0) -> None:
        self._tokenizer, self._pad_id = _load(data, where)
        try:
            self._tokenizer.enable_truncation(max_length, stride=stride)
        except ValueError as error:
            raise BundleError(str(error), where=where) from error

    def batches(
        self,
        texts: Sequence[Text],
        size: int,
        length: int | None = None,
        pads: bool = True,
        windows: bool = False,
    ) -> Iterator[Batch]:
        """Encodes texts, or pairs of texts, and groups them by length.

        Args:
            texts: What to encode.
            size: Largest number of texts in a batch.
            length: Pad every batch to this length (a graph with a fixed one); the
                longest text of the batch otherwise.
            pads: Whether shorter texts may be padded; a model without a mask would
                read the padding as text, so its batches hold one length only.
            windows: Whether the rest of a text that is too long follows in rows of its own.
        """
        for start in range(0, len(texts), WINDOW):
            rows, encodings = [], []
            for row, text in enumerate(texts[start : start + WINDOW], start):
                pair = (text,) if isinstance(text, str) else text
                first = self._tokenizer.encode(*pair)
                encoded = [first, *(first.overflowing if windows else ())]
                rows += [row] * len(encoded)
                encodings += encoded
            for picked in _chunks([len(e.ids) for e in encodings], size, pads):
                chosen = [encodings[i] for i in picked]
                arrays = _pad(chosen, length, self._pad_id)
                yield Batch(tuple(rows[i] for i in picked), arrays, tuple(chosen))

    def token(self, text: str) -> int | None:
        """The id of a token, if there is such a one."""
        found: int | None = self._tokenizer.token_to_id(text)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        return str(self._tokenizer.decode(list(ids)))

    @property
    def marks_subwords(self) -> bool:
        """Whether a token says by its form that it continues a word, as in WordPiece."""
        return bool(getattr(self._tokenizer.model, "continuing_subword_prefix", None))


class PairEncoder:
    """A ``tokenizer.json`` for a short text and the windows of a long one beside it.

    Args:
        data: Content of ``tokenizer.json``.
        max_length: Tokens of both texts together, special tokens included.
        where: Where the file comes from, for errors.
        stride: Tokens that neighbouring windows share.

    Raises:
        BundleError: The tokenizers library cannot read it.
    """

    def __init__(self, data: bytes, max_length: int, where: str, stride: int) -> None:
        self._tokenizer, self._pad_id = _load(data, where)
        self._tokenizer.no_truncation()
        # Kept apart: it trims offsets, which must happen once, after the windows are cut.
        self._processor = self._tokenizer.post_processor
        self._tokenizer.post_processor = None
        self._max_length = max_length
        self._stride = stride

    def batches(
        self, short: str, long: str, size: int, length: int | None = None, pads: bool = True
    ) -> Iterator[Batch]:
        """The short text with each window of the long one; see :meth:`TextEncoder.batches`.

        Rows count the windows.

        Raises:
            DataError: The short text leaves no room for the long one.
        """
        first, second = self._tokenizer.encode(short), self._tokenizer.encode(long)
        special = self._processor.num_special_tokens_to_add(True) if self._processor else 0
        room = self._max_length - len(first.ids) - special
        if room <= self._stride:
            raise DataError(
                f"{len(first.ids)} tokens leave room for {max(room, 0)} beside them, "
                f"of which windows share {self._stride}",
                where="question",
                remedy="ask more briefly",
            )
        second.truncate(room, stride=self._stride)
        merge = self._processor.process if self._processor else self._tokenizer.post_process
        encodings = [merge(first, window) for window in (second, *second.overflowing)]
        for picked in _chunks([len(e.ids) for e in encodings], size, pads):
            chosen = [encodings[i] for i in picked]
            yield Batch(picked, _pad(chosen, length, self._pad_id), tuple(chosen))


def _load(data: bytes, where: str) -> tuple[Any, int]:
    """The tokenizer without padding, and the token to pad with."""
    from tokenizers import Tokenizer

    try:
        tokenizer: Any = Tokenizer.from_buffer(data)
    except ValueError as error:
        raise BundleError(f"not a readable tokenizer: {error}", where=where) from error
    padding = tokenizer.padding or {}
    tokenizer.no_padding()
    return tokenizer, int(padding.get("pad_id", 0))


def _pad(encodings: Sequence[Any], length: int | None, pad_id: int) -> dict[Encoding, Ids]:
    width = max(length or 0, *(len(encoding.ids) for encoding in encodings))
    ids = np.full((len(encodings), width), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    types = np.zeros_like(ids)
    for i, encoding in enumerate(encodings):
        used = len(encoding.ids)
        ids[i, :used] = encoding.ids
        mask[i, :used] = encoding.attention_mask
        types[i, :used] = encoding.type_ids
    return {"ids": ids, "mask": mask, "types": types}


def _chunks(lengths: Sequence[int], size: int, pads: bool) -> Iterator[tuple[int, ...]]:
    """Rows in batches, by length; a new length starts a batch where padding is barred."""
    chunk: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        new_length = chunk and lengths[row] != lengths[chunk[0]]
        if len(chunk) == size or (new_length and not pads):
            yield tuple(chunk)
            chunk = []
        chunk.append(row)
    if chunk:
        yield tuple(chunk)
