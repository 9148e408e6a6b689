"""A variant's tokenizer: over tables that were made at its first load, or the library's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge_sdk.bundle import files
from edge_sdk.bundle.blobs import BlobStore, hex_of
from edge_sdk.bundle.reader import Variant
from edge_sdk.bundle.record import Blob, VariantRecord
from edge_sdk.errors import BundleError, WorkError
from edge_sdk.runtime import process
from edge_sdk.runtime.tokenizer import table
from edge_sdk.runtime.tokenizer.byte_level import ByteLevelTokenizer
from edge_sdk.runtime.tokenizer.table import Header

if TYPE_CHECKING:
    import tokenizers

TOKENIZER = "tokenizer.json"
LIMIT = 64 * 1024 * 1024  # largest tokenizer that is read, in bytes
PREPARED = "tokenizer"  # in the variant's folder of prepared files


class Tokenizer(Protocol):
    """What dialogue needs of a tokenizer; the library's has it too."""

    def get_added_tokens_decoder(self) -> Mapping[int, Any]:
        """Token -> what is added, with ``content`` and ``special``."""

    def id_to_token(self, token: int, /) -> Any:
        """Something of a token; ``None`` where there is no such token."""

    def encode(self, text: str, /, *, add_special_tokens: bool) -> Any:
        """The tokens of a text, as ``ids``; TypeError where it holds half a character."""

    def decode(self, ids: Sequence[int], /) -> str:
        """The text of tokens, special ones left out."""


def open_tokenizer(variant: Variant, *, prepare: bool = True) -> Tokenizer:
    """The variant's tokenizer, without padding or truncation.

    Args:
        variant: A variant with a ``tokenizer.json``.
        prepare: Whether tables may be used and, where there are none, made.

    Raises:
        BundleError: It has no tokenizer, or it cannot be read.
    """
    found = _prepared(variant) if prepare else None
    return found or read_tokenizer(variant.record, variant.blobs)


def prepare_tokenizer(variant: Variant) -> None:
    """Makes the tables of a variant that has none yet, where that is possible.

    For a moment the library takes tens of MB, which is better before the weights are there.

    Args:
        variant: A variant with a ``tokenizer.json``.

    Raises:
        BundleError: It has no tokenizer, or it cannot be read.
    """
    if not _place(variant).exists():
        _make(variant)
        process.trim()


def _prepared(variant: Variant) -> Tokenizer | None:
    """The tokenizer over its tables; ``None`` where there are none and can be none."""
    from unicodedata import unidata_version

    digest = _blob(variant.record).digest
    found = table.read(_place(variant), digest, unidata_version)
    if found is None:
        _make(variant)
        found = table.read(_place(variant), digest, unidata_version)
    if found is None or isinstance(found, Header):
        return None
    return ByteLevelTokenizer(found, cache(partial(read_tokenizer, variant.record, variant.blobs)))


def _place(variant: Variant) -> Path:
    return variant.blobs.root / "prepared" / hex_of(variant.digest) / PREPARED


def _make(variant: Variant) -> None:
    from edge_sdk.runtime.tokenizer.making import made

    blob, place = _blob(variant.record), _place(variant)
    with suppress(OSError, WorkError):  # a folder that is read-only, or full
        place.parent.mkdir(parents=True, exist_ok=True)
        with files.temporary(place.parent) as file:
            library = read_tokenizer(variant.record, variant.blobs)
            file.write(made(variant.blobs.read(blob, LIMIT), blob.digest, library))
            files.commit(file, place)


def read_tokenizer(record: VariantRecord, blobs: BlobStore) -> tokenizers.Tokenizer:
    """The library's tokenizer of a variant, without padding or truncation.

    Raises:
        BundleError: It has no tokenizer, or it cannot be read.
    """
    from tokenizers import Tokenizer

    data = blobs.read(_blob(record), LIMIT)
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except ValueError as error:
        raise BundleError(f"not a readable tokenizer: {error}", where=TOKENIZER) from error
    tokenizer.no_padding()  # some are shipped as training left them
    tokenizer.no_truncation()
    return tokenizer


def _blob(record: VariantRecord) -> Blob:
    for file in record.files:
        if file.path == TOKENIZER:
            return file.blob
    raise BundleError("the variant has no such file", where=TOKENIZER)
