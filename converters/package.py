"""From a chosen candidate to a variant: graph, weight groups, files, golden cases, record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from converters import describe
from converters.calibration.ranges import Method, activation_range
from converters.calibration.statistics import Statistics, TensorStatistics, decode, encode
from converters.costs import node_costs
from converters.dataset import Array
from converters.jsonl import token_inputs
from converters.litert_file import parts
from converters.materialize import is_external
from converters.memory import candidate_plan
from converters.passes.base import each_graph
from converters.recipes import family_of, split_steps
from converters.source import Source
from converters.tensorrt import ShapeProfile, variant_options
from converters.workshop import Built
from device_profiles.schema import Profile
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.groups import Group, Tensor, plan_groups, write_groups
from edge_sdk.bundle.reader import Variant
from edge_sdk.bundle.record import (
    Agreement,
    ArrayRef,
    Blob,
    Engine,
    File,
    GoldenCase,
    Graph,
    Provenance,
    Step,
    VariantRecord,
)
from edge_sdk.errors import DataError
from edge_sdk.runtime import steps
from edge_sdk.runtime.engine import find_engine

STATISTICS_FILE = "calibration.json"
TOKENIZER_FILE = "tokenizer.json"
GOLDEN_BYTES = 256 * 1024
GOLDEN_CASES = 2
MAX_TOKENS = 512
# Relative to an output's largest value: float kernels differ by rounding, quantized
# ones by whole steps wherever a value sits between two.
FLOAT_TOLERANCE = 2e-3
QUANTIZED_TOLERANCE = 5e-2


@dataclass(frozen=True)
class Packing:
    """What packaging needs beside the candidate itself.

    Attributes:
        source: The source model.
        profile: The device.
        version: Version of the bundle.
        name: Name of the bundle.
        dimensions: Symbolic dimension -> reference value, for costs and memory.
        provenance: Where the variant comes from.
        golden: Calls with the outputs that this candidate gave here.
        agreement: Against the source, over all evaluation data.
        shapes: Ranges of the inputs with dynamic dimensions.
    """

    source: Source
    profile: Profile
    name: str
    version: str
    dimensions: Mapping[str, int]
    provenance: Provenance
    golden: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]]
    agreement: Agreement
    shapes: Mapping[str, ShapeProfile] = field(default_factory=dict)


def pack(blobs: BlobStore, built: Built, packing: Packing) -> VariantRecord:
    """Stores everything a candidate consists of and describes it.

    Args:
        blobs: The bundle's blobs.
        built: The candidate.
        packing: The rest.
    """
    model = ir.load(built.graph)
    costs = node_costs(model, packing.dimensions)
    profile, source = packing.profile, packing.source
    memory = candidate_plan(built, packing.dimensions, text=bool(source.tokenizer))
    engine = next(e for e in profile.engines if e.name == built.recipe.engine)
    family = family_of(built.recipe)
    preprocess, postprocess = processing(source, [outputs for _, outputs in packing.golden])
    return VariantRecord(
        name=packing.name,
        version=packing.version,
        profile=profile.name,
        task=source.task,
        kind=source.kind,
        graphs=(store_candidate(blobs, built),),
        engine=Engine(
            name=engine.name,
            providers=engine.providers,
            options={
                **(engine.options_for(family) if family else engine.options),
                **variant_options(profile, engine, packing.shapes),
            },
            version=find_engine(engine.name).version() or "",
        ),
        recipe=built.recipe,
        memory=memory,
        agreement=packing.agreement,
        provenance=packing.provenance,
        states=source.states,
        preprocess=preprocess,
        postprocess=postprocess,
        files=tuple(_files(blobs, source, built)),
        costs=costs,
        unquantized=built.unquantized,
        golden=_golden(blobs, built, packing.golden),
        notes=built.notes,
    )


def store_candidate(blobs: BlobStore, built: Built, name: str = "main") -> Graph:
    """Stores the file that a candidate's engine opens; its signature is that of its graph.

    Args:
        blobs: Where to.
        built: The candidate.
        name: The graph's name in the record.
    """
    model = ir.load(built.graph)
    if built.format == "onnx":
        return store_graph(blobs, model, name)
    return Graph(
        name=name,
        format=built.format,
        parts=tuple(blobs.put([part]) for part in parts(built.path.read_bytes())),
        inputs=describe.graph_inputs(model),
        outputs=describe.graph_outputs(model),
    )


def store_graph(blobs: BlobStore, model: ir.Model, name: str = "main") -> Graph:
    """Stores weights in groups by node and the graph without them.

    The graph names each weight's blob by its bare hex digest, so ``blobs/sha256``
    is itself the folder in which an engine finds them.

    Args:
        blobs: Where to.
        model: The graph; its weights refer to their blobs afterwards.
        name: The graph's name in the record.
    """
    tensors = {
        f"{index}/{name}": value
        for index, graph in enumerate(each_graph(model.graph))
        for name, value in graph.initializers.items()
        if value.const_value is not None and is_external(value.const_value)
    }
    key_of = {id(value): key for key, value in tensors.items()}

    def read(key: str) -> bytes:
        tensor = tensors[key].const_value
        return tensor.tobytes() if tensor is not None else b""

    placed = write_groups(blobs, plan_groups(_groups(model, tensors, key_of)), read)
    weights: dict[str, Blob] = {}
    for key, value in tensors.items():
        place, tensor = placed[key], value.const_value
        weights.setdefault(place.blob.digest, place.blob)
        if tensor is not None:
            value.const_value = ir.ExternalTensor(
                place.blob.digest.removeprefix("sha256:"),
                place.offset,
                place.length,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
            )
    proto = ir.to_proto(model).SerializeToString(deterministic=True)
    return Graph(
        name=name,
        format="onnx",
        parts=(blobs.put([proto]),),
        weights=tuple(weights.values()),
        inputs=describe.graph_inputs(model),
        outputs=describe.graph_outputs(model),
    )


def _groups(
    model: ir.Model, tensors: Mapping[str, ir.Value], key_of: Mapping[int, str]
) -> Iterable[Group]:
    """One group per node that reads weights, in the graph's order; the rest comes last."""
    for graph in each_graph(model.graph):
        for node in graph:
            keys = [key_of[id(value)] for value in node.inputs if id(value) in key_of]
            if keys:
                yield _group(keys, tensors, node.op_type)
    for key in tensors:
        yield _group([key], tensors)


