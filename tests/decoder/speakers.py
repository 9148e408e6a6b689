"""Sources that have something to say: random decoders whose own samples are their text.

Their heads are scaled up, so that they are sure of what follows and lose perplexity
where rounding makes them say something else. Token ``i`` is the word ``w{i}``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from converters.decoder.sampled import sample_documents
from converters.decoder.source import DecoderSource
from converters.decoder.texts import Texts, divide
from edge_sdk.bundle.record import Generation
from tests.decoder.random_weights import RandomWeights, llama

CONTEXT = 96


class SureWeights(RandomWeights):
    """Random weights with a head that tells tokens apart."""

    def read(self, name: str) -> NDArray[np.float32]:
        return super().read(name) * np.float32(4 if name == "head" else 1)


def speaker(
    *, hidden: int = 64, vocab: int = 128, changed: frozenset[str] = frozenset()
) -> DecoderSource:
    model = llama(
        layers=2, hidden=hidden, intermediate=2 * hidden, vocab=vocab, context=CONTEXT, tied=False
    )
    generation = Generation(
        layers=model.layers,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        vocab=model.vocab,
        context=model.context,
    )
    return DecoderSource(
        path=Path("speaker"),
        name="speaker",
        digest=f"sha256:{'tuned' if changed else 'plain'}",
        size_bytes=4 * vocab * hidden,
        architecture=model,
        weights=SureWeights(model, changed=changed),
        tokenizer=tokenizer(vocab),
        generation=generation,
    )


def tokenizer(vocab: int) -> bytes:
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocab)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made.to_str().encode()


def own_texts(source: DecoderSource, tokens: int = 6000) -> Texts:
    documents = sample_documents(source, tokens, threads=1)
    return divide(documents, "generated", source.generation.context, tokens // 2, tokens // 2)


def write_text(source: DecoderSource, path: Path, tokens: int = 3000) -> Path:
    """What the source says, as a user's data."""
    lines = [
        json.dumps({"text": " ".join(f"w{token}" for token in document.tolist())})
        for document in sample_documents(source, tokens, threads=1)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
