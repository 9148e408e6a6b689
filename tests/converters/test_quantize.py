"""The arithmetic of quantization: bounds on the error, and the edge cases of scales."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from converters import quantize

FINITE = st.floats(-1000, 1000, width=32).map(lambda value: np.float32(round(value, 6)))
BOUND = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@given(BOUND, BOUND, st.sampled_from(["int8", "uint8"]), st.booleans())
def test_zero_is_exact_and_the_range_is_covered(
    low: float, high: float, dtype: quantize.IntType, symmetric: bool
) -> None:
    found = quantize.affine(low, high, dtype, symmetric)
    info = np.iinfo(dtype)
    assert info.min <= found.zero_point <= info.max
    assert found.scale > 0
    if symmetric:
        assert found.zero_point == (0 if dtype == "int8" else 128)
    lowest, highest = found.limits
    slack = float(found.scale) * 0.5001
    assert lowest <= min(low, 0) + slack
    assert highest >= max(high, 0) - slack


@given(arrays(np.float32, (5, 7), elements=FINITE), st.sampled_from([None, 0, 1]))
def test_weights_come_back_within_half_a_step(weight: quantize.Float, axis: int | None) -> None:
    found = quantize.symmetric(weight, axis)
    step = found.scale if axis is None else np.expand_dims(found.scale, 1 - axis)
    assert found.values.dtype == np.int8
    assert (np.abs(found.dequantize() - weight) <= step * 0.501).all()


@given(
    arrays(np.float32, (40, 3), elements=FINITE),
    st.sampled_from([4, 8]),
    st.sampled_from([16, 32]),
    st.booleans(),
)
def test_blocks_come_back_within_a_step(
    weight: quantize.Float, bits: int, block_size: int, symmetric: bool
) -> None:
    found = quantize.blockwise(weight, bits, block_size, symmetric=symmetric)  # type: ignore[arg-type]
    back = unpacked(found, weight.shape, bits, block_size)
    # The side of zero with one code less may lose a whole step, the other half of one.
    step = np.repeat(np.abs(found.scale), block_size, axis=1)[:, : weight.shape[0]].T
    assert (np.abs(back - weight) <= step * 1.001).all()


def unpacked(
    blocks: quantize.Blocks, shape: tuple[int, ...], bits: int, block_size: int
) -> quantize.Float:
    """The weight [K, N] that the layout stands for, read by its documentation."""
    n, count = blocks.scale.shape

    def codes(packed: np.ndarray, length: int) -> np.ndarray:
        if bits == 8:
            return packed
        return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)[
            ..., :length
        ]

    values = codes(blocks.values, block_size).astype(np.float32)
    zero = (
        2.0 ** (bits - 1)
        if blocks.zero_point is None
        else codes(blocks.zero_point, count)[..., None]
    )
    return ((values - zero) * blocks.scale[..., None]).reshape(n, -1)[:, : shape[0]].T


@pytest.mark.parametrize("bits", [4, 8])
def test_clipping_lowers_the_error_of_a_long_tail(bits: int) -> None:
    weight = np.random.default_rng(0).laplace(size=(256, 8)).astype(np.float32)

    def block_error(clip: bool) -> float:
        found = quantize.blockwise(weight, bits, 64, symmetric=True, clip=clip)  # type: ignore[arg-type]
        return float(np.square(unpacked(found, weight.shape, bits, 64) - weight).sum())

    assert block_error(True) <= (0.97 if bits == 4 else 1) * block_error(False)


def test_channels_are_scaled_apart_and_dead_ones_survive() -> None:
    weight = np.array([[1000, 0.001, 0], [-500, 0.002, 0]], np.float32)
    found = quantize.symmetric(weight, axis=1)
    np.testing.assert_allclose(found.dequantize(), weight, rtol=0.01)
    assert found.scale[2] == 1
    np.testing.assert_array_equal(
        quantize.symmetric(weight, 1, floor=np.full(3, 20, np.float32)).scale, 20
    )
    assert np.abs(quantize.symmetric(weight, 1, limit=63).values).max() == 63
