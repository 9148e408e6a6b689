"""Bundles of the committed graphs, as a converter would write them; no converter is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_sdk.bundle import record as rec
from edge_sdk.runtime import steps
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.engines.onnx import OnnxEngine
from tests.runtime.bundles import Builder
from tests.seq2seq.fixtures.archive import unpack
from tests.seq2seq.inputs import FOLDER, SPECTROGRAM

DECODING = {
    "t5": rec.Decoding(start=(0,), eos=(1,), context=64),
    "whisper": rec.Decoding(
        start=(4,),
        eos=(1,),
        context=32,
        max_length=24,
        suppress=(20, 21),
        begin_suppress=(22, 1),
        languages={"en": 5, "de": 6},
        tasks={"transcribe": 7, "translate": 8},
        end_of_start=(3,),
    ),
}
TOKENIZE = steps.Tokenize(inputs={"input_ids": "ids", "attention_mask": "mask"}, max_length=16)
PREPROCESS: dict[str, Any] = {"t5": TOKENIZE, "whisper": SPECTROGRAM}
MEMORY = rec.MemoryPlan(
    weights_mapped=1 << 20,
    weights_private=1 << 20,
    activations=1 << 20,
    engine=60 << 20,
    kv_per_token=4 << 10,
    reference_shapes={"batch_size": 1, "encoder_sequence_length": 16},
)


def bundle(folder: Path, name: str, **fields: Any) -> Path:
    """A model's bundle; ``fields`` replace those of its record."""
    files = unpack(FOLDER / f"{name}-graphs.tar.xz", folder / "graphs")
    with Builder(folder / "bundle") as builder:
        signatures = {}
        for graph in ("encoder", "decoder"):
            path = files / f"{graph}.onnx"
            session = OnnxEngine().open(path, SessionOptions())
            signatures[graph] = session
            builder.opaque("onnx", [path.read_bytes()], session.inputs, session.outputs, graph)
        tokenizer = builder.blob((files / "tokenizer.json").read_bytes())
        defaults = {
            "kind": "encoder-decoder",
            "memory": MEMORY,
            "decoding": DECODING[name],
            "preprocess": (steps.to_step(PREPROCESS[name]),),
            "files": (rec.File(path="tokenizer.json", blob=tokenizer),),
            "wiring": tuple(
                rec.Wire(
                    source_graph="encoder",
                    output=spec.name,
                    target_graph="decoder",
                    input=spec.name.replace("present", "past_key_values"),
                )
                for spec in signatures["encoder"].outputs
            ),
            "states": tuple(
                rec.State(input=spec.name.replace("present", "past_key_values"), output=spec.name)
                for spec in signatures["decoder"].outputs
                if ".decoder." in spec.name
            ),
        }
        builder.variant(**(defaults | fields))
    return folder / "bundle"
