"""How fast a decoder would answer on a device, by arithmetic alone. Pure.

A token reads every packed weight once and multiplies by it; the two overlap
little, so their times add up, and each node costs its launch. A prompt is the
same arithmetic for all of its tokens at once, and reads the weights once per
chunk. The shares of a profile's rates that ONNX Runtime reaches were fitted to
graphs of 135 and 360 million parameters (docs/measuring.md).
"""

from __future__ import annotations

from converters.decoder import costs
from converters.decoder.architecture import Architecture
from converters.decoder.memory import kv_bytes
from converters.decoder.weights import WeightPlan
from device_profiles.schema import Profile
from edge_sdk.runtime.generation.decoder import CHUNK

# Share of the int8 rate (weights in blocks) or fp32 rate (float weights) that is reached.
BLOCK_SHARE = 0.55
FLOAT_SHARE = 0.64
# Multiply-adds that a block's scale and sum cost beside its weights.
BLOCK_OVERHEAD = 18
# What starting a node on all threads costs, in FLOPs of one core.
NODE_FLOPS = 420_000
# Attention's reads of the cache reach less than half of the bandwidth.
KV_READS = 2.5


def token_seconds(
    architecture: Architecture, plan: WeightPlan, profile: Profile, past: int = 0
) -> float:
    """Time of one decoded token with the profile's threads.

    Args:
        architecture: The decoder.
        plan: Formats of its weights.
        profile: The device.
        past: Tokens in the cache, in float32.
    """
    matrices = costs.matrices(architecture, plan)
    read = sum(matrix.packed_bytes for matrix in matrices)
    read += int(KV_READS * past * kv_bytes(architecture))
    return (
        read / _bandwidth(profile)
        + sum(_compute_seconds(matrix, profile) for matrix in matrices)
        + _launch_seconds(architecture, profile)
    )


def prompt_seconds(
    architecture: Architecture, plan: WeightPlan, profile: Profile, tokens: int
) -> float:
    """Time to the first token after a prompt; only its last token needs the head."""
    *body, head = costs.matrices(architecture, plan)
    chunks = -(-tokens // CHUNK)
    read = chunks * sum(matrix.packed_bytes for matrix in body) + head.packed_bytes
    # A token attends to half of the prompt on average.
    read += int(KV_READS * tokens * tokens / 2 * kv_bytes(architecture) / CHUNK)
    return (
        read / _bandwidth(profile)
        + tokens * sum(_compute_seconds(matrix, profile) for matrix in body)
        + _compute_seconds(head, profile)
        + chunks * _launch_seconds(architecture, profile)
    )


def _compute_seconds(matrix: costs.Matrix, profile: Profile) -> float:
    cpu = profile.cpu
    if matrix.blocks:
        size = matrix.wanted.block_size
        operations = 2 * matrix.blocks * (size + BLOCK_OVERHEAD)
        return operations / (BLOCK_SHARE * cpu.int8_gops_per_core * 1e9 * cpu.threads)
    return matrix.flops / (FLOAT_SHARE * cpu.fp32_gflops_per_core * 1e9 * cpu.threads)


def _launch_seconds(architecture: Architecture, profile: Profile) -> float:
    return costs.node_count(architecture) * NODE_FLOPS / (profile.cpu.fp32_gflops_per_core * 1e9)


def _bandwidth(profile: Profile) -> float:
    return profile.memory.bandwidth_gb_per_s * 1e9
