"""Ranges of input shapes, and the options that a variant for TensorRT gets."""

from __future__ import annotations

import msgspec
import numpy as np

from converters.tensorrt import ShapeProfile, shape_profile, variant_options
from device_profiles.loader import load_profile
from edge_sdk.bundle.record import TensorSpec

JETSON = load_profile("jetson-orin-nano")
ENGINE = JETSON.engines[0]
TRT = "TensorrtExecutionProvider."


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def calls(**shapes: list[tuple[int, ...]]) -> list[dict[str, np.ndarray]]:
    count = len(next(iter(shapes.values())))
    return [{name: np.zeros(s[i]) for name, s in shapes.items()} for i in range(count)]


def test_sizes_are_what_the_data_have_and_any_number_of_samples() -> None:
    image = spec("x", "batch", 3, "height", "width")
    seen = calls(x=[(1, 3, 32, 64), (1, 3, 48, 96), (1, 3, 48, 320)])
    assert shape_profile([image], seen) == {
        "x": ShapeProfile((1, 3, 32, 64), (1, 3, 48, 96), (8, 3, 48, 320))
    }


def test_texts_may_be_of_any_length_up_to_the_longest() -> None:
    inputs = [spec(name, "n", "length", dtype="int64") for name in ("ids", "mask")]
    found = shape_profile(inputs, calls(ids=[(1, 9), (2, 30), (1, 12)]), longest_text=512)
    assert found["ids"] == found["mask"] == ShapeProfile((1, 1), (1, 12), (8, 512))


def test_inputs_of_fixed_shape_need_none() -> None:
    assert shape_profile([spec("x", 1, 4), spec("rate")], calls(x=[(1, 4)])) == {}


def test_states_and_inputs_that_no_call_has_get_single_sizes() -> None:
    found = shape_profile([spec("h", 2, "batch", 8)], [])
    assert found == {"h": ShapeProfile((2, 1, 8), (2, 1, 8), (2, 1, 8))}


def test_a_larger_batch_than_usual_is_kept() -> None:
    found = shape_profile([spec("x", "n", 4)], calls(x=[(64, 4)]))
    assert found["x"] == ShapeProfile((1, 4), (64, 4), (64, 4))


def test_options_are_in_the_providers_own_form() -> None:
    shapes = {
        "ids": ShapeProfile((1, 1), (1, 24), (8, 512)),
        "mask": ShapeProfile((1, 1), (1, 24), (8, 512)),
    }
    assert variant_options(JETSON, ENGINE, shapes) == {
        f"{TRT}trt_profile_min_shapes": "ids:1x1,mask:1x1",
        f"{TRT}trt_profile_opt_shapes": "ids:1x24,mask:1x24",
        f"{TRT}trt_profile_max_shapes": "ids:8x512,mask:8x512",
        f"{TRT}trt_max_workspace_size": str(1 << 30),
        "CUDAExecutionProvider.gpu_mem_limit": str(4 << 30),
    }


def test_names_that_the_form_cannot_hold_leave_the_ranges_to_the_provider() -> None:
    found = variant_options(JETSON, ENGINE, {"serving:0": ShapeProfile((1,), (1,), (8,))})
    assert not any("shapes" in key for key in found)


def test_engines_without_tensorrt_get_no_options() -> None:
    plain = msgspec.structs.replace(ENGINE, providers=("CPUExecutionProvider",))
    assert variant_options(JETSON, plain, {"x": ShapeProfile((1,), (1,), (8,))}) == {}
