"""The view of ONNX graphs that preparing works on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import BundleError
from edge_sdk.runtime.prepared.graph import Packable, read_model
from edge_sdk.runtime.prepared.wire import field, fields
from tests.runtime import onnx_bytes as ob

VALUES = st.integers(0, 2**64 - 1) | st.binary(max_size=300)


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), VALUES)))
def test_fields_are_read_as_they_were_written(written):
    data = b"".join(field(number, value) for number, value in written)
    read = list(fields(memoryview(data)))
    assert [(number, value) for number, value, _ in read] == written
    assert b"".join(bytes(raw) for _, _, raw in read) == data


@given(st.binary(max_size=60))
def test_other_bytes_are_read_or_refused(data):
    with suppress(BundleError):
        assert b"".join(bytes(raw) for _, _, raw in fields(memoryview(data))) == data


def test_message_that_is_cut_short_is_refused():
    with pytest.raises(BundleError, match="ends inside"):
        list(fields(memoryview(field(1, b"four")[:-1])))


def product(name: str, weight: str, **attributes: int) -> bytes:
    given = [f"{name}.in", weight, f"{weight}.scales"]
    numbers = {"K": 64, "N": 8, "bits": 4, "block_size": 32} | attributes
    return ob.node("MatMulNBits", given, [f"{name}.out"], domain="com.microsoft", **numbers)


def model(*nodes: bytes, weights: dict[str, str]) -> bytes:
    """Weight -> the file that it is in."""
    tensors = []
    for name, file in weights.items():
        tensors.append(ob.tensor(name, np.zeros((8, 2, 16), np.uint8), file))
        tensors.append(ob.tensor(f"{name}.scales", np.zeros((8, 2), np.float32), file))
    return ob.model(nodes, [], [], tensors)


def packable(data: bytes) -> tuple[Packable, ...]:
    return read_model(data, "blobs").packable


def test_weights_have_one_source_wherever_they_are_used():
    one, other = packable(
        model(product("a", "w"), product("b", "v"), weights={"w": "same", "v": "same"})
    )
    assert (one.source, one.width, one.weight.location) == (other.source, 64, "blobs/same")
    sources = {
        one.source,
        *(node.source for node in packable(model(product("a", "w"), weights={"w": "other"}))),
        *(n.source for n in packable(model(product("a", "w", bits=8), weights={"w": "same"}))),
        replace(one, tensors={**one.tensors, 2: replace(one.tensors[2], offset=64)}).source,
    }
    assert len(sources) == 4


def test_blob_that_another_node_reads_is_not_spared():
    lookup = ob.node("Gather", ["tied", "ids"], ["embedded"])
    weights = {"w": "alone", "tied": "table", "v": "shared", "u": "shared"}
    products = [product(name, name) for name in ("w", "tied", "v", "u")]
    graph = read_model(model(lookup, *products, weights=weights), "blobs")
    packed = {f"{name}.out" for name in ("w", "tied", "v")}
    assert graph.unread(packed) == {"blobs/alone"}
    assert graph.unread(packed | {"u.out"}) == {"blobs/alone", "blobs/shared"}


@pytest.mark.parametrize(
    "node",
    [
        ob.node("MatMul", ["x", "w"], ["y"]),
        ob.node("MatMulNBits", ["x", "computed", "w.scales"], ["y"], domain="com.microsoft", K=64),
        ob.node(
            "MatMulNBits",
            ["x", "w", "w.scales", "", "", "computed"],
            ["y"],
            domain="com.microsoft",
            K=64,
        ),
    ],
)
def test_other_nodes_are_left_alone(node):
    assert packable(model(node, weights={"w": "file"})) == ()
