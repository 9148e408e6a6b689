"""CPU features that matter to inference, by Linux's names, and what they are worth."""

from __future__ import annotations

from collections.abc import Set

FEATURES = {
    "amd64": (
        *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni"),
        *("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16"),
        *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    ),
    "arm64": (
        *("fp", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
        *("sme", "sme2"),
    ),
    "arm": ("vfpv3", "vfpv4", "neon", "asimdhp", "asimddp", "i8mm"),
}
"""OCI architecture -> the features a profile may name. All others in cpuinfo are left out."""

INT8_DOT_PRODUCT = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})
"""Features that multiply int8 into int32 without saturating on the way."""

# Sustained int8 GEMM over fp32 GEMM of the same core, best feature first. 3.3 with VNNI is
# measured; the others are estimates: operations per instruction, less what packing costs.
_INT8_GAIN = (
    ("amx_int8", 6.0),
    ("avx512_vnni", 3.3),
    ("avx_vnni", 3.0),
    ("i8mm", 4.5),
    ("asimddp", 3.0),
    ("avx2", 1.6),
    ("asimd", 1.2),
    ("neon", 1.2),
)


def int8_gain(isa: Set[str]) -> float:
    """Estimated int8 GEMM rate over the fp32 GEMM rate of a core with these features."""
    return next((gain for feature, gain in _INT8_GAIN if feature in isa), 1.0)
