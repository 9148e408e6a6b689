"""How much context a memory limit leaves for a decoder. Pure: decided before anything is loaded.

What the model itself needs is in its record's :class:`MemoryPlan`; the KV cache
takes what is left. A context that does not fit is kept in int8 where that is
enough, and shortened only then; a model that leaves no room for a useful context
is refused with the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_sdk.bundle.record import Generation, MemoryPlan
from edge_sdk.errors import InputError, MemoryLimitError

KvType = Literal["float32", "int8"]
# A shortened context with room for fewer tokens is none to talk in.
LEAST = 64


@dataclass(frozen=True)
class ContextPlan:
    """The KV cache a decoder is opened with, and what everything takes, in bytes.

    Attributes:
        capacity: Tokens per row, prompt and answer together.
        rows: Sequences that are alive at the same time.
        kv: Element type of the cache.
        kv_bytes: The cache: all rows, all layers, keys and values.
        memory: Everything else.
        wished: Tokens per row that were asked for.
    """

    capacity: int
    rows: int
    kv: KvType
    kv_bytes: int
    memory: MemoryPlan
    wished: int

    @property
    def peak(self) -> int:
        """Predicted peak resident memory of the process with a full cache."""
        return self.memory.peak + self.kv_bytes

    @property
    def shortened(self) -> bool:
        """Whether the limit left less context than was asked for."""
        return self.capacity < self.wished


def kv_per_token(plan: MemoryPlan, generation: Generation, kv: KvType) -> int:
    """Bytes of one token's keys and values in all layers."""
    if kv == "float32":
        return plan.kv_per_token
    return 2 * generation.layers * generation.kv_heads * generation.head_dim


def plan_context(
    plan: MemoryPlan,
    generation: Generation,
    limit: int | None = None,
    *,
    context: int | None = None,
    rows: int = 1,
    kv_types: tuple[KvType, ...] = ("float32", "int8"),
    where: str = "",
) -> ContextPlan:
    """Chooses capacity and element type of a decoder's KV cache.

    Args:
        plan: The variant's memory plan.
        generation: The variant's shape; its context is the longest that can be asked for.
        limit: What the process may use, in bytes; unlimited by default.
        context: Tokens per row that are wished for; the model's own context by default.
        rows: Sequences that shall be alive at the same time.
        kv_types: Element types there are graphs for, the preferred one first.
        where: The variant, for the error.

    Raises:
        InputError: ``context`` or ``rows`` is less than one, or the context longer than
            the model's.
        MemoryLimitError: Not even the shortest context fits; the message has the numbers.
    """
    wished = generation.context if context is None else context
    _check(wished, rows, generation)
    room = None if limit is None else limit - plan.peak
    costs = {kv: rows * kv_per_token(plan, generation, kv) for kv in kv_types}
    for kv, cost in costs.items():
        if room is None or wished * cost <= room:
            return ContextPlan(wished, rows, kv, wished * cost, plan, wished)
    kv, cost = min(costs.items(), key=lambda item: item[1])
    capacity = (room or 0) // cost
    if capacity < LEAST:
        raise _refusal(plan, limit or 0, min(LEAST, wished) * cost, rows, where)
    return ContextPlan(capacity, rows, kv, capacity * cost, plan, wished)


def _check(context: int, rows: int, generation: Generation) -> None:
    if not 1 <= context <= generation.context:
        raise InputError(
            f"the context must be 1 to {generation.context} tokens, not {context}",
            where="context",
            remedy=f"ask for at most {generation.context} tokens",
        )
    if rows < 1:
        raise InputError(f"at least one stream is needed, not {rows}", where="streams")


def _refusal(plan: MemoryPlan, limit: int, cache: int, rows: int, where: str) -> MemoryLimitError:
    parts = {
        "weights, mapped": plan.weights_mapped,
        "weights, private": plan.weights_private,
        "activations": plan.activations,
        "engine": plan.engine,
        "shortest KV cache": cache,
        "predicted peak": plan.peak + cache,
        "limit": limit,
        "short by": plan.peak + cache - limit,
    }
    table = "\n".join(f"    {name:<18}{size / 2**20:>9.1f} MiB" for name, size in parts.items())
    return MemoryLimitError(
        f"predicted not to fit the memory limit\n{table}",
        where=where or None,
        remedy="raise the limit" + (", use fewer streams" if rows > 1 else "") + ", or a variant"
        " with fewer bits",
    )
