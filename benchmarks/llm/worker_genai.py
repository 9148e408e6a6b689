"""onnxruntime-genai as a contest worker.

Settings: ``model`` (a folder written by its own builder), ``threads``, ``context``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import onnxruntime_genai as genai

from benchmarks.llm.worker import serve


class GenaiRunner:
    """A generator per prompt over one model."""

    def __init__(self, settings: dict[str, Any]) -> None:
        config = genai.Config(settings["model"])
        options = {"session_options": {"intra_op_num_threads": settings["threads"]}}
        config.overlay(json.dumps({"model": {"decoder": options}}))
        self._model = genai.Model(config)
        self._params = genai.GeneratorParams(self._model)
        self._params.set_search_options(max_length=settings["context"], do_sample=False)

    def answer(self, prompt: list[int], new_tokens: int) -> Iterator[int]:
        """A new generator takes the prompt in and appends its own tokens."""
        generator = genai.Generator(self._model, self._params)
        generator.append_tokens(prompt)
        for _ in range(new_tokens):
            generator.generate_next_token()
            yield int(generator.get_next_tokens()[0])


if __name__ == "__main__":
    serve(GenaiRunner)
