"""Predicts the peak memory of a process that loads a decoder and answers. Pure.

ONNX Runtime's CPU provider, graph opened by path, prompts taken in chunks. What
it does with the weights was measured on graphs of 0.1 to 360 million parameters:

* each matrix is copied to the heap in packed form, and the mapping of what it was
  made of is dropped, except for its scales, which stay mapped beside their copies;
* rows of the embedding table are read where they are mapped, and bring their
  neighbourhood in, so that sooner or later all of it is resident;
* activations of one chunk are alive, and the heap grows to about three times as
  much; attention needs nothing that grows with the context.

Weights prepared on the device (:mod:`edge_sdk.runtime.prepared`) are mapped and not
copied: as many bytes, but shared and evictable.
"""

from __future__ import annotations

from converters.decoder import costs
from converters.decoder.architecture import Architecture
from converters.decoder.weights import WeightPlan
from converters.memory import ENGINE_BYTES, NODE_BYTES
from edge_sdk.bundle.record import MemoryPlan
from edge_sdk.runtime.generation.decoder import CHUNK

# Beside Python, the engine and an empty session: tokenizers and chat templates; then what
# each entry of a tokenizer's vocabulary adds: between mapped tables (30) and the library (420).
TEXT_BYTES = 9 << 20
VOCABULARY_BYTES = 300
# What the heap holds beyond its useful bytes once tokens have been computed.
HEAP_BYTES = 6 << 20
HEAP_FACTOR = 3


def memory_plan(
    architecture: Architecture, plan: WeightPlan, *, half: bool = False, chunk: int = CHUNK
) -> MemoryPlan:
    """Peak memory of a process that loads a decoder plainly and answers, without its KV cache.

    Args:
        architecture: The decoder.
        plan: Formats of its weights.
        half: Activations, KV cache and float weights are float16, nothing is widened.
        chunk: Tokens of a prompt that are computed at a time.
    """
    matrices = costs.matrices(architecture, plan)
    scales = sum(matrix.scale_bytes for matrix in matrices)
    nodes = costs.node_count(architecture)
    # Gate and up together, then apart, beside the residual and what is added to it.
    live = costs.FLOAT_BYTES * (4 * architecture.intermediate + 2 * architecture.hidden)
    return MemoryPlan(
        weights_mapped=costs.table(architecture, plan).nbytes
        + scales
        + costs.other_bytes(architecture),
        weights_private=sum(m.nbytes if half else m.packed_bytes for m in matrices),
        activations=HEAP_BYTES + HEAP_FACTOR * chunk * live,
        engine=ENGINE_BYTES + NODE_BYTES * nodes + text_bytes(architecture),
        kv_per_token=kv_bytes(architecture) // (2 if half else 1),
        reference_shapes={"batch": 1, "sequence": chunk},
    )


def text_bytes(architecture: Architecture) -> int:
    """What turning text into tokens and back takes, in a process that does so."""
    return TEXT_BYTES + VOCABULARY_BYTES * architecture.vocab


def kv_bytes(architecture: Architecture) -> int:
    """KV cache per token in float32: keys and values of all layers."""
    per_layer = 2 * architecture.kv_heads * architecture.head_dim
    return costs.FLOAT_BYTES * architecture.layers * per_layer
