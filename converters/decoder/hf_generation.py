"""Special tokens, chat template and sampling defaults of a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from converters.decoder.architecture import Architecture
from converters.decoder.checkpoint import read_json
from converters.decoder.config import Config
from edge_sdk.bundle.record import Generation, Sampling
from edge_sdk.errors import SourceError

# transformers samples from the 50 likeliest where a model's defaults name no number.
DEFAULT_TOP_K = 50


def read_generation(
    folder: Path,
    architecture: Architecture,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    tokenizer: bytes,
) -> Generation:
    """What the runtime needs beside the graphs.

    Args:
        folder: The model's folder.
        architecture: The model.
        config: ``config.json``.
        settings: ``tokenizer_config.json``, over ``special_tokens_map.json``.
        tokenizer: Content of ``tokenizer.json``.

    Raises:
        SourceError: A field is wrong, or the tokenizer is of a model with more tokens.
    """
    text = tokenizers.Tokenizer.from_str(tokenizer.decode())
    original = Config(config, str(folder / "config.json"))
    # Added tokens may exceed the table: a padding token that nobody ever sends.
    if (words := text.get_vocab_size(with_added_tokens=False)) > architecture.vocab:
        raise original.wrong(
            "vocab_size",
            f"is less than the tokenizer's {words} tokens",
            "put the tokenizer of this model into the folder",
        )
    file = folder / "generation_config.json"
    defaults = Config(read_json(file) if file.is_file() else {}, str(file))
    tokens = _tokens(settings)
    bos = text.token_to_id(tokens["bos_token"]) if "bos_token" in tokens else None
    if bos is None and isinstance(config.get("bos_token_id"), int):
        bos = config["bos_token_id"]
    ends = _ids(defaults if defaults.has("eos_token_id") else original)
    eos = [*ends, text.token_to_id(tokens.get("eos_token", ""))]
    add_bos = settings.get("add_bos_token")
    if add_bos is None:
        add_bos = text.encode("").ids[:1] == [bos]
    return generation_of(
        architecture,
        eos=(token for token in eos if token is not None),
        bos=bos,
        add_bos=bool(add_bos) and bos is not None,
        chat_template=_template(folder, settings),
        tokens=tokens,
        sampling=read_sampling(defaults),
    )


def generation_of(architecture: Architecture, *, eos: Iterable[int], **known: Any) -> Generation:
    """The record's description of an architecture, with what a reader knows of its text side."""
    model = architecture
    return Generation(
        layers=model.layers,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        vocab=model.vocab,
        context=model.context,
        eos=tuple(dict.fromkeys(token for token in eos if 0 <= token < model.vocab)),
        **known,
    )


def _tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """``bos_token`` … as text; older files hold objects with flags."""
    found = {}
    for key, value in settings.items():
        if key.endswith("_token"):
            content = value.get("content") if isinstance(value, dict) else value
            if isinstance(content, str):
                found[key] = content
    return found


def _ids(config: Config) -> list[int]:
    """Tokens that end a turn."""
    given = config.values.get("eos_token_id")
    found = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(token, int) for token in found):
        raise config.wrong("eos_token_id", "must be a token's number or a list of them")
    return found


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    """The chat template; of several named ones ``default``, else the first."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise SourceError("is not UTF-8", where=str(file)) from error
    given = settings.get("chat_template") or ""
    try:
        if isinstance(given, str):
            return given
        named = {entry["name"]: entry["template"] for entry in given}
    except (TypeError, KeyError):
        raise SourceError(
            "is neither a template nor a list of named ones",
            where=f"{folder / 'tokenizer_config.json'}: chat_template",
        ) from None
    return str(named.get("default") or next(iter(named.values()), ""))


def read_sampling(defaults: Config) -> Sampling:
    """A model's own way of drawing tokens, by its ``generation_config.json``."""

    def number(field: str, default: float) -> float:
        return defaults.number(field, default) if defaults.values.get(field) else default

    penalty = number("repetition_penalty", 1.0)
    if not defaults.flag("do_sample", False):
        return Sampling(repetition_penalty=penalty)
    return Sampling(
        temperature=number("temperature", 1.0),
        top_k=int(number("top_k", 0 if "top_k" in defaults.values else DEFAULT_TOP_K)),
        top_p=number("top_p", 1.0),
        min_p=number("min_p", 0.0),
        repetition_penalty=penalty,
    )
