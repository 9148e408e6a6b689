"""Recurrent layers over a whole sequence, each beginning anew with every call."""

from __future__ import annotations

import numpy as np

from converters.litert_import.call import Call, operator
from converters.litert_import.file import Array

# Gates in ONNX's order (input, output, forget, cell), as places in LiteRT's (i, f, c, o).
GATES = (0, 3, 1, 2)
PEEPHOLES, PROJECTION, NORMALIZATION = range(9, 12), range(16, 18), range(20, 24)


@operator("UNIDIRECTIONAL_SEQUENCE_LSTM")
def lstm(call: Call) -> None:
    """An LSTM of the plain kind: no peepholes, projection, or normalized gates."""
    for positions, what in (
        (PEEPHOLES, "peepholes"), (PROJECTION, "a projection"), (NORMALIZATION, "normalized gates"),
    ):  # fmt: skip
        if any(call.has(position) for position in positions):
            raise call.refuse(f"it has {what}")
    if not all(call.has(position) for position in range(1, 9)):
        raise call.refuse("its input and forget gates are coupled")
    if call.option("fusedActivationFunction", 0) != 4 or call.option("cellClip", 0.0):
        raise call.refuse("its activation is not tanh, or its cell is clipped")
    weights, recurrent, biases = (_gates(call, start) for start in (1, 5, 12))
    value = call.get(0)
    if not call.option("timeMajor", False):
        value = call.emit("Transpose", [value], perm=[1, 0, 2])
    bias = np.concatenate([biases.reshape(-1), np.zeros_like(biases).reshape(-1)])
    value = call.emit(
        "LSTM",
        [value, *(call.values.array(a[None], "float32") for a in (weights, recurrent, bias))],
        hidden_size=recurrent.shape[-1],
    )
    value = call.emit("Squeeze", [value, call.values.array([1], "int64")])
    if not call.option("timeMajor", False):
        value = call.emit("Transpose", [value], perm=[1, 0, 2])
    call.values.set(call.node.outputs[0], value)


def _gates(call: Call, start: int) -> Array:
    """Weights or biases of all gates, one below the other."""
    found = np.concatenate([call.constant(start + gate) for gate in GATES])
    return found.astype(np.float32)
