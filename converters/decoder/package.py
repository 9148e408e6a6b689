"""From a chosen decoder to a variant: graphs over shared blobs, tokenizer, golden logits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from converters.dataset import Array
from converters.decoder.adapters import LowRank
from converters.decoder.base import DIGESTS_FILE, encoded_digests
from converters.decoder.candidates import Spec
from converters.decoder.graphs import MAIN_KV8, CandidateGraphs
from converters.decoder.perplexity import increase
from converters.decoder.texts import Tokens
from converters.decoder.workshop import DecoderWorkshop
from converters.materialize import open_path
from converters.package import (
    FLOAT_TOLERANCE,
    QUANTIZED_TOLERANCE,
    TOKENIZER_FILE,
    store_array,
    store_graph,
)
from converters.target import onnx_engine
from device_profiles.schema import Profile
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import (
    Adapter,
    Agreement,
    ArrayRef,
    Engine,
    File,
    Generation,
    GoldenCase,
    MemoryPlan,
    Provenance,
    VariantRecord,
)
from edge_sdk.runtime.engine import SessionOptions, find_engine
from edge_sdk.runtime.generation.adapters import GRAPH_SUFFIX, read_adapter

GOLDEN_TOKENS = 24
# Logits differ between any two versions, so they travel with every update: a few positions, and
# of a large vocabulary every so manieth token, tell a wrong graph as well as all of them.
GOLDEN_POSITIONS = 4
GOLDEN_LOGITS = 256
# An array in a blob begins at a multiple of so many bytes, for the engine to read it in place.
ADAPTER_ALIGNMENT = 64
TASK = "text-generation"
# No parser of TensorRT's takes GroupQueryAttention.
UNFIT_PROVIDER = "TensorrtExecutionProvider"


@dataclass(frozen=True)
class DecoderPacking:
    """What packaging needs beside the candidate.

    Attributes:
        profile: The device.
        name: Name of the bundle.
        version: Version of the bundle.
        provenance: Where the variant comes from.
        agreement: Against the source.
        max_drop: Largest increase of perplexity that is allowed.
        memory: Predicted peak memory.
        adapters: Low-rank adapters over it.
    """

    profile: Profile
    name: str
    version: str
    provenance: Provenance
    agreement: Agreement
    max_drop: float
    memory: MemoryPlan
    adapters: tuple[LowRank, ...] = ()


def pack(
    blobs: BlobStore, workshop: DecoderWorkshop, spec: Spec, packing: DecoderPacking
) -> VariantRecord:
    """Stores everything a decoder's variant consists of and describes it.

    Args:
        blobs: The bundle's blobs.
        workshop: Where the candidate was built.
        spec: The candidate.
        packing: The rest.
    """
    source, built = workshop.source, workshop.candidate(spec)
    adapters = tuple(store_adapter(blobs, each, spec) for each in packing.adapters)
    paths, notes = _graph_files(workshop, spec, adapters, blobs, packing.max_drop)
    tokens = workshop.texts.evaluation[0][:GOLDEN_TOKENS]
    engine = engine_for(packing.profile)
    return VariantRecord(
        name=packing.name,
        version=packing.version,
        profile=packing.profile.name,
        task=TASK,
        kind="decoder",
        graphs=tuple(store_graph(blobs, ir.load(path), name) for name, path in paths.items()),
        engine=engine,
        recipe=msgspec.structs.replace(built.recipe, engine=engine.name, forced=spec.forced),
        memory=packing.memory,
        agreement=packing.agreement,
        provenance=packing.provenance,
        files=(
            File(path=TOKENIZER_FILE, blob=blobs.put([source.tokenizer])),
            File(path=DIGESTS_FILE, blob=blobs.put([encoded_digests(source.weights)])),
        ),
        adapters=adapters,
        unquantized=built.unquantized,
        golden=tuple(
            golden_case(
                blobs,
                path,
                name,
                source.generation,
                tokens,
                spec,
                adapters[0] if name.endswith(GRAPH_SUFFIX) else None,
            )
            for name, path in paths.items()
        ),
        notes=(*source.notes, *notes),
        generation=source.generation,
    )


def _graph_files(
    workshop: DecoderWorkshop,
    spec: Spec,
    adapters: tuple[Adapter, ...],
    blobs: BlobStore,
    max_drop: float,
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Name -> graph file; those over an int8 cache only if they hold the limit too."""
    paths = CandidateGraphs(workshop, spec, adapters, blobs).files()
    if MAIN_KV8 not in paths:
        return paths, ()
    workshop.say("perplexity with an int8 cache")
    found = workshop.loss(paths[MAIN_KV8], workshop.texts.evaluation)
    lost = increase(found, workshop.reference)
    note = f"int8 cache: perplexity {found.perplexity:.6g}, increase {lost:.4g}"
    if lost <= max_drop or spec.forced:
        return paths, (note,)
    kept = {name: path for name, path in paths.items() if not name.startswith(MAIN_KV8)}
    return kept, (f"{note} exceeds --max-drop {max_drop:g}: left out",)


