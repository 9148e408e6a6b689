"""A contest worker without an engine: it counts on from the prompt's last token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.llm.worker import serve


class Echo:
    version = "echo 1"

    def __init__(self, settings: dict[str, Any]) -> None:
        self.most = settings["most"]

    def answer(self, prompt: list[int], new_tokens: int) -> Iterator[int]:
        yield from range(prompt[-1], prompt[-1] + min(new_tokens, self.most))


if __name__ == "__main__":
    serve(Echo)
