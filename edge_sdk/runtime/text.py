"""Text to token arrays, in batches of similar length so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_sdk.errors import BundleError
from edge_sdk.runtime.steps import Encoding

Ids = NDArray[np.int64]
# Texts encoded at a time: enough to sort by length, few enough to hold in memory.
WINDOW = 1024


@dataclass(frozen=True)
class Batch:
    """Token arrays of some texts, padded to one length.

    Attributes:
        rows: Which of the given texts these are.
        arrays: ``ids``, ``mask`` and ``types``, each int64 ``[batch, sequence]``.
    """

    rows: tuple[int, ...]
    arrays: dict[Encoding, Ids]

    def halves(self) -> tuple[Batch, Batch]:
        """The batch in two."""
        middle = len(self.rows) // 2
        first, second = (
            Batch(self.rows[cut], {kind: array[cut] for kind, array in self.arrays.items()})
            for cut in (slice(middle), slice(middle, None))
        )
        return first, second


class TextEncoder:
    """A Hugging Face ``tokenizer.json`` with truncation. Safe to call from several threads.

    Args:
        data: Content of ``tokenizer.json``.
        max_length: Tokens kept of each text, special tokens included.
        where: Where the file comes from, for errors.

    Raises:
        BundleError: The tokenizers library cannot read it.
    """

    def __init__(self, data: bytes, max_length: int, where: str) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_buffer(data)
        except ValueError as error:
            raise BundleError(f"not a readable tokenizer: {error}", where=where) from error
        padding = self._tokenizer.padding or {}
        self._pad_id = int(padding.get("pad_id", 0))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)

    def batches(
        self, texts: Sequence[str], size: int, length: int | None = None, pads: bool = True
    ) -> Iterator[Batch]:
        """Encodes texts and groups them by length.

        Args:
            texts: What to encode.
            size: Largest number of texts in a batch.
            length: Pad every batch to this length (a graph with a fixed one); the
                longest text of the batch otherwise.
            pads: Whether shorter texts may be padded; a model without a mask would
                read the padding as text, so its batches hold one length only.
        """
        for start in range(0, len(texts), WINDOW):
            encodings = [self._tokenizer.encode(text) for text in texts[start : start + WINDOW]]
            for picked in _chunks([len(e.ids) for e in encodings], size, pads):
                arrays = self._pad([encodings[i] for i in picked], length)
                yield Batch(tuple(start + i for i in picked), arrays)

    def _pad(self, encodings: Sequence[Any], length: int | None) -> dict[Encoding, Ids]:
        width = max(length or 0, *(len(encoding.ids) for encoding in encodings))
        ids = np.full((len(encodings), width), self._pad_id, dtype=np.int64)
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