def _group(keys: Sequence[str], tensors: Mapping[str, ir.Value], kind: str = "") -> Group:
    sizes = {key: tensors[key].const_value for key in dict.fromkeys(keys)}
    held = tuple(Tensor(key, t.nbytes) for key, t in sizes.items() if t is not None)
    return Group(keys[0], held, kind)


def processing(
    source: Source, outputs: Sequence[Mapping[str, Array]]
) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Pre- and post-processing: what the reader said, else what the model looks like.

    Guessed are: text to tokens, scores to labels, token vectors to one vector.

    Args:
        source: The model.
        outputs: What it gave for some inputs; tells probabilities from logits.
    """
    before: list[Step] = []
    after: list[Step] = []
    output = source.outputs[0].name if source.outputs else ""
    if source.tokenizer:
        with suppress(DataError):  # a tokenizer file beside a model that takes no tokens
            tokens = steps.Tokenize(inputs=token_inputs(source.inputs), max_length=MAX_TOKENS)
            before.append(steps.to_step(tokens))
    if before and source.task == "feature-extraction":
        after.append(steps.to_step(steps.Pool(output=output)))
    if source.task == "classification":
        scores = [found[output] for found in outputs if found[output].size]
        if any(array.min() < 0 or array.max() > 1 for array in scores):
            after.append(steps.to_step(steps.Softmax(output=output)))
        if source.labels:
            after.append(steps.to_step(steps.Labels(output=output, names=source.labels)))
    return source.preprocess or tuple(before), source.postprocess or tuple(after)


def _files(blobs: BlobStore, source: Source, built: Built) -> Iterable[File]:
    tokenizer = {TOKENIZER_FILE: source.tokenizer} if source.tokenizer else {}
    for path, file in {**tokenizer, **source.files}.items():
        yield File(path=path, blob=blobs.put([file.read_bytes()]))
    if built.statistics.tensors:
        content = encode(resolved(built.statistics, built.recipe.steps))
        yield File(path=STATISTICS_FILE, blob=blobs.put([content]))


def resolved(statistics: Statistics, recipe: Sequence[Step]) -> Statistics:
    """Statistics with the recipe's ranges in place of histograms.

    A range without a histogram is taken as it stands, so a later conversion with
    ``--base`` computes the same scales from a hundredth of the bytes.
    """
    static = next((step for step in recipe if step.op == "static-qdq"), None)
    method: Method = static.options.get("method", "minmax") if static else "minmax"
    smooths = any(step.op == "smooth-quant" for step in recipe)
    tensors = {}
    for name, found in statistics.tensors.items():
        low, high = activation_range(found, method)
        channels = found.channel_absmax if smooths else None
        tensors[name] = TensorStatistics(low, high, None, channels)
    return Statistics(tensors)


def base_statistics(variant: Variant) -> Statistics | None:
    """The activation statistics a base variant was made with, if its recipe used any."""
    for file in variant.record.files:
        if file.path == STATISTICS_FILE:
            return decode(variant.blob_path(file.blob.digest).read_bytes())
    return None


def _golden(
    blobs: BlobStore,
    built: Built,
    calls: Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]],
) -> tuple[GoldenCase, ...]:
    quantized = len(split_steps(built.recipe)) < len(built.recipe.steps)
    share = QUANTIZED_TOLERANCE if quantized else FLOAT_TOLERANCE
    cases: list[GoldenCase] = []
    for inputs, outputs in calls:
        arrays = {**inputs, **outputs}
        if not all(_is_numeric(array) for array in arrays.values()):
            continue  # text and lists have no form in a blob
        size = sum(array.nbytes for array in arrays.values())
        if cases and (size > GOLDEN_BYTES or len(cases) == GOLDEN_CASES):
            break
        largest = max((float(np.abs(a).max(initial=0)) for a in _floats(outputs)), default=0.0)
        cases.append(
            GoldenCase(
                graph="main",
                inputs={name: store_array(blobs, array) for name, array in inputs.items()},
                outputs={name: store_array(blobs, array) for name, array in outputs.items()},
                atol=float(f"{max(share * largest, 1e-5):.3g}"),
                rtol=share,
            )
        )
    return tuple(cases)


def _is_numeric(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind in "biuf"


def _floats(outputs: Mapping[str, Array]) -> list[Array]:
    return [array for array in outputs.values() if array.dtype.kind == "f" and array.size]


def store_array(blobs: BlobStore, array: Array) -> ArrayRef:
    """Stores an array as a blob of its own."""
    data = np.ascontiguousarray(array)
    little = data.astype(data.dtype.newbyteorder("<"), copy=False)
    blob = blobs.put([little.tobytes()])
    return ArrayRef(blob=blob, dtype=str(array.dtype), shape=array.shape)
