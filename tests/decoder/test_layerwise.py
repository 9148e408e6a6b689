"""A source walked layer by layer is the source: same logits, little memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from benchmarks.llm import gguf_file
from converters.decoder import layerwise
from converters.decoder.candidates import spec_from, specs_of
from converters.decoder.source import DecoderSource
from converters.decoder.weights import WeightFormat
from converters.decoder.workshop import DecoderWorkshop
from converters.source import open_source
from edge_sdk.bundle.record import Recipe
from tests.decoder.random_weights import RandomWeights, llama
from tests.decoder.speakers import own_texts, speaker

pytestmark = pytest.mark.converts


class LedgerWeights(RandomWeights):
    """Notes which weights are read while others are still in use: the widest span of layers."""

    def __init__(self, source: DecoderSource) -> None:
        super().__init__(source.architecture)
        self.layers: list[int] = []

    def read(self, name: str) -> np.ndarray:
        if name.startswith("layers."):
            self.layers.append(int(name.split(".")[1]))
        return super().read(name)


def workshop_of(source: DecoderSource, folder: Path) -> DecoderWorkshop:
    return DecoderWorkshop(source, own_texts(source, 2000), folder, 1, lambda message: None)


@pytest.mark.parametrize("tied", [True, False])
def test_layers_one_by_one_predict_what_the_whole_graph_does(tied: bool, tmp_path: Path) -> None:
    source = speaker()
    if tied:
        model = replace(source.architecture, tied=True)
        source = replace(source, architecture=model, weights=RandomWeights(model))
    workshop = workshop_of(source, tmp_path)
    (spec,) = specs_of("fp32", source.architecture, source.weights)
    whole = workshop.loss(workshop.path(spec), workshop.texts.evaluation)
    assert workshop.reference.loss == pytest.approx(whole.loss, rel=1e-5)
    assert workshop.reference.tokens == whole.tokens
    assert np.abs(workshop.reference.kept - whole.kept).max() < 1e-3


def test_reference_reads_one_layer_after_another(tmp_path: Path) -> None:
    source = speaker()
    ledger = LedgerWeights(source)
    layerwise.reference(
        replace(source, weights=ledger), own_texts(source, 500).evaluation, 1, lambda message: None
    )
    assert ledger.layers == sorted(ledger.layers)
    assert set(ledger.layers) == {0, 1}


@pytest.mark.parametrize(("kind", "bits"), [(Type.Q4_0, 4), (Type.Q8_0, 8)])
def test_blocks_of_a_gguf_file_are_not_rounded_again(kind: Type, bits: int, tmp_path: Path) -> None:
    """They have the perplexity of the file itself, which is what counts as its fp32."""
    model = llama(vocab=256, context=96, tied=False)
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    path = gguf_file.write(
        tmp_path / "model.gguf", model, RandomWeights(model), arch="llama",
        types=dict.fromkeys((*matrices, "output", "token_embd"), kind),
    )  # fmt: skip
    source = open_source(path)
    assert isinstance(source, DecoderSource)
    work = tmp_path / "work"
    work.mkdir()
    workshop = workshop_of(source, work)
    name = f"int{bits}-b32-stored"
    stored = spec_from(Recipe(name=name), source.architecture, source.weights)
    assert stored.plan.of("head") == WeightFormat(8 if bits == 8 else 4)
    drops = {
        spec.name: abs(workshop.agreement(spec).max_error)
        for spec in (
            stored,
            spec_from(Recipe(name="int4-b64"), source.architecture, source.weights),
        )
    }
    # What is left is the rounding of activations to 8 bits.
    assert drops[name] < drops["int4-b64"] / 3
