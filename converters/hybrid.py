"""What a ``.tflite`` file computes in hybrid kernels: int8 weights under float activations.

Its ONNX graph has such weights as float32, so the file itself has to tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from converters.litert_import import read
from converters.litert_import.file import Tensor
from edge_sdk.errors import ConversionError

DENSE = "FULLY_CONNECTED"
LAYERS = (DENSE, "CONV_2D", "DEPTHWISE_CONV_2D")  # whose second operand is a weight


def hybrid_share(path: Path) -> float:
    """Share of the elements of layers' weights that hybrid kernels compute with."""
    sizes = {True: 0, False: 0}
    for _, data, weight in _layers(path):
        if weight.data is not None:
            sizes[_is_hybrid(data, weight)] += weight.data.size
    return sizes[True] / max(sum(sizes.values()), 1)


def check_scales(path: Path) -> None:
    """Refuses a file that a device with one scale per weight computes wrong, without a word.

    LiteRT 2.14 applies one of the scales to all columns (:mod:`converters.passes.scales_apart`).

    Raises:
        ConversionError: A dense layer in a hybrid kernel has a scale per column.
    """
    for op, data, weight in _layers(path):
        scales = weight.quantization.scale.size if weight.quantization else 0
        if op == DENSE and scales > 1 and _is_hybrid(data, weight):
            raise ConversionError(
                "has a scale per column, of which the device's LiteRT applies one to all",
                where=f"weight {weight.name!r}",
                remedy="give the model in float, or with one scale per weight",
            )


def _layers(path: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    file = read(path)
    for node in file.nodes:
        if node.op in LAYERS:
            yield node.op, file.tensors[node.inputs[0]], file.tensors[node.inputs[1]]


def _is_hybrid(data: Tensor, weight: Tensor) -> bool:
    return data.dtype == "float32" and weight.data is not None and weight.dtype == "int8"
