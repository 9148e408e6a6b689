"""Half precision halves the bytes; the signature stays, and what needs float32 keeps it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from converters.passes.float16 import Float16, Float16Options, clamped
from tests.passes.models import Array, build, graph, normal, ops, run, untouched, weight_bytes
from tests.passes.networks import (
    HIDDEN,
    convolutional,
    cosine,
    encoder,
    inferred,
    samples,
    transformed,
)


@pytest.mark.parametrize(
    ("network", "shape"), [(encoder, (1, 7, HIDDEN)), (convolutional, (1, 3, 16, 16))]
)
def test_network_halves_and_agrees(network: object, shape: tuple[int, ...]) -> None:
    before = network()  # type: ignore[operator]
    after = transformed(Float16(), before)
    assert weight_bytes(after) < 0.52 * weight_bytes(before)
    assert ops(after)["Cast"] == 2  # in and out
    assert cosine(before, after, samples(shape, 4, seed=5)) > 0.9999


def check(model: ir.Model, feeds: dict[str, Array], **options: object) -> ir.Model:
    """Transforms, compares the outputs, and gives back the result."""
    before = inferred(model)
    after = transformed(Float16(Float16Options(**options)), before)  # type: ignore[arg-type]
    expected, actual = run(before, feeds), run(after, feeds)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype
        np.testing.assert_allclose(actual[name], array, rtol=5e-3, atol=5e-3, err_msg=name)
    return after


X: dict[str, Array] = {"x": normal(1, 4)}


def test_operators_that_leave_the_range_keep_float32() -> None:
    large: dict[str, Array] = {"x": np.full((1, 4), 300, np.float32)}
    power = graph(
        "(float[1,4] x) => (float[1,4] y)",
        "h = Mul (x, one) a = Pow (h, two) b = Sqrt (a) y = Add (b, one)",
        one=np.array(1, np.float32),
        two=np.array(2, np.float32),
    )
    assert ops(check(power, large))["Cast"] == 4
    for node in power.graph:
        node.name = node.op_type
    # With Sqrt between them in float32 too, the casts around it merge.
    after = check(power, large, exclude=("Sqrt", "Add"))
    assert ops(after)["Cast"] == 2
    assert ops(check(power, large, exclude_ops=("Mul", "Pow", "Sqrt", "Add")))["Cast"] == 0


def test_types_that_do_not_follow_an_input_stay() -> None:
    after = check(
        graph(
            "(float[1,4] x, int64[1,4] i) => (float[1,4] y, int64[2] s)",
            "f = Cast <to = 1> (i) z = ConstantOfShape (k)"
            "a = Add (x, f) y = Mul (a, z) s = Shape (a)",
            k=np.array([1, 4]),
        ),
        X | {"i": np.arange(4)[None]},
    )
    assert ops(after)["ConstantOfShape"] == 1


def test_inputs_that_must_be_float32_stay() -> None:
    after = check(
        graph(
            "(float[1,1,4,4] x) => (float[1,1,8,8] y)",
            "h = Mul (x, two) y = Resize (h, , scales)",
            two=np.array(2, np.float32),
            scales=np.array([1, 1, 2, 2], np.float32),
        ),
        {"x": normal(1, 1, 4, 4)},
    )
    assert set(after.graph.initializers) == {"two_half", "scales"}


def test_weights_that_float32_users_need_too_are_kept_in_both_forms() -> None:
    after = check(
        graph(
            "(float[1,4] x) => (float[1,4] y)",
            "h = Mul (x, w) y = Pow (h, w)",
            w=np.full(4, 2, np.float32),
        ),
        {"x": np.abs(normal(1, 4))},
    )
    assert set(after.graph.initializers) == {"w", "w_half"}


def test_subgraphs_see_float32_through_casts() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    main (bool c, float[2,4] x) => (float[2,4] y) {
        h = MatMul (x, w)
        b = If (c) <
            then_branch = p () => (float[2,4] t) { t = MatMul (h, w) },
            else_branch = q () => (float[2,4] e) { e = Neg (h) }
        >
        y = Add (b, h)
    }"""
    after = check(build(text, w=normal(4, 4)), {"c": np.array(True), "x": normal(2, 4)})
    assert set(after.graph.initializers) == {"w", "w_half"}


def test_outputs_that_are_inputs_of_others_keep_their_name() -> None:
    check(graph("(float[1,4] x) => (float[1,4] y, float[1,4] z)", "y = Relu (x) z = Neg (y)"), X)


def test_optional_inputs_may_be_absent() -> None:
    check(
        graph(
            "(float[3,1,4] x) => (float[3,1,1,5] y)",
            "y, h = GRU <hidden_size = 5> (x, w, r, , , )",
            w=normal(1, 15, 4),
            r=normal(1, 15, 5, seed=1),
        ),
        {"x": normal(3, 1, 4)},
    )


def test_graphs_without_floats_or_with_unknown_types_stay() -> None:
    integers = graph("(int64[2] x) => (int64[2] y)", "y = Add (x, x)")
    unknown = graph(
        "(float[1,4] x) => (float[1,4] y)", "h = com.microsoft.QuickGelu (x) y = Neg (h)"
    )
    assert untouched(Float16(), integers)
    assert untouched(Float16(), unknown)


def test_masks_stay_finite_and_small_constants_stay_positive() -> None:
    array = np.array([-3.4e38, 1e30, 1e-12, -1e-30, 0, 1, np.inf], np.float32)
    half = clamped(array)
    assert half.dtype == np.float16
    assert np.isfinite(half[:2] + half[:2]).all()
    assert half[2] > 0 > half[3]
    assert list(half[4:]) == [0, 1, np.inf]
