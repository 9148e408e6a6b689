"""Options of ONNX Runtime's execution providers that depend on the variant.

What holds for every variant stands in the profile. Names are those of ONNX Runtime 1.23's
TensorRT and CUDA providers, in :mod:`edge_sdk.runtime.engines.onnx`'s form.
"""

from __future__ import annotations

from collections.abc import Mapping

from converters.tensorrt.shapes import Shape, ShapeProfile
from device_profiles.schema import EngineChoice, Profile

TENSORRT = "TensorrtExecutionProvider"
CUDA = "CUDAExecutionProvider"
# A kernel may try what needs a quarter of the model's memory; the rest is weights and activations.
WORKSPACE_SHARE = 4


def uses_tensorrt(engine: EngineChoice) -> bool:
    """Whether variants for this engine are compiled by TensorRT."""
    return TENSORRT in engine.providers


def workspace(profile: Profile) -> int:
    """Bytes that one of TensorRT's kernels may take beside weights and activations."""
    return (profile.memory.model_budget_mib << 20) // WORKSPACE_SHARE


def variant_options(
    profile: Profile, engine: EngineChoice, shapes: Mapping[str, ShapeProfile]
) -> dict[str, str]:
    """Options that the profile's file cannot hold: limits by its budget, shapes by the model.

    Args:
        profile: The device.
        engine: The engine of the variant.
        shapes: Ranges of the inputs with dynamic dimensions.
    """
    found: dict[str, str] = {}
    if uses_tensorrt(engine):
        found[f"{TENSORRT}.trt_max_workspace_size"] = str(workspace(profile))
        if shapes and not any(set(name) & {":", ","} for name in shapes):  # the form has no escape
            for bound in ("min", "opt", "max"):
                listed = (f"{name}:{_form(getattr(r, bound))}" for name, r in shapes.items())
                found[f"{TENSORRT}.trt_profile_{bound}_shapes"] = ",".join(listed)
    if CUDA in engine.providers:
        found[f"{CUDA}.gpu_mem_limit"] = str(profile.memory.model_budget_mib << 20)
    return found


def _form(shape: Shape) -> str:
    return "x".join(map(str, shape))
