"""Prepared weights of a decoder that was really converted: attention, a tied table, two graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import edge_sdk
from benchmarks.llm.model import SHAPES, write
from converters import convert
from edge_sdk.bundle.reader import Variant, open_bundle
from edge_sdk.runtime import sessions
from edge_sdk.runtime.engines.onnx import OnnxEngine
from edge_sdk.runtime.prepared import packing
from edge_sdk.runtime.prepared.artefact import Index, Place
from edge_sdk.runtime.prepared.graph import read_model

pytestmark = [
    pytest.mark.converts,
    pytest.mark.skipif(
        OnnxEngine().version() not in packing.TESTED,
        reason=f"weights are prepared for onnxruntime {' and '.join(packing.TESTED)} only",
    ),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    (folder / "recipe.toml").write_text('name = "int4-b32"\n')
    path, recipe = folder / "bundle", folder / "recipe.toml"
    shape = replace(SHAPES["tiny"], vocab=1024)  # a tied table that fills a blob is stored once
    convert(write(folder / "model", shape), ["x86-64"], path, recipe=recipe)
    return path


def place_of(variant: Variant, name: str) -> Place:
    graph = next(graph for graph in variant.record.graphs if graph.name == name)
    options = packing.SessionOptions(options=variant.record.engine.options)
    return Place.of(variant, graph, packing.layout_id(options))


def index_of(variant: Variant, name: str) -> Index:
    index = place_of(variant, name).find()
    assert index is not None
    return index


def test_prepared_and_plain_logits_are_the_same_bits(bundle):
    tokens = list(range(5, 45))
    plain, first, second = (
        edge_sdk.load(bundle, "x86-64", prepare=prepare).logits(tokens)
        for prepare in (False, True, True)
    )
    np.testing.assert_array_equal(first, plain)
    np.testing.assert_array_equal(second, plain)


def test_graphs_of_a_variant_share_all_packed_weights(bundle):
    variant = open_bundle(bundle).variant("x86-64")
    notes = [sessions.open_graph(variant, name, 1, True).notes for name in ("main", "main-kv8")]
    assert "loaded plainly" not in str(notes)
    one, other = index_of(variant, "main"), index_of(variant, "main-kv8")
    assert one.weights == other.weights
    assert (other.preparation.packed, other.preparation.new) == (0, other.model.size)


def test_tied_table_is_packed_for_the_head_and_read_raw_by_the_embedding(bundle):
    variant = open_bundle(bundle).variant("x86-64")
    sessions.open_graph(variant, "main", 1, True)
    place, index = place_of(variant, "main"), index_of(variant, "main")
    raw = read_model(variant.blob_path(place.graph.parts[0].digest).read_bytes(), "")
    packed = read_model(place.model(index), "")
    assert len(index.weights) == len(raw.packable) == len(packed.packable)
    assert all(node.weight.location.startswith(f"/{place.relative}") for node in packed.packable)
    [table] = {node.weight.location for node in raw.packable if node.output == "logits"}
    assert f"sha256:{table[1:]}" not in index.unread
    graph = onnx.load_from_string(place.model(index)).graph
    [gather] = [node for node in graph.node if node.op_type == "GatherBlockQuantized"]
    [read] = [tensor for tensor in graph.initializer if tensor.name == gather.input[0]]
    assert {entry.key: entry.value for entry in read.external_data}["location"] == (
        f"blobs/sha256{table}"
    )
