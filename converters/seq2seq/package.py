"""From a chosen candidate for each graph to a variant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import onnx_ir as ir

from converters.costs import node_costs
from converters.dataset import Array, Feeds, Outputs
from converters.decoder.package import UNFIT_PROVIDER
from converters.memory import ENGINE_BYTES, candidate_plan
from converters.package import (
    FLOAT_TOLERANCE,
    QUANTIZED_TOLERANCE,
    TOKENIZER_FILE,
    store_array,
    store_candidate,
)
from converters.recipes import family_of, split_steps
from converters.seq2seq.forced import wires
from converters.seq2seq.graphs import MASK
from converters.seq2seq.judge import Both
from converters.seq2seq.source import Seq2SeqSource
from converters.target import onnx_engine
from converters.workshop import Built
from device_profiles.schema import EngineChoice, Profile
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import (
    Agreement,
    Engine,
    File,
    GoldenCase,
    MemoryPlan,
    Provenance,
    Recipe,
    VariantRecord,
)
from edge_sdk.runtime.engine import Session, find_engine
from edge_sdk.runtime.engines import tensorrt
from edge_sdk.runtime.seq2seq.network import DECODER, ENCODER, LOGITS, TOKENS, Network

KIND = "encoder-decoder"
# Positions of the input that the golden case of the decoder attends to: all of Whisper's would
# be megabytes, and a few tell a wrong graph as well.
GOLDEN_POSITIONS = 16
# Of an output's rows, every so manieth element: what a new version costs on the wire.
GOLDEN_STRIDE = 8
# Tokenizers, and what they hold in memory.
TEXT_BYTES = 12 << 20


@dataclass(frozen=True)
class Seq2SeqPacking:
    """What packaging needs beside the candidates.

    Attributes:
        source: The model.
        profile: The device.
        name: Name of the bundle.
        version: Version of the bundle.
        provenance: Where the variant comes from.
        agreement: Against the source.
        memory: Predicted peak memory.
        dimensions: Graph -> symbolic dimension -> reference value.
        context: Most tokens of an output; the model's own where ``None``.
        call: An input, and what the source writes for it.
    """

    source: Seq2SeqSource
    profile: Profile
    name: str
    version: str
    provenance: Provenance
    agreement: Agreement
    memory: MemoryPlan
    dimensions: Mapping[str, Mapping[str, int]]
    context: int | None
    call: Feeds


def pack(
    blobs: BlobStore, both: Both, sessions: Mapping[str, Session], packing: Seq2SeqPacking
) -> VariantRecord:
    """Stores everything a variant consists of and describes it.

    Args:
        blobs: The bundle's blobs.
        both: The candidates.
        sessions: Graph name -> the candidate's session.
        packing: The rest.
    """
    source, profile = packing.source, packing.profile
    built = {ENCODER: both.encoder.built, DECODER: both.decoder.built}
    engine = decoder_engine(profile)
    family = family_of(both.encoder.built.recipe)
    decoding = source.decoding
    if packing.context is not None:
        decoding = msgspec.structs.replace(decoding, context=packing.context)
    recipes = {name: candidate.recipe for name, candidate in built.items()}
    return VariantRecord(
        name=packing.name,
        version=packing.version,
        profile=profile.name,
        task=source.task,
        kind=KIND,
        graphs=tuple(store_candidate(blobs, candidate, name) for name, candidate in built.items()),
        engine=Engine(
            name=engine.name,
            # Lengths grow by one at each step, and TensorRT would build an engine for each.
            providers=tuple(name for name in engine.providers if name != tensorrt.PROVIDER),
            options=tensorrt.without(engine.options_for(family) if family else engine.options),
            version=find_engine(engine.name).version() or "",
        ),
        recipe=Recipe(name=both.name, engine=engine.name, forced=both.encoder.built.recipe.forced),
        memory=packing.memory,
        agreement=packing.agreement,
        provenance=packing.provenance,
        wiring=wires(source.encoder.outputs),
        states=source.decoder.states,
        preprocess=source.preprocess,
        files=tuple(_files(blobs, source)),
        costs=tuple(
            cost
            for name, candidate in built.items()
            for cost in node_costs(ir.load(candidate.graph), packing.dimensions[name])
        ),
        unquantized=tuple(u for candidate in built.values() for u in candidate.unquantized),
        golden=tuple(_golden(blobs, built, sessions, packing)),
        notes=(*source.notes, *(n for candidate in built.values() for n in candidate.notes)),
        decoding=msgspec.structs.replace(decoding, recipes=recipes),
    )


def decoder_engine(profile: Profile) -> EngineChoice:
    """The profile's engine for ONNX graphs, without what compiles a graph for each length.

    Raises:
        ConversionError: It has none.
    """
    engine = onnx_engine(profile)
    options = {k: v for k, v in engine.options.items() if not k.startswith(UNFIT_PROVIDER)}
    providers = tuple(name for name in engine.providers if name != UNFIT_PROVIDER)
    if providers == engine.providers:
        return engine
    return msgspec.structs.replace(engine, providers=providers, options=options, recipe_options={})


def memory_plan(
    both: Both, dimensions: Mapping[str, Mapping[str, int]], network: Network
) -> MemoryPlan:
    """Peak memory of a process that loads both graphs, without the decoder's past.

    Args:
        both: The candidates.
        dimensions: Graph -> symbolic dimension -> reference value.
        network: The two graphs, for the size of a token's keys and values.
    """
    plans = [
        candidate_plan(judged.built, dimensions[name])
        for name, judged in ((ENCODER, both.encoder), (DECODER, both.decoder))
    ]
    return MemoryPlan(
        weights_mapped=sum(plan.weights_mapped for plan in plans),
        weights_private=sum(plan.weights_private for plan in plans),
        activations=sum(plan.activations for plan in plans),
        engine=sum(plan.engine for plan in plans) - ENGINE_BYTES + TEXT_BYTES,
        kv_per_token=network.bytes_per_token,
        reference_shapes=dict(dimensions[ENCODER]),
    )


def _files(blobs: BlobStore, source: Seq2SeqSource) -> Iterable[File]:
    for path, file in {TOKENIZER_FILE: source.tokenizer, **source.files}.items():
        yield File(path=path, blob=blobs.put([file.read_bytes()]))


def _golden(
    blobs: BlobStore,
    built: Mapping[str, Built],
    sessions: Mapping[str, Session],
    packing: Seq2SeqPacking,
) -> Iterable[GoldenCase]:
    """One case per graph: the last layer's cross keys and values, and the logits."""
    feeds = {name: array for name, array in packing.call.items() if name != TOKENS}
    read = sessions[ENCODER].run(feeds)
    last = list(read)[-2:]
    yield _case(blobs, ENCODER, built[ENCODER], feeds, {name: read[name] for name in last})
    network = Network(
        sessions[ENCODER], sessions[DECODER], wires(packing.source.encoder.outputs),
        packing.source.decoder.states,
    )  # fmt: skip
    calls = {
        name: array[:, :GOLDEN_POSITIONS] if name == MASK else array[:, :, :GOLDEN_POSITIONS]
        for name, array in network.read(feeds).items()
    }
    for name, spec in network.past.items():
        shape = spec.shape or ()
        calls[name] = np.zeros((1, shape[1], 0, shape[3]), spec.dtype)  # type: ignore[arg-type]
    calls[TOKENS] = packing.call[TOKENS][:, :4]
    logits = sessions[DECODER].run(calls)[LOGITS]
    yield _case(blobs, DECODER, built[DECODER], calls, {LOGITS: logits})


def _case(
    blobs: BlobStore, name: str, built: Built, inputs: Mapping[str, Array], outputs: Outputs
) -> GoldenCase:
    quantized = len(split_steps(built.recipe)) < len(built.recipe.steps)
    share = QUANTIZED_TOLERANCE if quantized else FLOAT_TOLERANCE
    largest = max(float(np.abs(array).max(initial=0)) for array in outputs.values())
    return GoldenCase(
        graph=name,
        inputs={key: store_array(blobs, array) for key, array in inputs.items()},
        outputs={
            key: store_array(blobs, array[..., ::GOLDEN_STRIDE]) for key, array in outputs.items()
        },
        atol=float(f"{max(share * largest, 1e-5):.3g}"),
        rtol=share,
        stride=GOLDEN_STRIDE,
    )
