"""Canonical names: which weights an architecture has, and which of them a node fuses."""

from __future__ import annotations

from converters.decoder.architecture import Architecture

_FUSED = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}


def parts(node: str) -> tuple[str, ...]:
    """Canonical names of the matrices that a node's weight stacks along the output axis.

    Args:
        node: ``layers.0.qkv``, ``layers.0.o`` … or ``head``.
    """
    prefix, _, last = node.rpartition(".")
    return tuple(f"{prefix}.{part}" for part in _FUSED.get(last, ())) or (node,)


def layer_nodes(index: int) -> tuple[str, ...]:
    """The nodes with weights of one layer, in the order they compute."""
    return tuple(f"layers.{index}.{node}" for node in ("qkv", "o", "gate_up", "down"))


def nodes(architecture: Architecture) -> tuple[str, ...]:
    """Every node that a :class:`~converters.decoder.weights.WeightPlan` gives a format to."""
    layers = (layer_nodes(index) for index in range(architecture.layers))
    return (*(node for layer in layers for node in layer), "head")


def shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Canonical name -> shape of every weight that an architecture has."""
    model = architecture
    found: dict[str, tuple[int, ...]] = {"embed": (model.vocab, model.hidden)}
    for index in range(model.layers):
        layer = _layer_shapes(model)
        found |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
    found["norm"] = (model.hidden,)
    if not model.tied:
        found["head"] = (model.vocab, model.hidden)
    return found


def _layer_shapes(model: Architecture) -> dict[str, tuple[int, ...]]:
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "attention_norm": (model.hidden,),
        "q": (queries, model.hidden),
        "k": (keys, model.hidden),
        "v": (keys, model.hidden),
        "o": (model.hidden, queries),
        "mlp_norm": (model.hidden,),
        "gate": (model.intermediate, model.hidden),
        "up": (model.intermediate, model.hidden),
        "down": (model.hidden, model.intermediate),
    }
    biased = {
        "q": model.qkv_bias, "k": model.qkv_bias, "v": model.qkv_bias, "o": model.output_bias,
        "gate": model.mlp_bias, "up": model.mlp_bias, "down": model.mlp_bias,
    }  # fmt: skip
    shapes |= {f"{name}.bias": shapes[name][:1] for name, has in biased.items() if has}
    if model.qk_norm:
        shapes |= {"q_norm": (model.head_dim,), "k_norm": (model.head_dim,)}
    if model.post_norms:
        shapes |= {"post_attention_norm": (model.hidden,), "post_mlp_norm": (model.hidden,)}
    return shapes
