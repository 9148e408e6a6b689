"""Special tokens, chat template and sampling defaults of a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from converters.decoder.architecture import Architecture
from converters.decoder.checkpoint import read_json
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
        settings: ``tokenizer_config.json``, empty where there is none.
        tokenizer: Content of ``tokenizer.json``.
    """
    text = tokenizers.Tokenizer.from_str(tokenizer.decode())
    file = folder / "generation_config.json"
    defaults = read_json(file) if file.is_file() else {}
    tokens = _tokens(settings)
    bos = text.token_to_id(tokens["bos_token"]) if "bos_token" in tokens else None
    if bos is None and isinstance(config.get("bos_token_id"), int):
        bos = config["bos_token_id"]
    eos = [*_ids(defaults, config), text.token_to_id(tokens.get("eos_token", ""))]
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
        sampling=_sampling(defaults),
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


def _ids(defaults: Mapping[str, Any], config: Mapping[str, Any]) -> list[int]:
    """Tokens that end a turn: what generation uses, else what the model was made with."""
    found = defaults.get("eos_token_id", config.get("eos_token_id"))
    return [found] if isinstance(found, int) else list(found or ())


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    """The chat template; of several named ones ``default``, else the first."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    given = settings.get("chat_template") or ""
    if isinstance(given, str):
        return given
    try:
        named = {entry["name"]: entry["template"] for entry in given}
    except (TypeError, KeyError):
        raise SourceError(
            "is neither a template nor a list of named ones",
            where=f"{folder / 'tokenizer_config.json'}: chat_template",
        ) from None
    return str(named.get("default") or next(iter(named.values()), ""))


def _sampling(defaults: Mapping[str, Any]) -> Sampling:
    penalty = defaults.get("repetition_penalty") or 1.0
    if not defaults.get("do_sample"):
        return Sampling(repetition_penalty=penalty)
    top_k = defaults.get("top_k", DEFAULT_TOP_K)
    return Sampling(
        temperature=defaults.get("temperature") or 1.0,
        top_k=top_k or 0,
        top_p=defaults.get("top_p") or 1.0,
        min_p=defaults.get("min_p") or 0.0,
        repetition_penalty=penalty,
    )
