"""How fast a decoder answers: one protocol for the workstation and for devices."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edge_sdk.runtime.generation.decoder import CHUNK, Decoder

# The answer that stands for all: this long a prompt, this many new tokens.
PROMPT, ANSWER = 128, 64
# Tokens decoded in a turn; the rest of the answer takes as long each.
TIMED = 16
MIN_TURNS = 2


def prompt_of(tokens: Sequence[int], context: int) -> list[int]:
    """A prompt of :data:`PROMPT` tokens, or as many as leave room for an answer."""
    wanted = min(PROMPT, max(1, context - TIMED))
    repeats = -(-wanted // len(tokens))
    return (list(tokens) * repeats)[:wanted]


def turns(decoder: Decoder, prompt: Sequence[int], seconds: float) -> list[tuple[float, float]]:
    """Takes turns for some time, after a warm-up; see :func:`turn`."""
    turn(decoder, prompt)
    found: list[tuple[float, float]] = []
    deadline = time.perf_counter() + seconds
    while len(found) < MIN_TURNS or time.perf_counter() < deadline:
        found.append(turn(decoder, prompt))
    return found


def turn(decoder: Decoder, prompt: Sequence[int]) -> tuple[float, float]:
    """Seconds to the first token, and per further token.

    What is decoded is given and not drawn, so that no answer ends early.

    Args:
        decoder: With room for the prompt and :data:`TIMED` tokens in its first row.
        prompt: Its tokens.
    """
    started = time.perf_counter()
    for past in range(0, len(prompt), CHUNK):
        decoder.prefill(0, prompt[past : past + CHUNK], past)
    first = time.perf_counter()
    for past in range(len(prompt), len(prompt) + TIMED):
        decoder.decode(0, [prompt[past % len(prompt)]], [past])
    return first - started, (time.perf_counter() - first) / TIMED
