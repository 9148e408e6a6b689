"""GPTQ against plain rounding, and the arithmetic it rests on."""

from __future__ import annotations

import numpy as np
import pytest

from converters import quantize
from converters.decoder import gptq
from converters.decoder.candidates import Method, Spec
from converters.decoder.weights import WeightFormat, WeightPlan
from converters.decoder.workshop import DecoderWorkshop
from converters.quantize import Float
from tests.decoder.speakers import own_texts, speaker

pytestmark = pytest.mark.converts

FORMATS = [
    WeightFormat(4, 32),
    WeightFormat(4, 32, symmetric=False),
    WeightFormat(4, 64),
    WeightFormat(8, 32),
]


def correlated_inputs(width: int, seed: int = 0) -> Float:
    """Activations as networks have them: correlated, some far louder than others."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((width, width)) * np.exp(rng.standard_normal(width))
    return (rng.standard_normal((4 * width, width)) @ mixing).astype(np.float32)


def weight(rows: int, width: int) -> Float:
    return np.random.default_rng(1).standard_normal((rows, width)).astype(np.float32)


def plain(matrix: Float, wanted: WeightFormat) -> quantize.Blocks:
    bits = 8 if wanted.bits == 8 else 4
    return quantize.blockwise(
        matrix.T, bits, wanted.block_size, symmetric=wanted.symmetric, clip=True
    )


@pytest.mark.parametrize("wanted", FORMATS, ids=str)
def test_outputs_err_half_as_much_as_with_clipping(wanted: WeightFormat) -> None:
    width = 200  # not a multiple of the block
    inputs = correlated_inputs(width)
    hessian, matrix = inputs.T @ inputs, weight(96, width)
    rounded = gptq.round_blocks(matrix, gptq.Factor(hessian), wanted)
    errors = [
        gptq.output_error(matrix, quantize.dequantize(blocks, wanted.bits, width), hessian)
        for blocks in (rounded, plain(matrix, wanted))
    ]
    assert 0 < errors[0] < errors[1] / 2


def test_independent_inputs_leave_nothing_to_correct() -> None:
    matrix, wanted = weight(8, 64), WeightFormat(4, 32)
    rounded = gptq.round_blocks(matrix, gptq.Factor(np.eye(64, dtype=np.float32)), wanted)
    assert np.array_equal(rounded.values, plain(matrix, wanted).values)


def test_inputs_that_are_never_active_do_no_harm() -> None:
    inputs = correlated_inputs(64)
    inputs[:, 5:20] = 0
    hessian, matrix, wanted = inputs.T @ inputs, weight(8, 64), WeightFormat(4, 32)
    rounded = gptq.round_blocks(matrix, gptq.Factor(hessian), wanted)
    silent = gptq.round_blocks(matrix, gptq.Factor(np.zeros_like(hessian)), wanted)
    error = gptq.output_error(matrix, quantize.dequantize(rounded, 4, 64), hessian)
    assert error < gptq.output_error(
        matrix, quantize.dequantize(plain(matrix, wanted), 4, 64), hessian
    )
    assert np.array_equal(silent.values, plain(matrix, wanted).values)


def test_factor_is_of_the_damped_inverse() -> None:
    inputs = correlated_inputs(150)
    hessian = (inputs.T @ inputs).astype(np.float64)
    factor = gptq.Factor(hessian)
    upper = factor.upper.astype(np.float64)
    damped = hessian + gptq.DAMPING * np.diag(hessian).mean() * np.eye(150)
    product = upper.T @ upper @ damped[np.ix_(factor.order, factor.order)]
    assert np.allclose(upper, np.triu(upper))
    assert np.abs(product - np.eye(150)).max() < 1e-3


def test_rows_are_rounded_alike_in_one_piece_and_in_many(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = correlated_inputs(64)
    factor, matrix = gptq.Factor(inputs.T @ inputs), weight(50, 64)
    whole = gptq.round_blocks(matrix, factor, WeightFormat(4, 32, symmetric=False))
    monkeypatch.setattr(gptq, "ELEMENTS", 7 * 64)
    pieces = gptq.round_blocks(matrix, factor, WeightFormat(4, 32, symmetric=False))
    assert np.mean(whole.values != pieces.values) < 1e-3  # products of other shapes round otherwise
    assert whole.zero_point is not None
    assert np.array_equal(whole.zero_point, pieces.zero_point)


def test_text_is_predicted_better_than_with_clipping_and_that_better_than_without(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    source = speaker(hidden=128)
    texts = own_texts(source)
    workshop = DecoderWorkshop(source, texts, tmp_path_factory.mktemp("work"), 1, str)
    assert workshop.reference.perplexity < source.architecture.vocab / 8

    def increase(method: Method, size: int) -> float:
        plan = WeightPlan(WeightFormat(4, size))
        return workshop.agreement(Spec(f"{method}-{size}", plan, method)).drop

    for size in (32, 128):
        nearest, clipped, fitted = (increase(m, size) for m in ("nearest", "clip", "gptq"))
        assert 0 < fitted < 0.9 * clipped
        assert clipped < nearest
