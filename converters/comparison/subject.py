"""What is compared: a model file, or a variant of a bundle, with all that running it takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from converters.describe import graph_inputs
from converters.opaque.source import OpaqueSource
from converters.passes.base import each_graph
from converters.source import Source, open_source
from edge_sdk.bundle.reader import Variant, open_bundle
from edge_sdk.bundle.record import State, TensorSpec
from edge_sdk.errors import BundleError, InputError
from edge_sdk.runtime.bench import FILE_ENGINES, Target
from edge_sdk.runtime.sessions import choose_variant
from edge_sdk.runtime.steps import Labels, Tokenize, find_step, parse_steps
from edge_sdk.runtime.tokenizer import TOKENIZER

DIALOGUE, WRITING, ARRAYS = "a dialogue model", "an encoder-decoder model", "neither"
STORED_AS = {"FLOAT": "fp32", "DOUBLE": "fp64", "FLOAT16": "fp16", "BFLOAT16": "bf16"}


@dataclass(frozen=True)
class Subject:
    """One model to compare.

    Attributes:
        given: As the user wrote it.
        target: How it is opened, here or in a fresh process.
        what: What it is, for people.
        engine: The engine that runs it.
        precision: A variant's recipe; of a file, the type most of its weights have.
        size_bytes: All of its files.
        task: What it does.
        inputs: What a caller may feed, states included.
        outputs: What it gives.
        states: Recurrences.
        tokenizer: ``tokenizer.json``, where it takes text.
        writes_with: ``tokenizer.json`` of an encoder-decoder model.
        labels: Class names in order, where it has them.
        variant: The variant, where it is one.
        source: The source, where it is a file that has a graph.
    """

    given: str
    target: Target
    what: str
    engine: str
    precision: str
    size_bytes: int
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    states: tuple[State, ...] = ()
    tokenizer: Path | None = None
    writes_with: Path | None = None
    labels: tuple[str, ...] = ()
    variant: Variant | None = None
    source: Source | None = None

    @cached_property
    def needed(self) -> tuple[TensorSpec, ...]:
        """The inputs that a caller must feed."""
        states = {state.input for state in self.states}
        return tuple(s for s in self.inputs if s.required and s.name not in states)

    @cached_property
    def kind(self) -> str:
        """What it is compared as: models of one kind only."""
        record = self.variant.record if self.variant else None
        if record is not None and record.generation is not None:
            return DIALOGUE
        return WRITING if record is not None and record.decoding is not None else ARRAYS


def open_subject(given: str, profile: str = "auto") -> Subject:
    """Finds out what was given.

    Args:
        given: A model file or folder, a bundle, ``STORE#name:version``, or one of
            the latter two with ``@profile`` behind it.
        profile: The variant where none is named.

    Raises:
        InputError: It is a model that no engine can run as it is.
        SourceError: It is no model.
        BundleError: It is no bundle, or has no such variant.
    """
    path, at, named = given.rpartition("@")
    if not at or Path(given).exists():
        path, named = given, profile
    if "#" in path or (Path(path) / "oci-layout").is_file():
        return _variant(given, Path(path), named)
    if at and path != given:
        raise BundleError(
            "only a bundle has variants", where=given, remedy="leave out what follows the @"
        )
    return _file(given, Path(path))


def _variant(given: str, path: Path, profile: str) -> Subject:
    variant = choose_variant(open_bundle(path), profile)
    record = variant.record
    before, after = parse_steps(record.preprocess), parse_steps(record.postprocess)
    tokens, labels = find_step(before, Tokenize), find_step(after, Labels)
    files = {file.path: variant.blob_path(file.blob.digest) for file in record.files}
    return Subject(
        given=given,
        target=Target(path, record.profile),
        what=f"{record.name} {record.version} for {record.profile}",
        engine=record.engine.name,
        precision=record.recipe.name,
        size_bytes=variant.size,
        task=record.task,
        inputs=record.inputs,
        outputs=record.outputs,
        states=record.states,
        tokenizer=files.get(tokens.file) if tokens else None,
        writes_with=files.get(TOKENIZER) if record.decoding else None,
        labels=labels.names if labels else (),
        variant=variant,
    )


def _file(given: str, path: Path) -> Subject:
    source = open_source(path)
    if isinstance(source, OpaqueSource):
        return _opaque(given, source)
    if not isinstance(source, Source):
        raise InputError(
            "this model has no graphs yet that run as they are",
            where=given,
            remedy="convert it, and compare the bundle",
        )
    runs = path if path.suffix in FILE_ENGINES else source.path
    return Subject(
        given=given,
        target=Target(runs, None),
        what=f"{path.name}, as it is",
        engine=FILE_ENGINES[runs.suffix],
        precision=precision(source.model),
        size_bytes=source.size_bytes,
        task=source.task,
        inputs=graph_inputs(source.model),
        outputs=source.outputs,
        states=source.states,
        tokenizer=source.tokenizer,
        labels=source.labels,
        source=source,
    )


def _opaque(given: str, source: OpaqueSource) -> Subject:
    return Subject(
        given=given,
        target=Target(source.path, None),
        what=f"{source.path.name}, as it is",
        engine=FILE_ENGINES[source.path.suffix],
        precision="as it is",
        size_bytes=source.path.stat().st_size,
        task=source.task,
        inputs=source.inputs,
        outputs=source.outputs,
    )


def precision(model: ir.Model) -> str:
    """The type that most bytes of a model's weights have: ``fp32`` or ``int8``."""
    stored: Counter[str] = Counter()
    for graph in each_graph(model.graph):
        constants = (node.attributes.get("value") for node in graph if node.op_type == "Constant")
        tensors = [a.as_tensor() for a in constants if a and a.type == ir.AttributeType.TENSOR]
        tensors += [v.const_value for v in graph.initializers.values() if v.const_value is not None]
        for tensor in tensors:
            stored[tensor.dtype.name] += tensor.nbytes
    most = stored.most_common(1)
    return STORED_AS.get(most[0][0], most[0][0].lower()) if most else "no weights"
