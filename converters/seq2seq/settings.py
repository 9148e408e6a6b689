"""``config.json`` and ``generation_config.json`` as the runtime's :class:`Decoding`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_sdk.bundle.record import Decoding
from edge_sdk.errors import SourceError

Config = Mapping[str, Any]

# Where families say how many tokens the decoder has positions for; T5's are relative, and
# what it was trained on stands for them.
_POSITIONS = ("max_target_positions", "decoder_max_position_embeddings", "max_position_embeddings")
_TRAINED_ON = "n_positions"
_DEFAULT_CONTEXT = 512


def read_decoding(config: Config, generation: Config, where: str) -> Decoding:
    """How a model writes, as its source framework would without further arguments, but greedily.

    Args:
        config: ``config.json``.
        generation: ``generation_config.json``; what it lacks is looked for in ``config``.
        where: The model, for errors.

    Raises:
        SourceError: There is no token to start or to end with.
    """
    settings = {**config, **{k: v for k, v in generation.items() if v is not None}}
    start, eos = settings.get("decoder_start_token_id"), _tokens(settings.get("eos_token_id"))
    if start is None:
        start = settings.get("bos_token_id")
    if start is None or not eos:
        raise SourceError(
            "says neither decoder_start_token_id nor eos_token_id",
            where=where,
            remedy="complete its generation_config.json",
        )
    languages = _languages(settings)
    return Decoding(
        start=(int(start), *(() if languages else _forced(settings))),
        eos=eos,
        context=_context(config),
        max_length=_longest(generation, config),
        min_length=int(settings.get("min_length") or 0),
        suppress=(*_tokens(settings.get("suppress_tokens")), *_bad_words(settings)),
        begin_suppress=_tokens(settings.get("begin_suppress_tokens")),
        no_repeat_ngram=int(settings.get("no_repeat_ngram_size") or 0),
        languages=languages,
        tasks={name: int(token) for name, token in (settings.get("task_to_id") or {}).items()},
        end_of_start=_tokens(settings.get("no_timestamps_token_id")) if languages else (),
    )


def beams(config: Config, generation: Config) -> int:
    """Beams that the model's own settings ask for; ours is one."""
    return int(generation.get("num_beams") or config.get("num_beams") or 1)


def _forced(settings: Config) -> tuple[int, ...]:
    """Tokens forced right behind the first one."""
    if settings.get("forced_bos_token_id") is not None:
        return _tokens(settings["forced_bos_token_id"])
    pairs = dict(settings.get("forced_decoder_ids") or ())
    found: list[int] = []
    while pairs.get(len(found) + 1) is not None:
        found.append(int(pairs[len(found) + 1]))
    if settings.get("model_type") == "whisper" and not found:
        found += _tokens(settings.get("no_timestamps_token_id"))
    return tuple(found)


def _languages(settings: Config) -> dict[str, int]:
    """Language code -> token, of models that are told the language (Whisper)."""
    table = settings.get("lang_to_id") or {}
    return {name.strip("<|>"): int(token) for name, token in table.items()}


def _context(config: Config) -> int:
    found: Any = next((config[key] for key in _POSITIONS if config.get(key)), None)
    return int(found or config.get(_TRAINED_ON) or _DEFAULT_CONTEXT)


def _longest(generation: Config, config: Config) -> int | None:
    given = generation.get("max_length") or config.get("max_length")
    return None if given is None else min(int(given), _context(config))


def _bad_words(settings: Config) -> tuple[int, ...]:
    """Words of one token that must not appear; Marian bars its padding so."""
    words = settings.get("bad_words_ids") or ()
    return tuple(int(word[0]) for word in words if len(word) == 1)


def _tokens(given: Any) -> tuple[int, ...]:
    if given is None:
        return ()
    return tuple(int(t) for t in given) if isinstance(given, list | tuple) else (int(given),)
