"""Admission: whether a variant fits a memory limit, decided before anything is loaded. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from edge_sdk.bundle.record import MemoryPlan
from edge_sdk.errors import InputError, MemoryLimitError

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def parse_size(size: int | str) -> int:
    """Bytes of ``268435456``, ``"256MiB"``, ``"0.5 GiB"`` or ``"256 MB"``.

    Raises:
        InputError: Not a positive size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?)b?\s*", str(size).lower())
    found = int(float(match[1]) * UNITS[match[2]]) if match and match[2] in UNITS else 0
    if found <= 0:
        raise InputError(
            f"not a memory size: {size!r}",
            where="memory_limit",
            remedy="give bytes, or a number with a unit: 256MiB, 1GiB",
        )
    return found


def predicted_activations(plan: MemoryPlan, dimensions: Mapping[str, int]) -> int:
    """Peak of live activations, in bytes, for a call with these symbolic dimensions.

    Activations grow with the product of the dimensions, counted from the ones the
    plan was made for; smaller calls are not counted as cheaper, because an engine
    keeps what it once allocated. (Attention scores grow with the square of the
    sequence length, so far beyond the reference this is a lower bound.)
    """
    ratios = (
        max(1.0, dimensions[symbol] / reference)
        for symbol, reference in plan.reference_shapes.items()
        if symbol in dimensions and reference > 0
    )
    return int(plan.activations * prod(ratios))


def admit(
    plan: MemoryPlan, limit: int, where: str, dimensions: Mapping[str, int] | None = None
) -> None:
    """Refuses a model or a call whose predicted peak exceeds the limit.

    Args:
        plan: The variant's memory plan.
        limit: What the process may use, in bytes.
        where: The variant or call, for the error.
        dimensions: Symbolic dimensions of the call; the plan's own by default.

    Raises:
        MemoryLimitError: It is predicted not to fit; the message has the numbers.
    """
    activations = predicted_activations(plan, dimensions or {})
    peak = plan.peak - plan.activations + activations
    if peak <= limit:
        return
    rows = {
        "weights, mapped": plan.weights_mapped,
        "weights, private": plan.weights_private,
        "activations": activations,
        "engine": plan.engine,
        "predicted peak": peak,
        "limit": limit,
        "short by": peak - limit,
    }
    table = "\n".join(f"    {name:<17}{size / 2**20:>9.1f} MiB" for name, size in rows.items())
    raise MemoryLimitError(
        f"predicted not to fit the memory limit\n{table}",
        where=where,
        remedy="raise the limit, use a smaller batch, or a variant for a smaller profile",
    )
