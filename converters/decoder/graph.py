"""The decoder graph: built layer by layer, weights left where they are until it is written.

::

    input_ids -> embed -> [norm -> qkv -> GroupQueryAttention -> o -> + -> norm -> gate_up
                           -> act * up -> down -> +] x layers -> norm -> head -> logits

Every residual add is part of the norm after it. What is wanted of ``logits_at``
is taken before the last layer's output projection, so that a prompt pays for
nothing but its keys and values there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.decoder import rope
from converters.decoder.architecture import Architecture
from converters.decoder.network import CONTRIB, Attribute, Network, Shape, typed
from converters.decoder.tensors import FloatType, lazy
from converters.decoder.weights import WeightFormat, WeightPlan, Weights

FLOAT32 = WeightPlan(WeightFormat(bits=32))
KvType = Literal["float32", "int8"]
Angles = NDArray[np.float64]


@dataclass(frozen=True)
class KvScales:
    """Scales of one layer's int8 key and value cache: ``real = int8 * scale``.

    Attributes:
        key: float32 [kv_heads, head_dim], of keys as they are cached (rotated).
        value: float32 [kv_heads, head_dim].
    """

    key: NDArray[np.float32]
    value: NDArray[np.float32]


@dataclass(frozen=True)
class _Cache:
    """One layer's cache as attention needs it; without a past where there is none."""

    shape: Shape
    seqlens_k: ir.Value
    total: ir.Value
    key: ir.Value | None = None
    value: ir.Value | None = None
    scales: KvScales | None = None


@dataclass(frozen=True)
class _Stream:
    """The residual stream, with what is still to be added to it."""

    residual: ir.Value
    delta: ir.Value | None = None


def build(
    architecture: Architecture,
    weights: Weights,
    plan: WeightPlan,
    *,
    kv: KvType = "float32",
    kv_scales: Sequence[KvScales] | None = None,
    float_type: FloatType = "float32",
    adapted: Collection[str] = (),
) -> ir.Model:
    """Builds the whole decoder.

    Inputs are ``input_ids`` int64 [batch, sequence], ``seqlens_k`` int32 [batch] (tokens in
    the cache after the call, minus 1), ``total_sequence_length`` int32 [] (the largest of
    ``seqlens_k + 1``), ``logits_at`` int64 [positions] and for each layer
    ``past_key_values.{i}.key`` / ``.value`` [batch, kv_heads, capacity, head_dim]. Outputs are
    ``logits`` float32 [batch, positions, vocab] and ``present.{i}.key`` / ``.value``, bound to
    the same buffers as the past.

    Each ``adapted`` node adds inputs ``lora.{node}.a`` [in, rank] and ``lora.{node}.b``
    [rank, out] of ``float_type``, the adapter's scale already in them; a rank of 0 is no
    adapter. Where a node stacks several matrices, so do its ``b``, block by block.

    Args:
        architecture: What to build; its ``context`` is the length of the rotary tables.
        weights: Its weights; read when the model's tensors are written.
        plan: Formats of the weights.
        kv: Element type of the caches; ``float32`` means ``float_type``.
        kv_scales: One per layer, for int8 caches only.
        float_type: Type of activations and float weights.
        adapted: Nodes that take a low-rank adapter.
    """
    net = Network(architecture, weights, plan, float_type, adapted)
    ids = _value("input_ids", ir.DataType.INT64, ("batch", "sequence"))
    seqlens = _value("seqlens_k", ir.DataType.INT32, ("batch",))
    total = _value("total_sequence_length", ir.DataType.INT32, ())
    wanted = _value("logits_at", ir.DataType.INT64, ("positions",))
    kv_type = ir.DataType.INT8 if kv == "int8" else net.dtype
    shape = ("batch", architecture.kv_heads, "capacity", architecture.head_dim)
    pasts: list[ir.Value] = []
    presents: list[ir.Value] = []
    stream = _Stream(net.embed(ids))
    for index in range(architecture.layers):
        past_key = _value(f"past_key_values.{index}.key", kv_type, shape)
        past_value = _value(f"past_key_values.{index}.value", kv_type, shape)
        scales = kv_scales[index] if kv_scales else None
        cache = _Cache(shape, seqlens, total, past_key, past_value, scales)
        is_last = index == architecture.layers - 1
        stream, present = _layer(net, index, stream, cache, wanted if is_last else None)
        pasts += [past_key, past_value]
        presents += present
    logits = _head(net, stream, ("batch", "positions", architecture.vocab))
    inputs = [ids, seqlens, total, wanted, *pasts, *net.adapters]
    return net.model(inputs, [logits, *presents])


