"""llama.cpp as a contest worker, through the C interface that ``llama-cpp-python`` binds.

Settings: ``model`` (a GGUF file), ``threads``, ``context``, ``repack`` (whether
weights are laid out anew for this CPU, llama.cpp's default).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import llama_cpp as llama
import numpy as np

from benchmarks.llm.worker import serve


class LlamaRunner:
    """One context over one model."""

    def __init__(self, settings: dict[str, Any]) -> None:
        llama.llama_log_set(_SILENT, ctypes.c_void_p(0))
        llama.llama_backend_init()
        model_params = llama.llama_model_default_params()
        model_params.use_extra_bufts = settings.get("repack", True)
        model = llama.llama_model_load_from_file(settings["model"].encode(), model_params)
        params = llama.llama_context_default_params()
        params.n_ctx = settings["context"]
        params.n_threads = params.n_threads_batch = settings["threads"]
        self._context = llama.llama_init_from_model(model, params)
        self._memory = llama.llama_get_memory(self._context)
        self._vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

    def answer(self, prompt: list[int], new_tokens: int) -> Iterator[int]:
        """Clears the cache, takes the prompt in, then decodes token by token."""
        llama.llama_memory_clear(self._memory, True)
        yield (token := self._append(prompt))
        for _ in range(new_tokens - 1):
            yield (token := self._append([token]))

    def _append(self, tokens: list[int]) -> int:
        ids = (llama.llama_token * len(tokens))(*tokens)
        if llama.llama_decode(self._context, llama.llama_batch_get_one(ids, len(tokens))):
            raise RuntimeError("llama_decode failed")
        logits = llama.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(self._vocab,)).argmax())


@llama.llama_log_callback
def _SILENT(level: int, text: bytes, data: object) -> None:  # noqa: N802  (kept alive by the module)
    pass


if __name__ == "__main__":
    serve(LlamaRunner)
