"""Byte-level BPE over tables that are mapped from a file, without the tokenizers library.

::

    tokenizer.json ── making ── prepared/<manifest>/tokenizer ── table ── byte_level
                        └─ compared with the library                       └─ the library, lazily

What lives here: the tokenizers of dialogue models in the manner of GPT-2, Llama 3, Qwen and
SmolLM. The library takes 31 MB of the process's own memory to load a vocabulary of 49k tokens,
and keeps 12; here it takes next to none. Tokens are exactly those of the library, which is
asked wherever that is not certain.
"""

from __future__ import annotations

from edge_sdk.runtime.tokenizer.opening import (
    TOKENIZER,
    Tokenizer,
    open_tokenizer,
    prepare_tokenizer,
    read_tokenizer,
)

__all__ = ["TOKENIZER", "Tokenizer", "open_tokenizer", "prepare_tokenizer", "read_tokenizer"]
