"""Runs a graph on ONNX Runtime and, lowered, on LiteRT, and compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from converters.litert import Weights, lower

Array = NDArray[Any]
TYPES = {"float32": "float", "float64": "double"}


def network(
    body: str,
    feeds: Mapping[str, Array],
    outputs: str = "y",
    *,
    opset: int = 20,
    free: str = "",
    **constants: object,
) -> ir.Model:
    """A graph in ONNX's textual syntax, whose inputs have the shapes of ``feeds``.

    Args:
        body: Its nodes.
        feeds: Its inputs.
        outputs: Names of its outputs, each with its element type: ``y`` or ``y:int64``.
        opset: Version of the standard operators.
        free: Axes (of all inputs) whose size is left open, as digits.
        **constants: Initializers.
    """

    def declared(name: str, array: Array) -> str:
        sizes = [f"{name}_{i}" if str(i) in free else str(s) for i, s in enumerate(array.shape)]
        return f"{TYPES.get(str(array.dtype), str(array.dtype))}[{', '.join(sizes)}] {name}"

    inputs = ", ".join(declared(name, array) for name, array in feeds.items())
    results = [[*item.split(":"), "float"][:2] for item in outputs.split()]
    text = ", ".join(f"{dtype} {name}" for name, dtype in results)
    proto = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : {opset}, "com.microsoft" : 1]> '
        f"main ({inputs}) => ({text}) {{ {body} }}"
    )
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")  # the syntax has no word for "any"
    for name, value in constants.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def expected(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """What ONNX Runtime computes."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(feeds)), strict=True))


def computed(file: bytes, feeds: Mapping[str, Array], *, delegate: bool) -> dict[str, Array]:
    """What LiteRT computes, with or without its default delegate (XNNPACK)."""
    resolver = OpResolverType.AUTO if delegate else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=file, experimental_op_resolver_type=resolver)
    inputs = {detail["name"]: detail for detail in interpreter.get_input_details()}
    for name, array in feeds.items():
        if tuple(inputs[name]["shape"]) != array.shape:
            interpreter.resize_tensor_input(inputs[name]["index"], array.shape, strict=True)
    interpreter.allocate_tensors()
    for name, array in feeds.items():
        interpreter.set_tensor(inputs[name]["index"], array)
    interpreter.invoke()
    return {
        detail["name"]: interpreter.get_tensor(detail["index"])
        for detail in interpreter.get_output_details()
    }


def operators(file: bytes) -> Counter[str]:
    """The operators of a file's main graph."""
    model = schema.ModelT.InitFromPackedBuf(file, 0)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    codes = [code.builtinCode for code in model.operatorCodes]
    return Counter(names[codes[operator.opcodeIndex]] for operator in model.subgraphs[0].operators)


def error(got: Mapping[str, Array], want: Mapping[str, Array]) -> float:
    """Largest difference, relative to the largest number of each output."""
    assert set(got) == set(want)
    worst = 0.0
    for name, array in want.items():
        assert got[name].shape == array.shape, name
        assert got[name].dtype == array.dtype, name
        if array.size:
            a, b = got[name].astype(np.float64), array.astype(np.float64)
            a, b = (
                np.nan_to_num(a, posinf=1e30, neginf=-1e30),
                np.nan_to_num(b, posinf=1e30, neginf=-1e30),
            )
            worst = max(worst, float(np.abs(a - b).max() / max(1e-6, np.abs(b).max())))
    return worst


def assert_agrees(
    model: ir.Model,
    *samples: Mapping[str, Array],
    tolerance: float = 1e-5,
    weights: Weights = "float32",
) -> bytes:
    """Lowers a graph and compares it on samples, with and without the delegate."""
    file = lower(model, weights=weights)
    for feeds in samples:
        want = expected(model, feeds)
        for delegate in (False, True):
            assert error(computed(file, feeds, delegate=delegate), want) <= tolerance
    return file
