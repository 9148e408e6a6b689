"""Walks a source layer by layer: memory for one layer and the hidden states of some windows.

:func:`reference` scores the source in fp32. :func:`calibrate` rounds its weights
by GPTQ, each layer fitted to what the rounded layers before it hand on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from converters.decoder import gptq, graph
from converters.decoder.architecture import Architecture
from converters.decoder.graph import FLOAT32
from converters.decoder.names import layer_nodes, parts
from converters.decoder.perplexity import Scores, score
from converters.decoder.rounding import Rounded
from converters.decoder.source import DecoderSource
from converters.decoder.texts import WINDOW, Tokens
from converters.decoder.weights import WeightFormat, WeightPlan, Weights
from converters.materialize import opened
from edge_sdk.runtime.engine import Session, SessionOptions

Hidden = NDArray[np.float32]
Say = Callable[[str], None]


def reference(source: DecoderSource, windows: Sequence[Tokens], threads: int, say: Say) -> Scores:
    """Scores the source in fp32.

    Args:
        source: The model.
        windows: What to predict.
        threads: Intra-op threads.
        say: Told which layer is at work.
    """
    model, options = _short(source.architecture), _options(threads)
    states = _embedded(model, source.weights, FLOAT32, windows, options)
    for index in range(model.layers):
        _progress(say, "source in fp32", index, model.layers)
        with opened(graph.layer(model, source.weights, index), options) as session:
            states = [_float(session, {"hidden": state}, "output") for state in states]
    left = iter(states)
    with opened(graph.head(model, source.weights), options) as session:
        return score(windows, lambda _: _float(session, {"hidden": next(left)}, "logits")[0])


def calibrate(
    source: DecoderSource, windows: Sequence[Tokens], rounded: Rounded, plan: WeightPlan,
    threads: int, say: Say,
) -> None:  # fmt: skip
    """Rounds all weights in blocks by GPTQ and keeps them.

    A tied table stays as it is: its rows are also what the embedding hands on.

    Args:
        source: The model.
        windows: What its nodes' inputs are taken from.
        rounded: Where the blocks are kept, and read for the layers that follow.
        plan: Formats of the weights.
        threads: Intra-op threads.
        say: Told which layer is at work.
    """
    model, options = _short(source.architecture), _options(threads)
    states = _embedded(model, rounded, plan, windows, options)
    for index in range(model.layers):
        _progress(
            say,
            f"GPTQ {plan.default.bits} bits, block {plan.default.block_size}",
            index,
            model.layers,
        )
        if nodes := [n for n in layer_nodes(index) if _unrounded(source.weights, n, plan.of(n))]:
            with opened(graph.layer(model, source.weights, index), options) as session:
                inputs = _second_moments(session, states, nodes)
            for node in nodes:
                _round(source.weights, rounded, node, plan.of(node), inputs.pop(node))
        with opened(graph.layer(model, rounded, index, plan), options) as session:
            states = [_float(session, {"hidden": state}, "output") for state in states]
    if not model.tied and _unrounded(source.weights, "head", plan.of("head")):
        with opened(graph.head(model, source.weights), options) as session:
            inputs = _second_moments(session, states, ["head"])
        _round(source.weights, rounded, "head", plan.of("head"), inputs["head"])


def _round(
    weights: Weights, rounded: Rounded, node: str, wanted: WeightFormat, inputs: Hidden
) -> None:
    factor = gptq.Factor(inputs)
    for name in _unrounded(weights, node, wanted):
        rounded.keep(name, wanted, gptq.round_blocks(weights.read(name), factor, wanted))


def _unrounded(weights: Weights, node: str, wanted: WeightFormat) -> list[str]:
    """What of a node's weights is to be rounded: not what stays in float or has its blocks."""
    if wanted.bits in (16, 32):
        return []
    return [name for name in parts(node) if weights.blocks(name, wanted) is None]


def _second_moments(
    session: Session, states: Sequence[Hidden], nodes: Sequence[str]
) -> dict[str, Hidden]:
    """Node -> sum of ``x x^T`` over all positions of what it multiplies, float32 [in, in]."""
    found: dict[str, Hidden] = {}
    for state in states:
        outputs = session.run({"hidden": state})
        for node in nodes:
            inputs = outputs[f"{node}.input"][0].astype(np.float32, copy=False)
            moment = inputs.T @ inputs
            found[node] = found[node] + moment if node in found else moment
    return found


def _embedded(
    model: Architecture,
    weights: Weights,
    plan: WeightPlan,
    windows: Sequence[Tokens],
    options: SessionOptions,
) -> list[Hidden]:
    with opened(graph.embed(model, weights, plan), options) as session:
        return [_float(session, {"input_ids": window[None]}, "hidden") for window in windows]


def _float(session: Session, feeds: dict[str, NDArray[np.generic]], output: str) -> Hidden:
    return session.run(feeds)[output].astype(np.float32, copy=False)


def _progress(say: Say, what: str, index: int, layers: int) -> None:
    """About eight sentences, however deep the model is."""
    if index % max(1, layers // 8) == 0:
        say(f"{what}: layer {index + 1} of {layers}")


def _options(threads: int) -> SessionOptions:
    return SessionOptions(threads=threads, arena=False)


def _short(model: Architecture) -> Architecture:
    """The architecture with rotary tables no longer than windows are."""
    return replace(model, context=min(model.context, WINDOW))
