"""This SDK as a contest worker: a bundle, loaded and asked as any user would.

Settings: ``model`` (a bundle), ``threads``, ``context``, and optionally ``streams``,
``memory_limit`` and ``prepare``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import edge_sdk
from benchmarks.llm.worker import serve


class EdgeRunner:
    """One loaded bundle."""

    def __init__(self, settings: dict[str, Any]) -> None:
        options = {key: value for key, value in settings.items() if key != "model"}
        self.model = edge_sdk.load(settings["model"], **{"streams": 1, **options})

    def answer(self, prompt: list[int], new_tokens: int) -> Iterator[int]:
        """Tokens of a completion; its text is made too, as users get it."""
        completion = self.model.generate(prompt, max_new_tokens=new_tokens, temperature=0.0)
        seen = 0
        for _ in completion:
            yield from completion.tokens[seen:]
            seen = len(completion.tokens)
        yield from completion.tokens[seen:]


if __name__ == "__main__":
    serve(EdgeRunner)
