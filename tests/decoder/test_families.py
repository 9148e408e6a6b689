"""Families of decoders: configurations as they are published, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from converters.decoder import families, names
from edge_sdk.errors import SourceError
from tests.decoder.fixtures import CASES

pytestmark = pytest.mark.converts

LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}


def architecture(**changes):
    return families.read({**LLAMA, **changes}, "config.json")[0]


@pytest.mark.parametrize("case", CASES)
def test_every_weight_and_the_head_have_a_place(case: str) -> None:
    model, parts = families.read(CASES[case]["config"], case)
    assert parts.keys() == {*names.shapes(model), "head"}


def test_defaults_are_the_familys() -> None:
    assert architecture().kv_heads == 4
    assert not architecture().tied
    assert architecture(model_type="smollm3").tied
    assert architecture(model_type="smollm3", num_hidden_layers=8).unrotated_layers == {3, 7}
    assert architecture(model_type="qwen3").head_dim == 128
    assert architecture(model_type="mistral").sliding_window == 4096
    assert architecture(model_type="mistral", sliding_window=None).sliding_window is None
    glm = architecture(model_type="glm4")
    assert (glm.head_dim, len(glm.rope.inverse_frequencies)) == (128, 32)
    assert glm.rope.interleaved
    assert glm.qkv_bias
    assert glm.post_norms


def test_window_counts_only_where_it_is_switched_on() -> None:
    window = {"model_type": "qwen2", "sliding_window": 16, "max_window_layers": 1}
    assert architecture(**window).sliding_window is None
    model = architecture(**window, use_sliding_window=True)
    assert (model.sliding_window, model.unwindowed_layers) == (16, {0})
    kinds = ["sliding_attention", "full_attention"]
    model = architecture(**window, use_sliding_window=True, layer_types=kinds)
    assert model.unwindowed_layers == {1}


def test_internlm2_keeps_each_key_head_behind_its_queries() -> None:
    config = {**LLAMA, "model_type": "internlm2", "num_key_value_heads": 2}
    _, parts = families.read(config, "config.json")
    heads = {part: parts[f"layers.0.{part}"].rows[::16] // 16 for part in "qkv"}
    np.testing.assert_array_equal(heads["q"], [0, 1, 4, 5])
    np.testing.assert_array_equal(heads["k"], [2, 6])
    np.testing.assert_array_equal(heads["v"], [3, 7])
    assert parts["layers.1.q"].tensor == "model.layers.1.attention.wqkv.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type = 'gpt2' is not supported"),
        ({"model_type": None}, "model_type = None is not supported"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "64"}, "hidden_size = '64' must be a whole number from 1 up"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0 must be a whole number"),
        ({"num_key_value_heads": 3}, "num_key_value_heads = 3 does not divide 4"),
        ({"hidden_act": "relu2"}, "hidden_act = 'relu2' is not supported"),
        ({"rms_norm_eps": -1}, "rms_norm_eps = -1 must be a positive number"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings = 1 must be true or false"),
        ({"quantization_config": {"bits": 4}}, "quantization_config = .* is not supported"),
        ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers = .* list of 2"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "layer_types": ["chunked"]},
            "layer_types = .* is not supported",
        ),
    ],
)
def test_what_is_not_supported_names_its_field(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        architecture(**changes)
    assert caught.value.where == "config.json"


def test_unsupported_family_lists_the_supported_ones() -> None:
    with pytest.raises(SourceError) as caught:
        architecture(model_type="mamba")
    assert "internlm2" in str(caught.value.remedy)
    assert "qwen3" in str(caught.value.remedy)


def test_heads_that_the_kernel_cannot_compute_are_refused() -> None:
    with pytest.raises(SourceError, match="hidden_size = 64 makes heads of 8 dimensions") as caught:
        architecture(num_attention_heads=8)
    assert caught.value.where == "config.json"
    with pytest.raises(SourceError, match="head_dim = 24 makes heads of 24"):
        architecture(head_dim=24)
    with pytest.raises(SourceError, match="head_dim = 16 rotates 8 dimensions"):
        architecture(model_type="glm", head_dim=16)


def test_buffers_of_old_checkpoints_are_ignored() -> None:
    assert families.ignored("model.layers.0.self_attn.rotary_emb.inv_freq")
    assert not families.ignored("model.layers.0.self_attn.q_proj.weight")
