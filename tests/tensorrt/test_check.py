"""Graphs before TensorRT's parser and builder, and what a conversion says about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import pytest

from converters import convert
from converters.passes.base import Context
from converters.passes.float16 import Float16
from converters.passes.static_qdq import StaticQdq
from converters.tensorrt import ShapeProfile
from converters.tensorrt.check import NOT_VERIFIED, check
from edge_sdk.errors import ConversionError, UnsupportedOperatorError
from tests.passes.models import graph, normal
from tests.passes.networks import calibrated, inferred, transformed, with_statistics
from tests.tensorrt.networks import (
    HIDDEN,
    IMAGE,
    TOKENS,
    depthwise,
    residual,
    transformer,
    upsampling,
    written,
)

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
JETSON = "jetson-orin-nano"
WORKSPACE = 1 << 30
SEQUENCES = {"x": ShapeProfile((1, 1, HIDDEN), (1, 32, HIDDEN), (4, 128, HIDDEN))}
S8 = {"activation": "int8", "symmetric_activation": True, "float_bias": True}

Form = Literal["fp32", "fp16", "int8"]


def grouped() -> ir.Model:
    return upsampling(group=4)


@pytest.mark.slow
@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("form", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    ("build", "shape", "ranges"),
    [
        (residual, IMAGE, {}),
        (depthwise, IMAGE, {}),
        (upsampling, IMAGE, {}),
        (grouped, IMAGE, {}),
        (transformer, TOKENS, SEQUENCES),
    ],
)
def test_every_node_is_accepted_and_an_engine_can_be_built(
    build: Callable[[], ir.Model],
    shape: tuple[int, ...],
    ranges: dict[str, ShapeProfile],
    form: Form,
    tmp_path: Path,
) -> None:
    model, statistics = calibrated(build, shape)
    if form == "fp16":
        model = transformed(Float16(Float16.options_type(), Context()), model)
    elif form == "int8":
        model = transformed(with_statistics(StaticQdq, statistics, S8), model)
    said = check(written(model, tmp_path), ranges, WORKSPACE)
    count = model.graph.num_nodes()
    assert f"accepts every node ({count}) and built an engine for SM86" in said
    assert "only the device can show" in said


@pytest.mark.slow
@pytest.mark.usefixtures("parser")
def test_the_form_that_onnx_runtime_fuses_on_a_cpu_is_rejected(tmp_path: Path) -> None:
    model, statistics = calibrated(residual, IMAGE)
    after = transformed(with_statistics(StaticQdq, statistics), model)
    with pytest.raises(UnsupportedOperatorError, match="UINT8"):
        check(written(after, tmp_path), {}, WORKSPACE)


@pytest.mark.slow
@pytest.mark.usefixtures("parser")
def test_without_ranges_no_engine_can_be_built_of_dynamic_shapes(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"accepts all .* cannot build .* dimensions"):
        check(written(transformer(), tmp_path), {}, WORKSPACE)


def splitting() -> ir.Model:
    """Half of its nodes are about sequences, which TensorRT does not have."""
    return inferred(
        graph(
            "(float[2,8] x) => (float[2,8] y)",
            """
            parts = SplitToSequence <axis = 1> (x, halves)
            first = SequenceAt (parts, zero)
            last = SequenceAt (parts, one)
            joined = Concat <axis = 1> (last, first)
            y = MatMul (joined, w)
            """,
            halves=np.array(4),
            zero=np.array(0),
            one=np.array(1),
            w=normal(8, 8),
        )
    )


@pytest.mark.slow
@pytest.mark.usefixtures("parser")
def test_what_tensorrt_lacks_is_said_by_node_operator_and_remedy(tmp_path: Path) -> None:
    model = splitting()
    for node in model.graph:
        node.name = f"at_{node.outputs[0].name}"
    source = written(model, tmp_path)
    with pytest.raises(ConversionError) as raised:
        convert(source, profiles=[JETSON], out=tmp_path / "bundle")
    said = str(raised.value)
    assert "node 'at_parts': SplitToSequence cannot be brought to TensorRT" in said
    assert "accepts 40.0% of 5 nodes" in said
    assert "SequenceAt neither" in said
    assert "remedy: replace it in the source by standard operators" in said


@pytest.mark.slow
@pytest.mark.usefixtures("parser")
def test_a_recipe_that_is_forced_ships_and_the_report_says_what_it_is(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "fp32"')
    source = written(splitting(), tmp_path)
    report = convert(source, profiles=[JETSON], out=tmp_path / "bundle", recipe=recipe)
    (note,) = report.variants[0].report.notes
    assert "SplitToSequence cannot be brought to TensorRT" in note


def digits(out: Path) -> tuple[str, tuple[str, ...]]:
    """Digest and notes of the Jetson's variant of the digits network."""
    data = DIGITS / "calibration.npz"
    report = convert(DIGITS / "digits.onnx", profiles=[JETSON], out=out, data=data)
    return report.variants[0].digest, report.variants[0].report.notes


@pytest.mark.usefixtures("no_parser")
def test_without_the_toolchain_the_report_says_that_nothing_was_verified(tmp_path: Path) -> None:
    _, notes = digits(tmp_path / "bundle")
    assert notes == (NOT_VERIFIED,)
    assert "edge-sdk toolchain install tensorrt-rtx" in NOT_VERIFIED


@pytest.mark.slow
@pytest.mark.usefixtures("parser")
def test_what_was_verified_is_no_part_of_a_variants_identity(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    verified, notes = digits(tmp_path / "verified")
    assert "accepts every node" in notes[0]
    request.getfixturevalue("no_parser")
    assert digits(tmp_path / "not") == (verified, (NOT_VERIFIED,))
