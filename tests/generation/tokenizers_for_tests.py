"""The two ways in which dialogue models tokenize, each as a tiny tokenizer made in memory."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIAL = ("<s>", "</s>")


@cache
def byte_level() -> Tokenizer:
    """Byte-level BPE, as Llama 3, Qwen, SmolLM2 and GLM-4 have it: every byte is a token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("h", "e"), ("he", "l"), ("hel", "l"), ("hell", "o"), ("Ġ", "w"), ("ð", "Ł")]
    return _with_special(letters, merges, decoders.ByteLevel())


@cache
def sentence_piece() -> Tokenizer:
    """SentencePiece BPE with byte fallback, as Llama 2, Mistral and InternLM2 have it."""
    letters = [f"<0x{byte:02X}>" for byte in range(256)] + [*"▁abcdehlorw.!é"]
    merges = [("▁", "w"), ("h", "e"), ("▁", "▁")]
    steps = [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
    return _with_special(letters, merges, decoders.Sequence(steps))


def _with_special(
    letters: list[str], merges: list[tuple[str, str]], decoder: decoders.Decoder
) -> Tokenizer:
    words = [*letters, *("".join(pair) for pair in merges)]
    fallback = letters[0].startswith("<0x")
    model = models.BPE(
        {word: i for i, word in enumerate(words)}, merges, byte_fallback=fallback, unk_token=None
    )
    tokenizer = Tokenizer(model)
    if fallback:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer
