"""``config.json`` and ``generation_config.json`` as the runtime's :class:`Decoding`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from converters.decoder.config import Config as Checked
from converters.decoder.hf_generation import read_sampling
from edge_sdk.bundle.record import Decoding
from edge_sdk.errors import SourceError

Config = Mapping[str, Any]

# Where families say how many tokens the decoder has positions for; T5's are relative, and
# what it was trained on stands for them.
_POSITIONS = ("max_target_positions", "decoder_max_position_embeddings", "max_position_embeddings")
_TRAINED_ON = "n_positions"
_DEFAULT_CONTEXT = 512
# Of these, what generation_config.json lacks is in config.json; of all else, nothing.
_TOKENS = ("bos_token_id", "eos_token_id", "decoder_start_token_id")
# What would change the output and is not done here, with the values that change nothing.
_UNDONE: Mapping[str, Any] = {
    "diversity_penalty": 0.0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1.0,
    "sequence_bias": None,
    "watermarking_config": None,
}


def read_decoding(config: Config, generation: Config, where: str) -> Decoding:
    """How a model writes, as its source framework would without further arguments, but greedily.

    Args:
        config: ``config.json``.
        generation: ``generation_config.json``; where there is none, ``config`` has it all.
        where: The model, for errors.

    Raises:
        SourceError: There is no token to start or to end with.
    """
    settings = _settings(config, generation)
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
    forced = () if languages else _forced(settings)
    words = [tuple(_tokens(word)) for word in settings.get("bad_words_ids") or ()]
    return Decoding(
        start=(int(start), *forced),
        eos=eos,
        context=_context(config),
        max_length=_longest(settings, config),
        min_length=_shortest(settings),
        suppress=(*_tokens(settings.get("suppress_tokens")), *_single(words, eos)),
        begin_suppress=_tokens(settings.get("begin_suppress_tokens")),
        no_repeat_ngram=int(settings.get("no_repeat_ngram_size") or 0),
        encoder_no_repeat_ngram=int(settings.get("encoder_no_repeat_ngram_size") or 0),
        bad_words=tuple(word for word in words if len(word) > 1),
        forced=len(forced) if settings.get("forced_bos_token_id") is not None else 0,
        forced_eos=settings.get("forced_eos_token_id") is not None,
        languages=languages,
        tasks={name: int(token) for name, token in (settings.get("task_to_id") or {}).items()},
        end_of_start=_tokens(settings.get("no_timestamps_token_id")) if languages else (),
        sampling=read_sampling(Checked(settings, where)),
    )


def undone(config: Config, generation: Config) -> list[str]:
    """Settings of the model that change its output elsewhere and are not applied here."""
    settings = _settings(config, generation)
    return [
        f"{name} = {settings[name]}"
        for name, neutral in _UNDONE.items()
        if settings.get(name) is not None and settings[name] != neutral
    ]


def beams(config: Config, generation: Config) -> int:
    """Beams that the model's own settings ask for; ours is one."""
    return int(_settings(config, generation).get("num_beams") or 1)


def _settings(config: Config, generation: Config) -> dict[str, Any]:
    """As the source framework merges both: the configuration counts where nothing else is."""
    given = {k: v for k, v in generation.items() if v is not None}
    if not given or given.get("_from_model_config"):
        return {**config, **given}
    model = {"model_type": config.get("model_type")}
    return {**model, **{name: config.get(name) for name in _TOKENS}, **given}


def _shortest(settings: Config) -> int:
    """Tokens before the end, the decoder's start token included."""
    drawn = int(settings.get("min_new_tokens") or 0)
    return max(int(settings.get("min_length") or 0), drawn + 1 if drawn else 0)


def _single(words: Iterable[tuple[int, ...]], eos: tuple[int, ...]) -> tuple[int, ...]:
    """Words of one token that must not appear; Marian bars its padding so."""
    return tuple(word[0] for word in words if len(word) == 1 and word[0] not in eos)


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


def _longest(settings: Config, config: Config) -> int | None:
    """The model's own limit; the framework's default of 20 tokens is nobody's."""
    drawn = settings.get("max_new_tokens")
    given = int(drawn) + 1 if drawn else settings.get("max_length")
    return None if given is None else min(int(given), _context(config))


def _tokens(given: Any) -> tuple[int, ...]:
    if given is None:
        return ()
    return tuple(int(t) for t in given) if isinstance(given, list | tuple) else (int(given),)
