"""Fourier transforms of a fixed length become layers.

LiteRT, TensorRT and most accelerators have no ``STFT`` and no ``DFT``. Both are linear:
a short-time transform is a convolution whose filters are the windowed sines and cosines,
and whose stride is the step; a transform along an axis is a product with their matrix.
Spectra of speech have a few hundred bins, where the direct product costs about what the
operators cost in ONNX Runtime.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.passes.base import GraphPass
from converters.passes.graph_tools import Editor, constant, is_op, scalar

# Larger matrices are no layer of a small device: 4 Mi elements are 16 MiB.
MAX_ELEMENTS = 1 << 22
# Since then axes of Unsqueeze are an input.
OPSET = 13

Array = NDArray[Any]


class FourierToLayers(GraphPass):
    """Replaces ``STFT`` by ``Conv`` and ``DFT`` by ``MatMul``."""

    name = "fourier-to-layers"

    def rewrite(self, graph: ir.Graph, model: ir.Model) -> int:
        """Rewrites one graph."""
        if model.opset_imports.get("", 0) < OPSET:
            return 0
        editor = Editor(graph, model)
        changes = 0
        for node in graph:
            if is_op(node, "STFT"):
                changes += _short_time(node, editor)
            elif is_op(node, "DFT"):
                changes += _along_axis(node, editor)
        if changes:
            editor.prune()
        return changes


def _short_time(node: ir.Node, editor: Editor) -> bool:
    signal, hop, window, length = (*node.inputs, None, None)[:4]
    if signal is None or signal.shape is None or signal.dtype is None:
        return False
    given = constant(window)
    step = scalar(hop)
    if (window is not None and given is None) or step is None:
        return False
    size = scalar(length) if length is not None else None if given is None else float(given.size)
    if size is None or (given is not None and given.size != size):
        return False
    parts = 1 if len(signal.shape) == 2 else signal.shape[2]
    if not isinstance(parts, int):
        return False
    one_sided = bool(node.attributes.get_int("onesided", 1))
    basis = _basis(int(size), int(size), parts, one_sided=one_sided)
    if basis.size > MAX_ELEMENTS:
        return False
    if given is not None:
        basis = basis * given.astype(np.float64)[:, None, None, None]
    _convolve(node, editor, signal, basis, int(step))
    return True


def _convolve(node: ir.Node, editor: Editor, signal: ir.Value, basis: Array, step: int) -> None:
    """``basis`` [frame, parts, bins, 2] slid over the signal."""
    assert signal.shape is not None
    assert signal.dtype is not None
    size, parts, bins, _ = basis.shape
    name = node.name or "stft"
    if len(signal.shape) == 2:
        axis = editor.initializer(f"{name}_axis", np.array([1]))
        rows = editor.node("Unsqueeze", [signal, axis], before=node, name=f"{name}_rows")
    else:
        rows = _transposed(node, editor, signal, f"{name}_rows")
    filters = basis.transpose(2, 3, 1, 0).reshape(bins * 2, parts, size)
    weight = editor.initializer(f"{name}_filters", filters.astype(signal.dtype.numpy()))
    found = editor.node(
        "Conv", [rows, weight], before=node, name=f"{name}_frames",
        strides=[step], kernel_shape=[size],
    )  # fmt: skip
    frames = _transposed(node, editor, found, f"{name}_bins")
    shape = editor.initializer(f"{name}_shape", np.array([0, 0, bins, 2]))
    result = editor.node("Reshape", [frames, shape], before=node, name=f"{name}_spectrum")
    editor.redirect(node.outputs[0], result)


def _transposed(node: ir.Node, editor: Editor, value: ir.Value, name: str) -> ir.Value:
    return editor.node("Transpose", [value], before=node, name=name, perm=[0, 2, 1])


def _along_axis(node: ir.Node, editor: Editor) -> bool:
    signal, length = (*node.inputs, None)[:2]
    if signal is None or signal.shape is None or signal.dtype is None:
        return False
    rank, axis = len(signal.shape), _axis(node, editor)
    if axis is None or axis % rank != rank - 2:
        return False
    given, parts = signal.shape[-2], signal.shape[-1]
    size = float(given) if length is None and isinstance(given, int) else scalar(length)
    if not isinstance(given, int) or not isinstance(parts, int) or size is None:
        return False
    one_sided, inverse = (bool(node.attributes.get_int(key, 0)) for key in ("onesided", "inverse"))
    basis = _basis(given, int(size), parts, one_sided=one_sided, inverse=inverse)
    if basis.size > MAX_ELEMENTS or (one_sided and inverse):
        return False
    bins = basis.shape[2]
    name = node.name or "dft"
    leading = [0] * (rank - 2)
    flat = editor.initializer(f"{name}_flat", np.array([*leading, given * parts]))
    rows = editor.node("Reshape", [signal, flat], before=node, name=f"{name}_rows")
    matrix = basis.reshape(given * parts, bins * 2).astype(signal.dtype.numpy())
    weight = editor.initializer(f"{name}_matrix", matrix)
    found = editor.node("MatMul", [rows, weight], before=node, name=f"{name}_bins")
    shape = editor.initializer(f"{name}_shape", np.array([*leading, bins, 2]))
    result = editor.node("Reshape", [found, shape], before=node, name=f"{name}_spectrum")
    editor.redirect(node.outputs[0], result)
    return True


def _axis(node: ir.Node, editor: Editor) -> int | None:
    """The axis transformed: an attribute before opset 20, an input since."""
    if editor.model.opset_imports[""] < 20:
        return node.attributes.get_int("axis", 1)
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return -2
    found = scalar(node.inputs[2])
    return None if found is None else int(found)


def _basis(
    given: int, size: int, parts: int, *, one_sided: bool, inverse: bool = False
) -> NDArray[np.float64]:
    """What each part of each element adds to each bin: ``[given, parts, bins, 2]``.

    Elements past ``size`` add nothing; missing ones count as zero.
    """
    bins = size // 2 + 1 if one_sided else size
    # The remainder first: angles stay exact however long the transform is.
    turns = np.outer(np.arange(given), np.arange(bins)) % size
    angle = 2 * np.pi / size * turns * (1 if inverse else -1)
    cos, sin = np.cos(angle), np.sin(angle)
    basis = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)][:parts], 1)
    basis[size:] = 0
    return basis / size if inverse else basis
