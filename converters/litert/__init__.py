"""ONNX graphs for LiteRT: our own lowering to the bytes of a ``.tflite`` file.

The way through::

    lowering.lower      inputs, nodes, outputs                  -> bytes
    walk.lower_nodes    the nodes of one graph, in order
    symbolic            nodes that only compute sizes: nothing is left of them
    call.Call           one node and its operands, handed to a lowering
    operators/          the lowerings by theme; each file registers its own
    values.Values       ONNX value -> tensors, in the layouts and types asked for
    subgraph.Subgraph   tensors and operators in order
    flatbuffer          the file

No third-party converter takes part, so the same graph gives the same bytes, and
scales that our passes chose are the scales in the file.
"""

from __future__ import annotations

from converters.litert.call import Weights
from converters.litert.lowering import lower

__all__ = ["Weights", "lower"]