def engine_for(profile: Profile) -> Engine:
    """The profile's engine, without the provider that cannot run decoders."""
    choice = onnx_engine(profile)
    return Engine(
        name=choice.name,
        providers=tuple(name for name in choice.providers if name != UNFIT_PROVIDER),
        options={k: v for k, v in choice.options.items() if not k.startswith(UNFIT_PROVIDER)},
        version=find_engine(choice.name).version() or "",
    )


def store_adapter(blobs: BlobStore, adapter: LowRank, spec: Spec) -> Adapter:
    """Stores an adapter's arrays in one blob, in the type of the candidate's activations."""
    dtype = np.dtype("<f2" if spec.half else "<f4")
    refs: dict[str, tuple[tuple[int, ...], int]] = {}
    chunks: list[bytes] = []
    end = 0
    for name, array in adapter.arrays.items():
        data = array.astype(dtype).tobytes()
        chunks += [data, bytes(-len(data) % ADAPTER_ALIGNMENT)]
        refs[name] = array.shape, end
        end += len(data) + len(chunks[-1])
    blob = blobs.put(chunks)
    return Adapter(
        name=adapter.name,
        arrays={
            name: ArrayRef(blob=blob, dtype=dtype.name, shape=shape, offset=offset)
            for name, (shape, offset) in refs.items()
        },
    )


def golden_case(
    blobs: BlobStore,
    path: Path,
    name: str,
    generation: Generation,
    tokens: Tokens,
    spec: Spec,
    adapter: Adapter | None = None,
) -> GoldenCase:
    """Teacher-forced logits after the last of some tokens, from an empty cache.

    Args:
        blobs: Where arrays go.
        path: The graph file.
        name: The graph's name.
        generation: The decoder's shape.
        tokens: What it reads.
        spec: The candidate; block kernels differ between CPUs by whole steps.
        adapter: The adapter to compute with, for a graph that takes one.
    """
    session = open_path(path, SessionOptions())
    count = len(tokens)
    wanted = min(count, GOLDEN_POSITIONS)
    stride = max(1, wanted * generation.vocab // GOLDEN_LOGITS)
    shape = (1, generation.kv_heads, count, generation.head_dim)
    inputs: dict[str, Array] = {
        "input_ids": tokens[None],
        "seqlens_k": np.array([count - 1], np.int32),
        "total_sequence_length": np.array(count, np.int32),
        "logits_at": np.arange(count - wanted, count, dtype=np.int64),
    }
    if adapter is not None:
        inputs |= read_adapter(adapter, session.inputs, blobs)
    for each in session.inputs:
        inputs.setdefault(each.name, np.zeros(shape, each.dtype))
    logits = session.run(inputs)["logits"]
    stored = {} if adapter is None else adapter.arrays
    share = FLOAT_TOLERANCE if spec.plan.default.bits == 32 else QUANTIZED_TOLERANCE
    return GoldenCase(
        graph=name,
        inputs={
            key: stored[key] if key in stored else store_array(blobs, array)
            for key, array in inputs.items()
        },
        outputs={"logits": store_array(blobs, np.ascontiguousarray(logits[..., ::stride]))},
        atol=float(f"{max(share * float(np.abs(logits).max()), 1e-5):.3g}"),
        rtol=share,
        stride=stride,
    )
