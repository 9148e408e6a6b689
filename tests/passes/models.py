"""Builds small models from text, runs them, and states what every pass must hold."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from numpy.typing import NDArray

from converters.materialize import opened, save
from converters.passes.base import GraphPass, each_graph
from edge_sdk.runtime.engine import SessionOptions

Array = NDArray[np.generic]


def build(text: str, **arrays: Array) -> ir.Model:
    """A model from ONNX text; ``arrays`` become initializers of the main graph."""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()
    )
    return ir.from_proto(proto)


def graph(
    signature: str, body: str, *, opset: int = 17, ir_version: int = 8, **arrays: Array
) -> ir.Model:
    """A model of the standard and the contrib domain from a signature and a body of nodes."""
    imports = f'["" : {opset}, "com.microsoft" : 1]'
    return build(
        f"<ir_version: {ir_version}, opset_import: {imports}> main {signature} {{ {body} }}",
        **arrays,
    )


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    """Normally distributed float32."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def feeds_for(model: ir.Model, seed: int = 0, **sizes: int) -> dict[str, Array]:
    """Random feeds: floats normal, integers 0 … 2, symbolic dimensions 3 or as in ``sizes``."""
    random = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        assert value.shape is not None
        assert value.dtype is not None
        shape = [
            dim if isinstance(dim, int) else sizes.get(str(dim.value), 3) for dim in value.shape
        ]
        dtype = value.dtype.numpy()
        feeds[value.name or ""] = (
            random.standard_normal(shape).astype(dtype)
            if dtype.kind == "f"
            else random.integers(0, 2 if dtype.kind == "b" else 3, shape).astype(dtype)
        )
    return feeds


def run(model: ir.Model, feeds: Mapping[str, Array], *, optimize: bool = True) -> dict[str, Array]:
    """Outputs of ONNX Runtime by name."""
    with opened(model, SessionOptions(optimize=optimize)) as session:
        return session.run(feeds)


def ops(model: ir.Model) -> Counter[str]:
    """How often each operator occurs, subgraphs included."""
    return Counter(node.op_type for graph in each_graph(model.graph) for node in graph)


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, subgraphs included."""
    return sum(
        value.const_value.nbytes
        for graph in each_graph(model.graph)
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def signature(model: ir.Model) -> tuple[list[tuple[str, object, int]], ...]:
    """Names, types and ranks of inputs and outputs in order."""
    return tuple(
        [(v.name or "", v.type, len(v.shape) if v.shape is not None else -1) for v in values]
        for values in (model.graph.inputs, model.graph.outputs)
    )


def improved(
    pass_: GraphPass,
    model: ir.Model,
    *feeds: Mapping[str, Array],
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> ir.Model:
    """Runs a pass on a copy and asserts what holds for every pass.

    The copy stays a valid model with the same signature and, on ``feeds`` (random
    ones where none are given), the same outputs.
    """
    after = ir.from_proto(ir.to_proto(model))
    pass_(after)
    onnx.checker.check_model(ir.to_proto(after))
    assert signature(after) == signature(model)
    for feed in feeds or (feeds_for(model, seed=1), feeds_for(model, seed=2)):
        expected, actual = run(model, feed), run(after, feed)
        assert list(actual) == list(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(actual[name], array, rtol=rtol, atol=atol, err_msg=name)
    return after


def untouched(pass_: GraphPass, model: ir.Model) -> bool:
    """Whether the pass says that it changed nothing, and did not."""
    after = ir.from_proto(ir.to_proto(model))
    modified = pass_(after).modified
    return not modified and ir.to_proto(after) == ir.to_proto(ir.from_proto(ir.to_proto(model)))


def as_loaded(model: ir.Model) -> ir.Model:
    """The graph that ONNX Runtime really runs, after its own optimizations."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = save(model.clone(), Path(folder))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = f"{folder}/loaded.onnx"
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return ir.from_proto(onnx.load(f"{folder}/loaded.onnx"))
