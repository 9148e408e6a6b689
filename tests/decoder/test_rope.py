"""Rope scaling: what fidelity's logits do not show."""

from __future__ import annotations

import math

import numpy as np
import pytest

from converters.decoder import rope
from converters.decoder.architecture import Rope
from converters.decoder.config import Config
from edge_sdk.errors import SourceError

pytestmark = pytest.mark.converts


def read(**fields):
    config = {"max_position_embeddings": 4096, "rope_theta": 10000.0, **fields}
    return rope.read(Config(config, "config.json"), 64, theta=500.0)


PLAIN = np.array(read()[0].inverse_frequencies)


def test_plain_frequencies_fall_from_one_by_the_base() -> None:
    assert PLAIN[0] == 1
    assert len(PLAIN) == 32
    assert math.isclose(PLAIN[16], 10000**-0.5)


def test_base_of_the_family_where_none_is_given() -> None:
    config = Config({"max_position_embeddings": 8}, "config.json")
    found, _ = rope.read(config, 64, theta=500.0)
    assert math.isclose(found.inverse_frequencies[16], 500**-0.5)


def test_newer_configurations_keep_everything_in_one_object() -> None:
    parameters = {"rope_theta": 10000.0, "rope_type": "default", "partial_rotary_factor": 0.5}
    found, _ = rope.read(
        Config({"max_position_embeddings": 8, "rope_parameters": parameters}, "config.json"),
        64,
        theta=500.0,
    )
    np.testing.assert_allclose(found.inverse_frequencies, rope.frequencies(10000.0, 32))


def test_llama3_keeps_short_wavelengths_and_stretches_long_ones() -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    }
    found = np.array(read(rope_scaling=scaling)[0].inverse_frequencies)
    wavelengths = 2 * np.pi / PLAIN
    short, long = wavelengths < 1024 / 4, wavelengths > 1024
    assert short.any()
    assert long.any()
    np.testing.assert_allclose(found[short], PLAIN[short])
    np.testing.assert_allclose(found[long], PLAIN[long] / 8)
    between = found[~short & ~long] / PLAIN[~short & ~long]
    assert ((between > 1 / 8) & (between < 1)).all()


def test_dynamic_scaling_does_nothing_within_the_trained_length() -> None:
    found, context = read(rope_scaling={"type": "dynamic", "factor": 4.0})
    assert found == read()[0]
    assert context == 4096


def test_longrope_is_limited_to_the_length_of_its_short_factors() -> None:
    scaling = {"rope_type": "longrope", "short_factor": [2.0] * 32, "long_factor": [9.0] * 32}
    found, context = read(rope_scaling=scaling, original_max_position_embeddings=1024)
    np.testing.assert_allclose(found.inverse_frequencies, PLAIN / 2)
    assert context == 1024
    assert math.isclose(found.attention_factor, math.sqrt(1 + math.log(4) / math.log(1024)))


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "mrope"}, "rope_scaling.rope_type = 'mrope' is not supported"),
        ({"type": "su"}, "rope_scaling.type = 'su' is not supported"),
        ({"type": "linear"}, "rope_scaling.factor is missing"),
        ({"type": "linear", "factor": "4"}, "rope_scaling.factor = '4' must be a positive number"),
        (
            {"type": "longrope", "factor": 2, "short_factor": [1.0]},
            r"rope_scaling.short_factor = \[1.0\] must have 32 numbers",
        ),
        ({"type": "linear", "factor": math.nan}, "rope_scaling.factor = nan must be a positive"),
        ("linear", "rope_scaling = 'linear' must be an object"),
    ],
)
def test_unsupported_scaling_names_its_field(scaling: object, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        read(rope_scaling=scaling)
    assert caught.value.where == "config.json"


def test_angles_grow_with_position_and_frequency() -> None:
    found = rope.angles(Rope((1.0, 0.5)), 3)
    np.testing.assert_allclose(found, [[0, 0], [1, 0.5], [2, 1]])