def embed(architecture: Architecture, weights: Weights, plan: WeightPlan = FLOAT32) -> ir.Model:
    """The embedding alone: ``input_ids`` int64 [1, sequence] -> ``hidden``."""
    net = Network(architecture, weights, plan)
    ids = _value("input_ids", ir.DataType.INT64, (1, "sequence"))
    hidden = net.op("Identity", [net.embed(ids)], "hidden")
    shape = (1, "sequence", architecture.hidden)
    return net.model([ids], [typed(hidden, ir.DataType.FLOAT, shape)])


def layer(
    architecture: Architecture, weights: Weights, index: int, plan: WeightPlan = FLOAT32
) -> ir.Model:
    """One layer alone, over whole sequences without a past.

    ``hidden`` [1, sequence, hidden] -> ``output``, of the same shape; further outputs are
    what each node with weights multiplies (``layers.{index}.qkv.input`` …, [1, sequence, in])
    and what is cached (``present.{index}.key`` / ``.value`` [1, kv_heads, sequence, head_dim]).

    Args:
        architecture: What to build; sequences are at most its ``context``.
        weights: Its weights.
        index: Which layer.
        plan: Formats of the weights.
    """
    net = Network(architecture, weights, plan)
    hidden = _value("hidden", ir.DataType.FLOAT, (1, "sequence", architecture.hidden))
    stream, presents = _layer(net, index, _Stream(hidden), _whole_sequence(net, hidden))
    assert stream.delta is not None
    output = net.op("Add", [stream.residual, stream.delta], "output")
    outputs = [typed(output, ir.DataType.FLOAT, (1, "sequence", architecture.hidden))]
    return net.model([hidden], [*outputs, *_tapped(net), *presents])


def head(architecture: Architecture, weights: Weights, plan: WeightPlan = FLOAT32) -> ir.Model:
    """Final norm and head alone: ``hidden`` [1, sequence, hidden] -> ``logits``.

    A further output ``head.input`` is what the head multiplies.
    """
    net = Network(architecture, weights, plan)
    hidden = _value("hidden", ir.DataType.FLOAT, (1, "sequence", architecture.hidden))
    logits = _head(net, _Stream(hidden), (1, "sequence", architecture.vocab))
    return net.model([hidden], [logits, *_tapped(net)])


def _layer(
    net: Network, index: int, stream: _Stream, cache: _Cache, wanted: ir.Value | None = None
) -> tuple[_Stream, list[ir.Value]]:
    """One layer; behind its attention only the ``wanted`` positions go on, if given.

    Returns:
        The residual stream behind it, and the caches it has written.
    """
    name, model = f"layers.{index}", net.architecture
    normed, residual = net.add_norm(f"{name}.attention_norm", stream.residual, stream.delta)
    context, presents = _attention(net, index, normed, cache)
    if wanted is not None:
        context = net.op("Gather", [context, wanted], f"{name}.attention.wanted", axis=1)
        residual = net.op("Gather", [residual, wanted], f"{name}.residual.wanted", axis=1)
    delta = net.linear(f"{name}.o", context)
    if model.post_norms:
        delta = net.norm(f"{name}.post_attention_norm", delta)
    normed, residual = net.add_norm(f"{name}.mlp_norm", residual, delta)
    delta = _mlp(net, name, normed)
    if model.post_norms:
        delta = net.norm(f"{name}.post_mlp_norm", delta)
    return _Stream(residual, delta), presents


def _attention(
    net: Network, index: int, normed: ir.Value, cache: _Cache
) -> tuple[ir.Value, list[ir.Value]]:
    name, model = f"layers.{index}", net.architecture
    projected = net.linear(f"{name}.qkv", normed)
    heads: list[ir.Value | None] = [projected, None, None]
    if model.qk_norm:
        heads = _normed_heads(net, name, projected)
    attributes: dict[str, Attribute] = {"num_heads": model.heads, "kv_num_heads": model.kv_heads}
    cos_sin: tuple[ir.Value | None, ir.Value | None] = (None, None)
    if index not in model.unrotated_layers:
        cos_sin = _rotary_tables(net)
        attributes |= {"do_rotary": 1, "rotary_interleaved": int(model.rope.interleaved)}
    window = None if index in model.unwindowed_layers else model.sliding_window
    if window is not None and window < model.context:
        attributes["local_window_size"] = window
    inputs = [*heads, cache.key, cache.value, cache.seqlens_k, cache.total, *cos_sin]
    if cache.scales is not None:
        attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL"}
        attributes["kv_cache_bit_width"] = 8
        inputs += [None, None, None, *_scales(net, name, cache.scales)]
    context, *presents = net.ops(
        "GroupQueryAttention",
        inputs,
        f"{name}.attention",
        (f"{name}.attention", f"present.{index}.key", f"present.{index}.value"),
        domain=CONTRIB,
        **attributes,
    )
    dtype = net.dtype if cache.scales is None else ir.DataType.INT8
    return context, [typed(present, dtype, cache.shape) for present in presents]


