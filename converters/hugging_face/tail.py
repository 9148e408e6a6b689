"""Nodes behind an exported encoder: pooling and dense layers, as sentence-transformers has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# Field of a pooling's configuration -> way of pooling, in the order in which they are joined.
POOLINGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean-sqrt",
    "pooling_mode_weightedmean_tokens": "weighted-mean",
    "pooling_mode_lasttoken": "last",
}
_AXES_AS_INPUT = 18  # opset; ReduceSum's since 13, which all exporters exceed
_LEAST = 1e-9


class Tail:
    """Appends nodes to a model.

    Args:
        model: The model, changed in place.
        value: Its output that the first node reads: ``[batch, sequence, size]``.
    """

    def __init__(self, model: onnx.ModelProto, value: str) -> None:
        self._graph = model.graph
        domains = {each.domain or "ai.onnx": each.version for each in model.opset_import}
        self._opset = domains["ai.onnx"]
        self._value = value
        self._width: int | None = None

    def pool(self, modes: Sequence[str]) -> None:
        """Token vectors to one vector; of several ways, one behind the other."""
        mask = self._node("Cast", "attention_mask", to=TensorProto.FLOAT)
        mask = self._node("Unsqueeze", mask, self._constant(np.array([2])))
        pooled = [_POOL[mode](self, self._value, mask) for mode in modes]
        self._value = pooled[0] if len(pooled) == 1 else self._node("Concat", *pooled, axis=1)

    def dense(
        self, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, activation: str
    ) -> None:
        """A linear layer, ``weight`` of ``[in, out]``, and what follows it."""
        self._value = self._node("MatMul", self._value, self._constant(weight))
        if bias is not None:
            self._value = self._node("Add", self._value, self._constant(bias))
        self._value = ACTIVATIONS[activation](self, self._value)
        self._width = weight.shape[1]

    def normalize(self) -> None:
        """To length 1."""
        length = self._reduce("ReduceL2", self._value, keep=True)
        self._value = self._node("Div", self._value, self._least(length, 1e-12))

    def end(self, name: str) -> None:
        """Makes what there is the model's only output."""
        self._graph.node.append(helper.make_node("Identity", [self._value], [name]))
        del self._graph.output[:]
        shape = ["batch_size", self._width]
        self._graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def _mean(self, value: str, weights: str, root: bool = False) -> str:
        """The sum of weighted vectors over the sum of weights, or over its root."""
        total = self._reduce("ReduceSum", self._node("Mul", value, weights))
        count = self._least(self._reduce("ReduceSum", weights), _LEAST)
        return self._node("Div", total, self._node("Sqrt", count) if root else count)

    def _first(self, value: str, mask: str) -> str:
        return self._node("Gather", value, self._constant(np.array(0)), axis=1)

    def _largest(self, value: str, mask: str) -> str:
        padding = self._node("Equal", mask, self._constant(np.float32(0)))
        found = self._node("Where", padding, self._constant(np.float32(-1e9)), value)
        return self._reduce("ReduceMax", found)

    def _last(self, value: str, mask: str) -> str:
        places = self._places(mask)
        last = self._reduce("ReduceMax", places, keep=True)
        here = self._node("Cast", self._node("Equal", places, last), to=TensorProto.FLOAT)
        return self._reduce("ReduceSum", self._node("Mul", value, here))

    def _places(self, mask: str) -> str:
        """1, 2, 3 … along the sequence, 0 at padding."""
        ones = self._node("Add", self._node("Mul", mask, self._constant(np.float32(0))),
                          self._constant(np.float32(1)))  # fmt: skip
        return self._node("Mul", self._node("CumSum", ones, self._constant(np.array(1))), mask)

    def _least(self, value: str, bound: float) -> str:
        return self._node("Max", value, self._constant(np.float32(bound)))

    def _gelu(self, value: str) -> str:
        root = self._constant(np.float32(np.sqrt(2)))
        erf = self._node("Erf", self._node("Div", value, root))
        half = self._node("Mul", value, self._constant(np.float32(0.5)))
        return self._node("Mul", half, self._node("Add", erf, self._constant(np.float32(1))))

    def _reduce(self, op: str, value: str, *, keep: bool = False) -> str:
        if op == "ReduceSum" or self._opset >= _AXES_AS_INPUT:
            return self._node(op, value, self._constant(np.array([1])), keepdims=int(keep))
        return self._node(op, value, axes=[1], keepdims=int(keep))

    def _constant(self, array: NDArray[Any] | np.generic) -> str:
        name = f"sentence.constant_{len(self._graph.initializer)}"
        tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        self._graph.initializer.append(tensor)
        return name

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"sentence.{op}_{len(self._graph.node)}"
        self._graph.node.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name


_POOL: Mapping[str, Callable[[Tail, str, str], str]] = {
    "cls": Tail._first,
    "max": Tail._largest,
    "mean": Tail._mean,
    "mean-sqrt": lambda tail, value, mask: tail._mean(value, mask, root=True),
    "weighted-mean": lambda tail, value, mask: tail._mean(value, tail._places(mask)),
    "last": Tail._last,
}
# Class of torch.nn -> nodes.
ACTIVATIONS: Mapping[str, Callable[[Tail, str], str]] = {
    "Identity": lambda tail, value: value,
    "Tanh": lambda tail, value: tail._node("Tanh", value),
    "ReLU": lambda tail, value: tail._node("Relu", value),
    "Sigmoid": lambda tail, value: tail._node("Sigmoid", value),
    "SiLU": lambda tail, value: tail._node("Mul", value, tail._node("Sigmoid", value)),
    "GELU": Tail._gelu,
}
