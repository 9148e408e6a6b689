"""The tokenizer of a Hugging Face folder as one ``tokenizer.json``, whatever files it has.

::

    tokenizer.json                    taken as it is
    vocab.json + merges.txt           byte-level BPE (GPT-2, early Qwen2)
    tokenizer.model                   SentencePiece (early Llama, InternLM2)

Tokens that only ``tokenizer_config.json`` or ``added_tokens.json`` names are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from converters.decoder import sentencepiece_model, tokenizer_json
from converters.decoder.checkpoint import read_json
from converters.decoder.tokenizer_json import WORDS, Json, added_token, checked
from edge_sdk.errors import SourceError

FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> bytes:
    """The content of ``tokenizer.json``: the folder's own, or one built from older files.

    Args:
        folder: The model's folder.
        config: Its ``tokenizer_config.json``, empty where there is none.

    Raises:
        SourceError: The folder has no tokenizer, or it is damaged.
    """
    file, content = _content(folder, config)
    try:
        content["added_tokens"] = _with_added(content.get("added_tokens", []), folder, config)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SourceError(
            "added tokens are not as tokenizer.json and tokenizer_config.json have them",
            where=str(file),
            remedy="save the tokenizer again",
        ) from None
    return checked(content, str(file))


def _content(folder: Path, config: Mapping[str, Any]) -> tuple[Path, Json]:
    if (file := folder / "tokenizer.json").is_file():
        return file, read_json(file)
    if (file := folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        words = WORDS["qwen2" if "Qwen" in str(config.get("tokenizer_class")) else "gpt-2"]
        merges = _merges(folder / "merges.txt")
        return file, tokenizer_json.byte_level(read_json(file), merges, words, ())
    if (file := folder / "tokenizer.model").is_file():
        return file, sentencepiece_model.read_model(file, legacy=config.get("legacy") is not False)
    raise SourceError(
        "has no tokenizer",
        where=str(folder),
        remedy="put tokenizer.json (or tokenizer.model) into the folder",
    )


def _merges(file: Path) -> list[tuple[str, str]]:
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    wrong = next((pair for pair in pairs if len(pair) != 2), None)
    if wrong:
        raise SourceError(
            f"{' '.join(wrong)[:40]!r} is not a pair of tokens",
            where=str(file),
            remedy="download it again",
        )
    return [(left, right) for left, right in pairs]


def _with_added(tokens: Iterable[Json], folder: Path, config: Mapping[str, Any]) -> list[Json]:
    """Added tokens in the order of their ids: the tokenizer's, then what side files add."""
    found = {int(token["id"]): token for token in tokens}
    for number, token in config.get("added_tokens_decoder", {}).items():
        found.setdefault(int(number), {**added_token(int(number), ""), **token})
    extra = folder / "added_tokens.json"
    if extra.is_file():
        for text, number in read_json(extra).items():
            found.setdefault(number, added_token(number, text))
    return [found[number] for number in sorted(found)]