def _rotary_tables(net: Network) -> tuple[ir.Value, ir.Value]:
    """Cos and sin of every position, which all layers share."""
    model = net.architecture
    shape = (model.context, len(model.rope.inverse_frequencies))

    def table(function: Callable[[Angles], Angles]) -> Callable[[], Angles]:
        return lambda: (
            function(rope.angles(model.rope, model.context)) * model.rope.attention_factor
        )

    return (
        net.initializer("rope.cos", lazy(table(np.cos), net.float_type, shape)),
        net.initializer("rope.sin", lazy(table(np.sin), net.float_type, shape)),
    )


def _normed_heads(net: Network, name: str, projected: ir.Value) -> list[ir.Value | None]:
    """Queries, keys and values apart, with every query and key head normalized."""
    model = net.architecture
    widths = [count * model.head_dim for count in (model.heads, model.kv_heads, model.kv_heads)]
    found = list(net.split(projected, widths, [f"{name}.{part}" for part in "qkv"]))
    per_head = net.constant("shape.heads", np.array([0, 0, -1, model.head_dim], np.int64))
    together = net.constant("shape.together", np.array([0, 0, -1], np.int64))
    for place, part in enumerate("qk"):
        heads = net.op("Reshape", [found[place], per_head], f"{name}.{part}.heads")
        normed = net.norm(f"{name}.{part}_norm", heads)
        found[place] = net.op("Reshape", [normed, together], f"{name}.{part}.normed")
    return [*found]


def _scales(net: Network, name: str, scales: KvScales) -> list[ir.Value]:
    """Scales in the shape that broadcasts over [batch, heads, tokens, head_dim]."""
    return [
        net.constant(f"{name}.{part}_scale", array.astype(np.float32)[None, :, None, :])
        for part, array in (("k", scales.key), ("v", scales.value))
    ]


def _mlp(net: Network, name: str, normed: ir.Value) -> ir.Value:
    width = net.architecture.intermediate
    both = net.linear(f"{name}.gate_up", normed)
    gate, up = net.split(both, [width, width], [f"{name}.gate", f"{name}.up"])
    active = net.activate(gate, f"{name}.activated")
    return net.linear(f"{name}.down", net.op("Mul", [active, up], f"{name}.gated"))


def _head(net: Network, stream: _Stream, shape: Shape) -> ir.Value:
    normed, _ = net.add_norm("norm", stream.residual, stream.delta)
    logits = net.linear("head", normed)
    if net.dtype != ir.DataType.FLOAT:
        logits = net.cast(logits, ir.DataType.FLOAT, "head.float32")
    logits.name = "logits"
    return typed(logits, ir.DataType.FLOAT, shape)


def _whole_sequence(net: Network, hidden: ir.Value) -> _Cache:
    """The lengths of a call that brings one whole sequence."""
    model = net.architecture
    sequence = net.op("Shape", [hidden], "length", start=1, end=2)
    length = net.cast(sequence, ir.DataType.INT32, "length.int32")
    one = net.constant("int32.one", np.array([1], np.int32))
    scalar = net.op("Squeeze", [length], "total_sequence_length")
    shape = (1, model.kv_heads, "sequence", model.head_dim)
    return _Cache(shape, net.op("Sub", [length, one], "seqlens_k"), scalar)


def _tapped(net: Network) -> list[ir.Value]:
    """What the nodes with weights multiply, as outputs of a graph that stands alone."""
    return [
        typed(
            net.op("Identity", [data], f"{node}.input"),
            ir.DataType.FLOAT,
            (1, "sequence", net.width(node)),
        )
        for node, data in net.taps.items()
    ]


def _value(name: str, dtype: ir.DataType, shape: Shape) -> ir.Value:
    return typed(ir.Value(name=name), dtype, shape)
