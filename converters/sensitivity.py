"""Which nodes cost the accuracy, and what to do with them.

One node group is quantized at a time, the rest stays float; after smoothing
these errors add up, so a sorted list predicts any mixture (leaving one out of
a fully quantized graph gives no signal at all). The worst groups go back to
8-bit blocks or to float until the rest fits the allowance; the mixture is then
measured as a whole and corrected if the prediction was too kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import onnx_ir as ir

from converters.passes.base import each_graph
from converters.passes.graph_tools import tensor_of
from converters.recipes import step, with_options
from converters.target import format_of
from converters.workshop import Built, Workshop
from edge_sdk.bundle.record import Agreement, Recipe, Step

WEIGHT_INPUT = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1}
RECURRENT_INPUT = {"LSTM": 1, "GRU": 1, "RNN": 1}
STORED_INPUT = {**WEIGHT_INPUT, **RECURRENT_INPUT, "Gather": 0}
# Passes that quantize layers; smoothing stays on for excluded nodes, it is exact.
_QUANTIZERS = ("dynamic-int8", "static-qdq", "block-weights", "float16")
MEASUREMENTS = 40
LARGE_BYTES = 512 << 20
_SAFETY = 0.8

Group = tuple[str, ...]


@dataclass(frozen=True)
class Sensitivity:
    """How far the outputs move when only one group of nodes is quantized."""

    group: Group
    error: float


def weight_groups(model: ir.Model, weights: Mapping[str, int] = WEIGHT_INPUT) -> list[Group]:
    """Names of nodes with constant weights; those that share an input go together (Q, K, V).

    Args:
        model: The prepared float graph.
        weights: Operators that count -> position of their weight.
    """
    groups: dict[object, list[str]] = {}
    for node in (node for graph in each_graph(model.graph) for node in graph):
        index = weights.get(node.op_type)
        if index is None or len(node.inputs) <= index or tensor_of(node.inputs[index]) is None:
            continue
        key = node.inputs[0] if node.op_type in ("MatMul", "Gemm") else node
        groups.setdefault(key, []).append(node.name or "")
    return [tuple(names) for names in groups.values()]


def quantized_only(recipe: Recipe, kept: Sequence[str], everything: Sequence[str]) -> Recipe:
    """The recipe with all weight nodes but ``kept`` excluded, and no steps after the quantizer."""
    inside = set(kept)
    alone = excluding(recipe, [name for name in everything if name not in inside], "")
    last = max((i for i, s in enumerate(alone.steps) if s.op in _QUANTIZERS), default=None)
    steps = alone.steps if last is None else alone.steps[: last + 1]
    return msgspec.structs.replace(alone, steps=steps)


def excluding(recipe: Recipe, nodes: Sequence[str], suffix: str) -> Recipe:
    """The recipe with ``nodes`` left float; where weights are only stored small, as float16."""
    exclude = {"exclude": tuple(nodes)}
    if not _only_stores(recipe):
        return with_options(recipe, suffix, dict.fromkeys(_QUANTIZERS, exclude))
    changed = with_options(recipe, suffix, {"store-small": exclude})
    last = step("store-small", storage="float16")
    return msgspec.structs.replace(changed, steps=(*changed.steps, last))


def excluded(recipe: Recipe) -> frozenset[str]:
    """The nodes a recipe's quantizers leave out."""
    return frozenset(
        name for each in recipe.steps if each.op in _QUANTIZERS
        for name in each.options.get("exclude", ())
    )  # fmt: skip


def _only_stores(recipe: Recipe) -> bool:
    return not any(each.op in _QUANTIZERS for each in recipe.steps)


def in_blocks(recipe: Recipe, nodes: Sequence[str], suffix: str) -> Recipe:
    """The recipe with ``nodes`` as 8-bit blocks instead of int8 with quantized activations."""
    # Block weights need no smoothing, and without it cost one Mul less.
    mixed = with_options(
        excluding(recipe, nodes, suffix), "", {"smooth-quant": {"exclude": tuple(nodes)}}
    )
    steps: list[Step] = []
    for each in mixed.steps:
        steps.append(each)
        if each.op == "dynamic-int8":
            # Activations get a scale per row and block; 256 is the largest, quickest block.
            steps.append(step("block-weights", bits=8, block_size=256, include=tuple(nodes)))
    return Recipe(name=mixed.name, steps=tuple(steps), engine=mixed.engine)


