"""Files of several nodes: layouts, quantized forms, names; and files that are refused."""

from __future__ import annotations

import gc
import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import edge_sdk
from converters import convert, litert_import
from converters.fit import fit
from converters.sampling import dataset_for
from converters.source import Source, open_source
from converters.workshop import Workshop
from edge_sdk.bundle.record import Recipe
from edge_sdk.errors import SourceError
from edge_sdk.runtime.engine import SessionOptions
from edge_sdk.runtime.engines.litert import LiteRtEngine
from tests.litert.importing import compare
from tests.runtime.tflite_bytes import File, dense

pytestmark = pytest.mark.converts

CONV = {"strideH": 1, "strideW": 1}
HALF = {"strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}


def f32(*shape, seed=1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def small_network(batch: int = 1) -> File:
    """Two convolutions with a residual, pooled to four classes."""
    file = File()
    image = file.tensor("image", (batch, 8, 8, 3))
    values = [file.tensor(f"v{i}", (batch, 8, 8, 4)) for i in range(3)]
    kernels = [file.constant(f"k{i}", f32(4, 3, 3, (3, 4)[i], seed=i)) for i in range(2)]
    biases = [file.constant(f"b{i}", f32(4, seed=9 + i)) for i in range(2)]
    file.op(
        "CONV_2D", [image, kernels[0], biases[0]], [values[0]], "Conv2DOptions",
        fusedActivationFunction=1, **CONV,
    )  # fmt: skip
    file.op("CONV_2D", [values[0], kernels[1], biases[1]], [values[1]], "Conv2DOptions", **CONV)
    file.op("ADD", [values[0], values[1]], [values[2]], "AddOptions")
    scaled = file.tensor("scaled", (batch, 8, 8, 4))
    file.op("MUL", [values[2], file.constant("per channel", f32(4))], [scaled], "MulOptions")
    pooled, mean = file.tensor("pooled", (batch, 4, 4, 4)), file.tensor("mean", (batch, 4))
    file.op("AVERAGE_POOL_2D", [scaled], [pooled], "Pool2DOptions", **HALF)
    axes = file.constant("axes", np.array([1, 2], np.int32))
    file.op("MEAN", [pooled, axes], [mean], "ReducerOptions")
    scores = file.tensor("scores", (batch, 4))
    file.op("SOFTMAX", [mean], [scores], "SoftmaxOptions", beta=1.0)
    file.graph.inputs, file.graph.outputs = [image], [scores]
    return file


def written(file: File, image: str = "image", scores: str = "scores") -> bytes:
    return file.write({image: file.graph.inputs[0]}, {scores: file.graph.outputs[0]})


def save(folder: Path, data: bytes, name: str = "model.tflite") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("batch", [1, -1])
def test_network_needs_one_transpose_however_many_layers_it_has(tmp_path, batch):
    used = compare(tmp_path / "f.tflite", written(small_network(batch)))
    assert used["Transpose"] == 1  # of the picture; what is left at the end has no layout


def test_names_types_and_ranks_are_those_of_the_signature(tmp_path):
    path = save(tmp_path, written(small_network(-1), "picture", "classes"))
    model = litert_import.to_onnx(litert_import.read(path))
    [picture], [classes] = model.graph.inputs, model.graph.outputs
    assert (picture.name, str(picture.shape)) == ("picture", "[batch,8,8,3]")
    assert (classes.name, str(classes.shape)) == ("classes", "[batch,4]")


def test_file_without_signature_has_the_names_of_its_tensors(tmp_path):
    path = save(tmp_path, dense(signature=None))
    file = litert_import.read(path)
    assert [name for name, _ in file.inputs] == ["dense_x"]
    assert [name for name, _ in file.outputs] == ["dense_1"]
    compare(path, dense(signature=None))


def test_tensors_without_names_and_with_the_same_are_told_apart(tmp_path):
    file = small_network()
    for tensor in file.graph.tensors:
        tensor.name = b"" if tensor.buffer else b"same"
    compare(tmp_path / "f.tflite", written(file))


def test_input_and_constant_may_be_outputs_and_one_output_may_come_twice(tmp_path):
    file = File()
    value, number = file.tensor("x", (2,)), file.constant("c", f32(3))
    double = file.tensor("double", (2,))
    file.op("ADD", [value, value], [double], "AddOptions")
    outputs = {"same": value, "constant": number, "one": double, "two": double}
    path = save(tmp_path, file.write({"x": value}, outputs))
    reference = LiteRtEngine().open(path, SessionOptions())
    assert [spec.name for spec in reference.outputs] == list(outputs)
    compare(path, path.read_bytes())


def quantized_network(dtype: str = "int8", *, per_channel: bool = True) -> bytes:
    """A convolution, a depthwise one and a dense layer over integers."""
    zero = {"int8": -3, "uint8": 120}[dtype]
    file, scale = File(), 0.05

    def activation(name: str, shape: tuple[int, ...], step: float) -> int:
        return file.tensor(name, shape, dtype, scale=step, zero=zero)

    def weight(name: str, shape: tuple[int, ...], axis: int) -> tuple[int, np.ndarray]:
        info = np.iinfo(dtype)
        codes = np.random.default_rng(len(name)).integers(info.min + 1, info.max, shape)
        steps = np.linspace(0.01, 0.02, shape[axis]) if per_channel else np.array([0.01])
        offset = 0 if dtype == "int8" else 128
        array = codes.astype(dtype)
        return file.constant(name, array, scale=steps, zero=offset, axis=axis), steps

    def bias(name: str, size: int, steps: np.ndarray, before: float) -> int:
        codes = np.random.default_rng(size).integers(-500, 500, size).astype(np.int32)
        return file.constant(name, codes, scale=steps * before)

    image = activation("image", (1, 6, 6, 3), scale)
    first, second = (activation(f"v{i}", (1, 6, 6, 4), 0.5 + i) for i in range(2))
    kernel, steps = weight("kernel", (4, 3, 3, 3), 0)
    file.op(
        "CONV_2D", [image, kernel, bias("b0", 4, steps, scale)], [first], "Conv2DOptions",
        version=3, fusedActivationFunction=1, **CONV,
    )  # fmt: skip
    depth, steps = weight("depth kernel", (1, 3, 3, 4), 3)
    file.op(
        "DEPTHWISE_CONV_2D", [first, depth, bias("b1", 4, steps, 0.5)], [second],
        "DepthwiseConv2DOptions", version=3, depthMultiplier=1, **CONV,
    )  # fmt: skip
    flat, scores = activation("flat", (1, 144), 1.5), activation("scores", (1, 5), 4.0)
    shape = file.constant("shape", np.array([1, 144], np.int32))
    file.op("RESHAPE", [second, shape], [flat], "ReshapeOptions", newShape=[1, 144])
    rows, steps = weight("rows", (5, 144), 0)
    file.op(
        "FULLY_CONNECTED", [flat, rows, bias("b2", 5, steps, 1.5)], [scores],
        "FullyConnectedOptions", version=4,
    )  # fmt: skip
    return file.write({"image": image}, {"scores": scores})


@pytest.mark.parametrize(
    ("dtype", "per_channel"), [("int8", True), ("int8", False), ("uint8", False)]
)
def test_integers_stay_integers_at_the_ends_and_become_qdq_inside(tmp_path, dtype, per_channel):
    data = quantized_network(dtype, per_channel=per_channel)
    used = compare(tmp_path / "f.tflite", data, atol=1)  # a step: ties round another way
    assert used["QuantizeLinear"] == 4
    assert used["Transpose"] == 2  # of the picture, and back before it becomes a row


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_of_integers_under_floats_become_floats(tmp_path, per_channel):
    codes = np.random.default_rng(0).integers(-127, 127, (5, 8)).astype(np.int8)
    steps = np.linspace(0.01, 0.02, 5, dtype=np.float32) if per_channel else np.float32(0.01)
    file = File()
    row, result = file.tensor("row", (-1, 8)), file.tensor("result", (-1, 5))
    operands = [row, file.constant("codes", codes, scale=steps), file.constant("bias", f32(5))]
    file.op("FULLY_CONNECTED", operands, [result], "FullyConnectedOptions", version=9)
    path = save(tmp_path, file.write({"row": row}, {"result": result}))
    model = litert_import.to_onnx(litert_import.read(path))
    weight = model.graph.initializers["codes"].const_value
    assert weight is not None
    expected = codes * (steps[:, None] if per_channel else steps)
    assert np.array_equal(weight.numpy(), expected.astype(np.float32))


def test_weights_in_half_precision_become_floats(tmp_path):
    file = File()
    row, result = file.tensor("row", (2, 8)), file.tensor("result", (2, 5))
    half, single = (
        file.constant("half", f32(5, 8).astype(np.float16)),
        file.tensor("single", (5, 8)),
    )
    file.op("DEQUANTIZE", [half], [single], "DequantizeOptions", version=3)
    operands = [row, single, file.constant("bias", f32(5))]
    file.op("FULLY_CONNECTED", operands, [result], "FullyConnectedOptions")
    used = compare(tmp_path / "f.tflite", file.write({"row": row}, {"result": result}), atol=1e-4)
    assert used == {"Gemm": 1}


def test_weights_of_four_bits_are_unpacked(tmp_path):
    codes = np.random.default_rng(0).integers(-7, 8, (4, 8)).astype(np.int8)
    file = File()
    row, result = file.tensor("row", (2, 8)), file.tensor("result", (2, 4))
    packed = (codes[:, ::2] & 15) | (codes[:, 1::2] << 4)
    weight = file.constant("codes", packed.astype(np.int8), scale=np.full(4, 0.1))
    file.graph.tensors[weight].shape = [4, 8]
    file.graph.tensors[weight].type = schema.TensorType.INT4
    file.op("FULLY_CONNECTED", [row, weight, -1], [result], "FullyConnectedOptions", version=10)
    path = save(tmp_path, file.write({"row": row}, {"result": result}))
    model = litert_import.to_onnx(litert_import.read(path))
    found = model.graph.initializers["codes"].const_value
    assert found is not None
    np.testing.assert_allclose(found.numpy(), codes * 0.1, rtol=1e-6)


def test_rows_of_a_quantized_table_are_gathered_before_they_are_made_real(tmp_path):
    table = np.arange(-60, 60).reshape(20, 6).astype(np.int8)
    file = File()
    ids, rows = file.tensor("ids", (1, 3), "int32"), file.tensor("rows", (1, 3, 6), "int8", 0.5, 2)
    real = file.tensor("real", (1, 3, 6))
    file.op(
        "GATHER", [file.constant("table", table, scale=0.5, zero=2), ids], [rows], "GatherOptions"
    )
    file.op("DEQUANTIZE", [rows], [real], "DequantizeOptions")
    path = tmp_path / "f.tflite"
    compare(path, file.write({"ids": ids}, {"real": real}))
    model = litert_import.to_onnx(litert_import.read(path))
    assert [node.op_type for node in model.graph][:2] == ["Gather", "DequantizeLinear"]


def refused(tmp_path, data: bytes) -> SourceError:
    with pytest.raises(SourceError) as error:
        litert_import.to_onnx(litert_import.read(save(tmp_path, data)))
    assert error.value.remedy
    return error.value


@pytest.mark.parametrize("op", ["TFLite_Detection_PostProcess", "WHILE"])
def test_unknown_operator_is_named_with_its_subgraph(tmp_path, op):
    file = File()
    value, result = file.tensor("x", (2,)), file.tensor("boxes", (2,))
    file.op(op, [value], [result])
    error = refused(tmp_path, file.write({"x": value}, {"y": result}))
    assert op in str(error)
    assert error.where == "subgraph 0, node 'boxes'"
    assert "engine litert" in str(error)


def test_operator_newer_than_the_schema_is_named_by_its_number(tmp_path):
    file = small_network()
    file.model.operatorCodes[0].builtinCode = 9999
    assert "9999" in str(refused(tmp_path, written(file)))


def test_file_of_a_newer_schema_is_refused(tmp_path):
    file = small_network()
    file.model.version = 4
    assert "schema version 4" in str(refused(tmp_path, written(file)))


def test_file_that_is_none_or_cut_off_is_one_clear_error(tmp_path):
    data = written(small_network())
    for damaged in (b"", b"PK\x03\x04 an archive", data[:64], data[: len(data) // 2]):
        with pytest.raises(SourceError) as error:
            litert_import.to_onnx(litert_import.read(save(tmp_path, damaged)))
        assert "model.tflite" in str(error.value)


def test_bytes_that_flipped_never_give_another_kind_of_error(tmp_path):
    data, rng = written(small_network()), np.random.default_rng(0)
    outcomes = set()
    for place in rng.integers(8, len(data), 300):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        try:
            litert_import.to_onnx(litert_import.read(save(tmp_path, bytes(damaged))))
            outcomes.add("read")  # a weight, or what nothing depends on
        except SourceError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_source_keeps_the_original_and_has_a_graph_for_every_recipe(tmp_path):
    path = save(tmp_path, written(small_network()), "flowers.tflite")
    source = open_source(path)
    assert isinstance(source, Source)
    assert (source.name, source.kind, source.task) == ("flowers", "vision", "classification")
    assert source.original == path
    assert source.size_bytes == path.stat().st_size
    assert source.path.suffix == ".onnx"
    folder = source.path.parent
    assert folder.exists()
    del source
    gc.collect()
    assert not folder.exists()


def test_a_graph_made_of_small_weights_counts_as_it_ships(tmp_path):
    file = File()
    row, result = file.tensor("row", (1, 128)), file.tensor("result", (1, 256))
    half = file.constant("half", f32(256, 128).astype(np.float16))
    single = file.tensor("single", (256, 128))
    file.op("DEQUANTIZE", [half], [single], "DequantizeOptions", version=3)
    operands = [row, single, file.constant("bias", f32(256))]
    file.op("FULLY_CONNECTED", operands, [result], "FullyConnectedOptions")
    path = save(tmp_path, file.write({"row": row}, {"result": result}))
    source = open_source(path)
    assert isinstance(source, Source)
    data = dataset_for(source, None)
    candidate = Workshop(source, data, data, tmp_path).source_candidate(Recipe(name="source"))
    assert candidate.size_bytes > 4 * 256 * 128 > 1.8 * source.size_bytes
    [profile] = fit(path, ["x86-64"]).profiles
    sizes = {family.recipe: family.size_bytes.value for family in profile.families}
    assert sizes["fp32"] == pytest.approx(candidate.size_bytes, rel=0.05)
    assert 256 * 128 < sizes["int8-dynamic"] < sizes["fp32"] / 3


def test_class_names_come_from_the_archive_at_the_end_of_the_file(tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "one line")
        file.writestr("labels.txt", "daisy\nrose\ntulip\nother\n")
    path = save(tmp_path, written(small_network()) + archive.getvalue())
    source = open_source(path)
    assert isinstance(source, Source)
    assert source.labels == ("daisy", "rose", "tulip", "other")
    LiteRtEngine().open(path, SessionOptions())  # does not mind what comes after


def test_original_is_a_candidate_and_ships_byte_for_byte(tmp_path):
    path = save(tmp_path, quantized_network())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = convert(path, ["armv7-512mb"], out=tmp_path / "out.bundle")
    [variant] = report.variants
    assert variant.report.chosen == "source@litert"
    model = edge_sdk.load(tmp_path / "out.bundle", "armv7-512mb")
    assert model.record.graphs[0].parts[0].size == path.stat().st_size
    assert model.inputs[0].dtype == "int8"
    assert model.self_test().cases > 0


def test_sparse_weights_get_their_zeros_back(tmp_path):
    dense_rows = np.zeros((3, 4), np.float32)
    dense_rows[0, 1], dense_rows[2, 0], dense_rows[2, 3] = 5, 6, 7
    file = File()
    row, result = file.tensor("row", (1, 4)), file.tensor("result", (1, 3))
    weight = file.constant("weight", np.array([5, 6, 7], np.float32))
    tensor, sparse = file.graph.tensors[weight], schema.SparsityParametersT()
    tensor.shape = [3, 4]
    rows, columns = schema.DimensionMetadataT(), schema.DimensionMetadataT()
    rows.format, rows.denseSize = schema.DimensionType.DENSE, 3
    columns.format = schema.DimensionType.SPARSE_CSR
    columns.arraySegmentsType = columns.arrayIndicesType = schema.SparseIndexVector.Int32Vector
    columns.arraySegments, columns.arrayIndices = schema.Int32VectorT(), schema.Int32VectorT()
    columns.arraySegments.values, columns.arrayIndices.values = [0, 1, 1, 3], [1, 0, 3]
    sparse.traversalOrder, sparse.dimMetadata = [0, 1], [rows, columns]
    tensor.sparsity = sparse
    whole = file.tensor("whole", (3, 4))
    file.op("DENSIFY", [weight], [whole], "DensifyOptions")
    file.op("FULLY_CONNECTED", [row, whole, -1], [result], "FullyConnectedOptions")
    path = tmp_path / "f.tflite"
    compare(path, file.write({"row": row}, {"result": result}))
    model = litert_import.to_onnx(litert_import.read(path))
    [found] = [value.const_value for value in model.graph.initializers.values()]
    assert found is not None
    assert np.array_equal(found.numpy(), dense_rows)


def hybrid_network() -> bytes:
    """A dense layer of floats with int8 weights, as dynamic quantization leaves it."""
    file = File()
    row, result = file.tensor("row", (1, 64)), file.tensor("result", (1, 128))
    codes = np.random.default_rng(3).integers(-127, 128, (128, 64)).astype(np.int8)
    scales = np.linspace(0.001, 0.002, 128)
    weight = file.constant("weight", codes, scale=scales, zero=0, axis=0)
    operands = [row, weight, file.constant("bias", f32(128))]
    file.op("FULLY_CONNECTED", operands, [result], "FullyConnectedOptions")
    return file.write({"row": row}, {"result": result})


@pytest.mark.parametrize(
    ("network", "profile"),
    [
        (quantized_network, "arm64"),
        (quantized_network, "board-512mb"),
        (hybrid_network, "arm64"),  # on the other, integers throughout are quicker
    ],
)
def test_quantized_original_is_not_made_again(tmp_path, network, profile):
    path = save(tmp_path, network())
    [variant] = convert(path, [profile], out=tmp_path / "out.bundle").variants
    assert variant.report.chosen == "source@litert"


def test_scales_per_column_are_not_for_a_device_that_knows_one_per_weight(tmp_path):
    report = convert(save(tmp_path, hybrid_network()), ["armv7-512mb"], tmp_path / "o").variants[0]
    rows = {row.name: row for row in report.report.candidates}
    assert rows["source@litert"].status == "failed"
    assert "'weight': has a scale per column" in rows["source@litert"].reason
    assert report.report.chosen.endswith("@litert")
