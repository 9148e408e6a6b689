"""What a completion took. Without numpy, because the command line describes its output with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stats:
    """What a completion took.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        cached_tokens: Those of them that an earlier request had left in the KV cache.
        new_tokens: Tokens drawn so far.
        ttft_ms: From the request to the first token, in milliseconds; ``None`` before it.
        tokens_per_second: Pace of the tokens after the first; ``None`` before the second.
    """

    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    ttft_ms: float | None
    tokens_per_second: float | None