def can_block(recipe: Recipe) -> bool:
    """Whether the recipe's family mixes with 8-bit blocks (contrib ops, MatMul only)."""
    written = format_of(recipe.engine)
    return written == "onnx" and any(each.op == "dynamic-int8" for each in recipe.steps)


def measure(
    workshop: Workshop,
    recipe: Recipe,
    prepared: tuple[Step, ...],
    samples: int,
) -> list[Sensitivity]:
    """Sensitivities of all weight groups, worst first.

    With more groups than there are measurements to spend, neighbours are measured
    together first and only the worst of these bundles are taken apart. The number
    of measurements follows from the model and not from the clock, so that a slow
    machine finds the same mixture as a fast one.
    """
    weights = STORED_INPUT if _only_stores(recipe) else WEIGHT_INPUT
    if any(each.options.get("recurrent") for each in recipe.steps):
        weights = {**weights, **RECURRENT_INPUT}
    groups = weight_groups(workshop.prepared(prepared)[0], weights)
    everything = [name for group in groups for name in group]
    if not groups:
        return []

    def error_of(names: Sequence[str]) -> float:
        built = workshop.build(quantized_only(recipe, names, everything), prepared)
        return smooth_error(workshop.agreement(built, samples))

    affordable = MEASUREMENTS if workshop.source.size_bytes < LARGE_BYTES else MEASUREMENTS // 8
    width = -(-len(groups) // affordable)
    bundles = [groups[i : i + width] for i in range(0, len(groups), width)]
    found = [(error_of([n for g in bundle for n in g]), bundle) for bundle in bundles]
    found.sort(key=lambda item: -item[0])
    result: list[Sensitivity] = []
    for error, bundle in found:
        apart = 1 < len(bundle) <= affordable - len(result)
        for group in bundle:
            share = error_of(group) if apart else error / len(bundle)
            result.append(Sensitivity(group, max(share, 0.0)))
    return sorted(result, key=lambda item: -item.error)


def smooth_error(agreement: Agreement) -> float:
    """A figure that moves a little when one node does; flipped decisions only jump."""
    similarity = agreement.drop_of.startswith(("1 - cosine", "1 - concordance"))
    return agreement.drop if similarity else 1 - agreement.cosine


def hold_limit(
    workshop: Workshop,
    recipe: Recipe,
    prepared: tuple[Step, ...],
    ranked: Sequence[Sensitivity],
    max_drop: float,
    samples: int,
) -> Built | None:
    """The mixture with the fewest groups returned to higher precision that holds ``max_drop``.

    Returns:
        The candidate, or ``None`` if it does not hold even with half of the groups returned.
    """
    whole = workshop.agreement(workshop.build(recipe, prepared), samples)
    allowance = _SAFETY * max_drop * smooth_error(whole) / max(whole.drop, max_drop)
    # The prediction adds errors up, which is too dark for some networks: look earlier too.
    back = min(_predicted_count(ranked, allowance), max(1, len(ranked) // 4))
    while back <= min(len(ranked), len(ranked) // 2 + 1):
        nodes = [name for item in ranked[:back] for name in item.group]
        change = in_blocks if can_block(recipe) else excluding
        built = workshop.build(change(recipe, nodes, f"-mixed{len(nodes)}"), prepared)
        if workshop.agreement(built, samples).drop <= max_drop:
            return built
        back = max(back + 1, int(back * 1.5))
    return None


def _predicted_count(ranked: Sequence[Sensitivity], allowance: float) -> int:
    """How many of the worst groups must go so that the rest adds up to the allowance."""
    rest = sum(item.error for item in ranked)
    for count, item in enumerate(ranked):
        if rest <= allowance:
            return max(count, 1)
        rest -= item.error
    return len(ranked)
