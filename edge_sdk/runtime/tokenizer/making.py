"""From ``tokenizer.json`` to tables, compared with the tokenizers library before they are used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any
from unicodedata import unidata_version

import msgspec

from edge_sdk.runtime.tokenizer import table
from edge_sdk.runtime.tokenizer.byte_level import ByteLevelTokenizer
from edge_sdk.runtime.tokenizer.splitting import patterns_of
from edge_sdk.runtime.tokenizer.table import NONE, Added, Header, Table

if TYPE_CHECKING:
    import tokenizers

# What text in UTF-8 can hold.
TEXT_BYTES = (*range(0x80), *range(0x80, 0xC0), *range(0xC2, 0xF5))
# Of the library, those that merging below does not know.
PLAIN = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
SAMPLES = (
    "The pump's pressure isn't 3.5 bar; we'll check THEY'VE 12345 items, don't they?",
    " leading and  double   spaces \t\ttabs\r\n\r\nlines\n \n  end  ",
    "naïve café — Ελληνικά, кириллица, العربية, עברית, हिन्दी, ไทย, 日本語, 한국어, 中文。",
    "👩‍🔧🏽 1️⃣ ½ ² Ⅷ ٣ ๔ a\u0301 \u00a0\u2003\u3000x\u0085y\u2028z \x1c\x1d \x00\x7f\ufeff\u200b",
    'for (i = 0; i < n; ++i) {\n\tx[i] += "a\'b\\n"; // ---- ====\n}\n',
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ababababababab 0000000000 ........ '''' 's 'S 'Re'll",
    "ſ K İ ß ǅ ﬁ 𝒜𝟘 𐍈 \U0001f1e9\U0001f1ea \U0010fffd \ue000",
)


class _Model(msgspec.Struct):
    """The part ``model`` of a ``tokenizer.json``."""

    type: str
    vocab: dict[str, int]
    merges: list[str | tuple[str, str]]
    dropout: float | None = None
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    byte_fallback: bool = False
    ignore_merges: bool = False


class _AddedToken(msgspec.Struct):
    id: int
    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


class _File(msgspec.Struct):
    model: _Model
    added_tokens: tuple[_AddedToken, ...] = ()
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None


class _UnknownError(Exception):
    """The tables cannot express the tokenizer. Never leaves this module."""


def made(data: bytes, source: str, library: tokenizers.Tokenizer) -> bytes:
    """The file of a tokenizer's tables; a refusal where they do not do what the library does.

    Args:
        data: The ``tokenizer.json``.
        source: Its digest.
        library: The same, loaded.
    """
    try:
        header, sections = _tables(data, source)
        _compare(header, sections, library)
    except _UnknownError as error:
        header, sections = Header(source=source, unicode=unidata_version, refused=str(error)), {}
    return table.written(header, sections)


def _tables(data: bytes, source: str) -> tuple[Header, dict[str, bytes]]:
    try:
        file = msgspec.json.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _UnknownError(f"another form of file: {error}") from error
    model = file.model
    if model.type != "BPE" or any(getattr(model, name) for name in PLAIN):
        raise _UnknownError("another model")
    patterns = patterns_of(file.pre_tokenizer)
    if patterns is None or not _is_byte_level(file.pre_tokenizer):
        raise _UnknownError("another pre-tokenizer")
    if (file.decoder or {}).get("type") != "ByteLevel":
        raise _UnknownError("another decoder")
    if file.normalizer not in (None, {"type": "NFC"}):
        raise _UnknownError("another normalizer")
    composed = file.normalizer is not None
    header = Header(
        source=source,
        unicode=unidata_version,
        patterns=tuple(patterns),
        composed=composed,
        whole=model.ignore_merges,
        added={each.id: _added(each, composed) for each in file.added_tokens},
    )
    return header, _sections(model, header.added)


def _sections(model: _Model, added: Mapping[int, Added]) -> dict[str, bytes]:
    byte_of = bytes_of_characters()
    names = {token: name for name, token in model.vocab.items()}
    names |= {token: each.content for token, each in added.items()}
    shown = [_bytes(names.get(token, ""), byte_of) for token in range(max(names) + 1)]
    letters = {byte: model.vocab.get(character, NONE) for character, byte in byte_of.items()}
    if any(letters[byte] == NONE for byte in TEXT_BYTES):
        raise _UnknownError("a byte has no token")
    pairs: dict[int, int] = {}
    for rank, merge in enumerate(model.merges):
        left, _, right = (
            merge.partition(" ") if isinstance(merge, str) else (merge[0], "", merge[1])
        )
        try:
            key = model.vocab[left] << 32 | model.vocab[right]
            pairs[key] = rank << 32 | model.vocab[left + right]
        except KeyError as error:
            raise _UnknownError(f"a merge of no tokens: {error}") from error
    if len(pairs) != len(model.merges):
        raise _UnknownError("a merge comes twice")
    ordered = sorted(pairs)
    spelled = (token for name, token in model.vocab.items() if all(map(byte_of.__contains__, name)))
    offsets = [0]
    for each in shown:
        offsets.append(offsets[-1] + len(each))
    return {
        "bytes": table.packed("I", [letters[byte] for byte in range(table.BYTES)]),
        "text": b"".join(shown),
        "offsets": table.packed("I", offsets),
        "pairs": table.packed("Q", ordered),
        "merged": table.packed("Q", [pairs[key] for key in ordered]),
        "order": table.packed("I", sorted(spelled, key=shown.__getitem__)),
    }


def _added(token: _AddedToken, composed: bool) -> Added:
    if token.single_word or token.lstrip or token.rstrip or not token.content:
        raise _UnknownError(f"an added token takes its surroundings: {token.content!r}")
    if composed and token.normalized and not token.content.isascii():
        raise _UnknownError(f"an added token has a normal form: {token.content!r}")
    return Added(content=token.content, special=token.special, normalized=token.normalized)


def _is_byte_level(part: Mapping[str, Any] | None) -> bool:
    """Whether a pre-tokenizer, whose patterns are known, writes texts in bytes."""
    while part and part["type"] == "Sequence" and part["pretokenizers"]:
        part = part["pretokenizers"][-1]
    return part is not None and part["type"] == "ByteLevel"


def bytes_of_characters() -> dict[str, int]:
    """The character that byte-level vocabularies write for each byte, the other way round.

    GPT-2's: what can be seen is itself, the rest follows from U+0100 on.
    """
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(0x100) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {
        chr(0x100 + index): byte for index, byte in enumerate(rest)
    }


def _bytes(name: str, byte_of: Mapping[str, int]) -> bytes:
    """What a token shows: its bytes, or its own letters if one of them stands for no byte."""
    if all(character in byte_of for character in name):
        return bytes(byte_of[character] for character in name)
    return name.encode()


def _compare(header: Header, sections: Mapping[str, bytes], library: tokenizers.Tokenizer) -> None:
    """Encodes and decodes with both.

    Raises:
        _UnknownError: They differ.
    """
    found = table.parsed(memoryview(table.written(header, sections)))
    assert found is not None, "it was written just now"
    tables = Table(*found)
    ours = ByteLevelTokenizer(tables, lambda: library)
    if len(tables) < library.get_vocab_size():
        raise _UnknownError("there are more tokens")
    for token in range(len(tables)):
        if library.decode([token], skip_special_tokens=False) != ours.decode([token], False):
            raise _UnknownError(f"token {token} reads differently")
    for text in chain(SAMPLES, _texts(tables)):
        ids = library.encode(text, add_special_tokens=False).ids
        if ours.encode(text).ids != ids:
            raise _UnknownError(f"a text is read differently: {text[:64]!r}")
        if ours.decode(ids) != library.decode(ids):
            raise _UnknownError(f"a text is shown differently: {text[:64]!r}")


def _texts(tables: Table) -> Iterator[str]:
    """Texts of this vocabulary: tokens from all of it, side by side and apart."""
    step = max(1, len(tables) // 1024)
    tokens = [
        tables.bytes_of(token).decode(errors="ignore") for token in range(0, len(tables), step)
    ]
    yield "".join(tokens)
    yield " ".join(tokens)
    for each in tables.header.added.values():
        yield f"a{each.content} {each.content}{each.content}\n{each.content[:-1]}"
