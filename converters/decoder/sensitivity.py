"""Which layers cost the perplexity, and how few of them must be stored more precisely.

One group of nodes at a time has the candidate's format while the rest has 8 bits,
which lose nothing; the increases add up well enough to say how many of the worst
groups have to go. The mixture is then measured as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from converters.decoder.architecture import Architecture
from converters.decoder.candidates import Spec
from converters.decoder.names import layer_nodes
from converters.decoder.texts import Tokens
from converters.decoder.weights import WeightFormat, WeightPlan
from converters.decoder.workshop import DecoderWorkshop
from device_profiles.schema import Rules

PRECISE = WeightFormat(bits=8)
# Tokens that one measurement reads; of a deep model, whole layers are measured together.
TOKENS = 2048
MANY_GROUPS = 40
_SAFETY = 0.8

Group = tuple[str, ...]


@dataclass(frozen=True)
class Sensitivity:
    """The increase of the loss per token when only one group has the candidate's format."""

    group: Group
    increase: float


def groups(architecture: Architecture) -> list[Group]:
    """Nodes that are measured together: attention, MLP, head; whole layers of deep models."""
    found: list[Group] = [("head",)]
    for index in range(architecture.layers):
        qkv, o, gate_up, down = layer_nodes(index)
        found += [(qkv, o), (gate_up, down)]
    if len(found) > MANY_GROUPS:
        return [("head",), *(layer_nodes(index) for index in range(architecture.layers))]
    return found


def precise_format(rules: Rules, default: WeightFormat) -> WeightFormat:
    """What the worst nodes of a candidate are stored in on a device.

    8 bits where its kernels take them. Where they do not (8-bit blocks are not packed on
    ARM without dot product, and unpacked on every call), blocks of 32, else float.
    """
    if "int8-block" in rules.recipes:
        return PRECISE
    finest = WeightFormat(default.bits, 32)
    return finest if default.block_size > finest.block_size else WeightFormat(16)


def measure(workshop: DecoderWorkshop, spec: Spec) -> list[Sensitivity]:
    """Sensitivities of all groups of a candidate, worst first.

    Args:
        workshop: Where trials are built; on the text that calibrates, not that which judges.
        spec: The candidate.
    """
    windows = _some(workshop.texts.calibration)
    alone = replace(spec, plan=WeightPlan(PRECISE))
    base = workshop.trial(alone, windows)
    found = []
    for group in groups(workshop.source.architecture):
        changed = {node: spec.plan.of(node) for node in group}
        trial = workshop.trial(alone.with_nodes(f"{spec.name} in {group[0]}", changed), windows)
        found.append(Sensitivity(group, (trial.loss - base.loss) / base.tokens))
    return sorted(found, key=lambda item: -item.increase)


def mixtures(
    spec: Spec, ranked: Sequence[Sensitivity], precise: WeightFormat, drop: float, max_drop: float
) -> list[Spec]:
    """Mixtures with ever more of the worst groups stored precisely, up to half of them.

    Args:
        spec: The candidate that loses too much.
        ranked: Its groups, worst first.
        precise: The format for the worst ones.
        drop: What it loses as a whole.
        max_drop: What it may lose.
    """
    count, found = _predicted_count(ranked, drop, max_drop), []
    while count <= len(ranked) // 2 + 1:
        nodes = [node for item in ranked[:count] for node in item.group]
        name = f"{spec.name}-mixed{len(nodes)}"
        found.append(spec.with_nodes(name, dict.fromkeys(nodes, precise)))
        count = max(count + 1, int(count * 1.5))
    return found


def _predicted_count(ranked: Sequence[Sensitivity], drop: float, max_drop: float) -> int:
    """How many groups must go so that the rest's share of the increase is allowed.

    The sum may promise too much: at most a quarter of the groups is skipped on its word.
    """
    increases = [max(item.increase, 0.0) for item in ranked]
    share = _SAFETY * math.log1p(max_drop) / math.log1p(max(drop, max_drop, 1e-9))
    allowed, rest, count = share * sum(increases), sum(increases), 0
    while count < len(ranked) and rest > allowed:
        rest -= increases[count]
        count += 1
    return max(1, min(count, max(1, len(ranked) // 4)))


def _some(windows: Sequence[Tokens]) -> list[Tokens]:
    found: list[Tokens] = []
    for window in windows:
        if sum(map(len, found)) >= TOKENS:
            break
        found.append(window)
    return found
