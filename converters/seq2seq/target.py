"""What a profile means for an encoder-decoder model: its engine, and what each graph may try."""

from __future__ import annotations

import msgspec

from converters.seq2seq.package import decoder_engine
from converters.target import onnx_engine
from device_profiles.schema import Profile, Rules
from edge_sdk.runtime.seq2seq.network import ENCODER


def on_onnx(profile: Profile) -> Profile:
    """The profile with the engine that runs decoders alone, and the recipes that suit it.

    TensorRT would build another engine for every length of the past; what runs on CUDA instead
    gains nothing from quantized values around float kernels.

    Raises:
        ConversionError: It has none.
    """
    engine = decoder_engine(profile)
    if engine == onnx_engine(profile):
        return msgspec.structs.replace(profile, engines=(engine,))
    rules = {
        kind: msgspec.structs.replace(
            rule, recipes=tuple(r for r in rule.recipes if r in ("fp16", "fp32"))
        )
        for kind, rule in profile.quantization.items()
    }
    return msgspec.structs.replace(profile, engines=(engine,), quantization=rules)


def rules_of(profile: Profile, graph: str) -> Rules:
    """A decoder reads all its weights for one token, and may be an encoder otherwise."""
    rules = profile.quantization["encoder"]
    if graph == ENCODER:
        return rules
    recipes = (*profile.quantization["decoder"].recipes, *rules.recipes)
    return msgspec.structs.replace(rules, recipes=tuple(dict.fromkeys(recipes)))
