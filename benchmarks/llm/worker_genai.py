"""onnxruntime-genai as a contest worker.

Settings: ``model`` (a folder written by its own builder), ``threads``, ``context``.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import onnxruntime_genai as genai

from benchmarks.llm.worker import serve


class GenaiRunner:
    """A generator per prompt over one model."""

    version = f"onnxruntime-genai {version('onnxruntime-genai')}"

    def __init__(self, settings: dict[str, Any]) -> None:
        config = genai.Config(settings["model"])
        options = {"session_options": {"intra_op_num_threads": settings["threads"]}}
        config.overlay(json.dumps({"model": {"decoder": options}}))
        self._model = genai.Model(config)
        self._params = genai.GeneratorParams(self._model)
        self._params.set_search_options(max_length=settings["context"], do_sample=False)
        self._generator: genai.Generator | None = None

    def prefill(self, prompt: list[int]) -> int:
        """Starts a generator with the prompt."""
        self._generator = None  # its cache is freed before the next one is made
        self._generator = genai.Generator(self._model, self._params)
        self._generator.append_tokens(prompt)
        return self._next()

    def decode(self, token: int) -> int:
        """The next greedy token; the generator has appended ``token`` itself."""
        return self._next()

    def _next(self) -> int:
        assert self._generator is not None
        self._generator.generate_next_token()
        return int(self._generator.get_next_tokens()[0])


if __name__ == "__main__":
    serve(GenaiRunner)
