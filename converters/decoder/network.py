"""The parts a decoder graph is put together from: nodes, initializers, dense layers, norms."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from converters.decoder.architecture import Architecture
from converters.decoder.names import parts
from converters.decoder.tensors import FloatType, Tensors
from converters.decoder.weights import WeightFormat, WeightPlan, Weights

CONTRIB = "com.microsoft"
OPSETS = {"": 21, CONTRIB: 1}
# ONNX IR version of opset 21; older runtimes refuse newer ones.
IR_VERSION = 10
# MatMulNBits may quantize activations to int8 per block; 0 would compute in fp32.
INT8_ACTIVATIONS = 4

Attribute = int | float | str | Sequence[int]
Shape = Sequence[int | str]


class Network:
    """Collects the nodes and initializers of one graph.

    Args:
        architecture: What is built.
        weights: Its weights; read when the graph is written.
        plan: Formats of the nodes' weights.
        float_type: Type of activations and of weights that are not quantized.
        adapted: Nodes that a low-rank adapter is added to.

    Attributes:
        taps: Node with weights -> what it multiplies.
        adapters: Graph inputs for the adapters of ``adapted`` nodes.
    """

    def __init__(
        self,
        architecture: Architecture,
        weights: Weights,
        plan: WeightPlan,
        float_type: FloatType = "float32",
        adapted: Collection[str] = (),
    ) -> None:
        self.architecture = architecture
        self.plan = plan
        self.float_type = float_type
        self.dtype = ir.DataType.from_numpy(np.dtype(float_type))
        self.tensors = Tensors(weights, float_type)
        self._names = weights.names()
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}
        self._wide: dict[str, ir.Value] = {}
        self._adapted = frozenset(adapted)
        self.taps: dict[str, ir.Value] = {}
        self.adapters: list[ir.Value] = []

    def model(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
        """The model of everything collected."""
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self._nodes,
            initializers=tuple(self._initializers.values()),
            opset_imports=OPSETS,
            name=self.architecture.family,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="edge-sdk")

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        domain: str = "",
        **attributes: Attribute,
    ) -> ir.Value:
        """A node with one output; node and output share a name."""
        return self.ops(op_type, inputs, name, (name,), domain=domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        outputs: Sequence[str],
        *,
        domain: str = "",
        **attributes: Attribute,
    ) -> Sequence[ir.Value]:
        """A node with several outputs; an empty name is an output that nobody reads."""
        node = ir.node(
            op_type,
            inputs,
            attributes,
            domain=domain,
            name=name,
            outputs=[ir.Value(name=output) for output in outputs],
        )
        self._nodes.append(node)
        return node.outputs

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """An initializer of a known array; one per name."""
        return self.initializer(name, ir.tensor(array))

    def initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """An initializer; one per name, whoever asks for it first."""
        if name not in self._initializers:
            tensor.name = name
            self._initializers[name] = ir.Value(
                name=name,
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(tensor.shape.numpy()),
                const_value=tensor,
            )
        return self._initializers[name]

    def cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        """The value in another element type."""
        return self.op("Cast", [value], name, to=int(dtype))

    def linear(self, node: str, data: ir.Value) -> ir.Value:
        """A dense layer in the format its plan says, with its bias and its adapter."""
        self.taps[node] = data
        product = self._dense(node, data)
        return self._adapt(node, data, product) if node in self._adapted else product

    def _dense(self, node: str, data: ir.Value) -> ir.Value:
        names, wanted = self._matrices(node), self.plan.of(node)
        biased = [f"{name}.bias" for name in names]
        bias = None
        if biased[0] in self._names:
            bias = self.initializer(f"{node}.bias", self.tensors.vector(biased))
        if wanted.bits in (4, 8):
            return self._blocks(node, names, data, bias)
        product = self._product(node, names, data)
        return product if bias is None else self.op("Add", [product, bias], f"{node}.biased")

    def _adapt(self, node: str, data: ir.Value, product: ir.Value) -> ir.Value:
        """Adds ``data @ a @ b`` (LoRA, arXiv:2106.09685); its rank is up to the call."""
        rows, width = self.tensors.shape(self._matrices(node))
        down = typed(ir.Value(name=f"lora.{node}.a"), self.dtype, (width, f"rank.{node}"))
        up = typed(ir.Value(name=f"lora.{node}.b"), self.dtype, (f"rank.{node}", rows))
        self.adapters += [down, up]
        narrow = self.op("MatMul", [data, down], f"{node}.lora.narrow")
        delta = self.op("MatMul", [narrow, up], f"{node}.lora.wide")
        return self.op("Add", [product, delta], f"{node}.adapted")

    def _blocks(
        self, node: str, names: Sequence[str], data: ir.Value, bias: ir.Value | None
    ) -> ir.Value:
        wanted = self.plan.of(node)
        rows, width = self.tensors.shape(names)
        inputs = [data, *self._quantized(node, names, flat=False), None, bias]
        while inputs[-1] is None:
            inputs.pop()
        return self.op(
            "MatMulNBits",
            inputs,
            node,
            domain=CONTRIB,
            K=width,
            N=rows,
            bits=wanted.bits,
            block_size=wanted.block_size,
            accuracy_level=INT8_ACTIVATIONS,
        )

    def _quantized(
        self, node: str, names: Sequence[str], *, flat: bool
    ) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """Codes, scales and zero points as initializers of their own.

        The tied table gives ``embed`` and ``head`` equal bytes in equal order, and thereby
        one blob; codes differ in shape, so they cannot be one initializer.
        """
        codes, scales, zeros = self.tensors.blocks(names, self._format(node), flat=flat)
        return (
            self.initializer(f"{node}.weight", codes),
            self.initializer(f"{node}.scales", scales),
            None if zeros is None else self.initializer(f"{node}.zero_points", zeros),
        )

    def _product(self, node: str, names: Sequence[str], data: ir.Value) -> ir.Value:
        if names == ("embed",):
            # The table lies as the lookup wants it; FusedMatMul reads that without a second copy.
            table = self._table()
            return self.op("FusedMatMul", [data, table], node, domain=CONTRIB, transB=1)
        matrix = self._float(f"{node}.weight", names, self.plan.of(node).bits)
        return self.op("MatMul", [data, matrix], node)

    def _table(self) -> ir.Value:
        return self._float("embed.weight", ("embed",), self._format("embed").bits, transposed=False)

    def _float(
        self, name: str, names: Sequence[str], bits: int, *, transposed: bool = True
    ) -> ir.Value:
        """A matrix in float; half the bytes where 16 bits are wanted, widened once at load."""
        element: FloatType = "float16" if bits == 16 else self.float_type
        made = self.initializer(name, self.tensors.matrix(names, element, transposed=transposed))
        if element == self.float_type:
            return made
        if name not in self._wide:
            self._wide[name] = self.cast(made, self.dtype, f"{name}.wide")
        return self._wide[name]

    def embed(self, ids: ir.Value) -> ir.Value:
        """Rows of the embedding table, in the head's format where both are one table."""
        hidden = self.architecture.hidden
        wanted = self._format("embed")
        if wanted.bits not in (4, 8):
            return self.op("Gather", [self._table(), ids], "embed")
        codes, scales, zeros = self._quantized("embed", ("embed",), flat=True)
        padded = -(-hidden // wanted.block_size) * wanted.block_size
        rows = self.op(
            "GatherBlockQuantized",
            [codes, ids, scales] + ([] if zeros is None else [zeros]),
            "embed" if padded == hidden else "embed.padded",
            domain=CONTRIB,
            bits=wanted.bits,
            block_size=wanted.block_size,
            gather_axis=0,
            quantize_axis=1,
        )
        if padded == hidden:
            return rows
        return self.split(rows, [hidden, padded - hidden], ["embed", "embed.padding"])[0]

    def split(
        self, value: ir.Value, widths: Sequence[int], names: Sequence[str]
    ) -> Sequence[ir.Value]:
        """Cuts the last axis into pieces of these widths."""
        label = ".".join(str(width) for width in widths)
        sizes = self.constant(f"split.{label}", np.array(widths, np.int64))
        return self.ops("Split", [value, sizes], f"{names[0]}.split", names, axis=-1)

    def norm(self, name: str, data: ir.Value) -> ir.Value:
        """RMSNorm over the last axis."""
        return self.op(
            "SimplifiedLayerNormalization",
            [data, self._norm_weight(name)],
            f"{name}.normed",
            axis=-1,
            epsilon=self.architecture.norm_eps,
        )

    def add_norm(
        self, name: str, residual: ir.Value, delta: ir.Value | None
    ) -> tuple[ir.Value, ir.Value]:
        """Adds ``delta`` to the residual stream and normalizes the sum.

        Returns:
            The norm of the sum, and the sum.
        """
        if delta is None:
            return self.norm(name, residual), residual
        normed, _, _, total = self.ops(
            "SkipSimplifiedLayerNormalization",
            [residual, delta, self._norm_weight(name)],
            f"{name}.normed",
            (f"{name}.normed", "", "", f"{name}.residual"),
            domain=CONTRIB,
            epsilon=self.architecture.norm_eps,
        )
        return normed, total

    def activate(self, gate: ir.Value, name: str) -> ir.Value:
        """The activation of the MLP's gate."""
        activation = self.architecture.activation
        if activation == "silu":  # x * sigmoid(1.0 * x) in one kernel
            return self.op("QuickGelu", [gate], name, domain=CONTRIB, alpha=1.0)
        approximate = "tanh" if activation == "gelu_tanh" else "none"
        return self.op("Gelu", [gate], name, approximate=approximate)

    def width(self, node: str) -> int:
        """Input width of a node with weights."""
        return self.tensors.shape(self._matrices(node))[1]

    def _matrices(self, node: str) -> tuple[str, ...]:
        return ("embed",) if node == "head" and self.architecture.tied else parts(node)

    def _format(self, node: str) -> WeightFormat:
        tied = node == "embed" and self.architecture.tied
        return self.plan.of("head" if tied else node)

    def _norm_weight(self, name: str) -> ir.Value:
        return self.initializer(name, self.tensors.vector([name]))


def typed(value: ir.Value, dtype: ir.DataType, shape: Shape) -> ir.Value:
    """The value, with its element type and shape set."""
    value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
    return value
