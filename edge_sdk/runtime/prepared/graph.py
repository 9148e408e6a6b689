"""The view of an ONNX graph that preparing needs: packable nodes and external tensors. Pure.

Field numbers are those of ``onnx.proto3``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace

from edge_sdk.runtime.prepared.wire import field, fields, integer, integers, message, text

OP = "MatMulNBits"
"""The operator whose weights are packed: com.microsoft's block-quantized product."""
_EXTERNAL = 1  # TensorProto.DataLocation


@dataclass(frozen=True)
class Tensor:
    """An initializer whose bytes are in a file.

    Attributes:
        name: Its name in the graph.
        data_type: ONNX's number of the element type.
        dims: Its shape.
        location: The file, relative to the folder that the engine is given.
        offset: First byte in the file.
        length: Number of bytes.
        packed: ``key|offset;length;checksum``, onnxruntime's note of packed bytes in the same
            file: what packing the tensor's own bytes is expected to hash to, and what to use then.
    """

    name: str
    data_type: int
    dims: tuple[int, ...]
    location: str
    offset: int
    length: int
    packed: str = ""


@dataclass(frozen=True)
class Packable:
    """A node whose weight an engine packs.

    Attributes:
        name: The node's name, or its output's.
        node: The encoded ``NodeProto``.
        inputs: Names of its inputs.
        output: Name of its output.
        width: Size of the product's shared axis (attribute ``K``).
        tensors: Input position -> its tensor: weight (1), scales (2), zero points (3).
        rest: Encoded initializers of its other inputs (a bias).
    """

    name: str
    node: bytes
    inputs: tuple[str, ...]
    output: str
    width: int
    tensors: Mapping[int, Tensor]
    rest: tuple[bytes, ...]

    @property
    def weight(self) -> Tensor:
        """The quantized weight."""
        return self.tensors[1]

    @property
    def source(self) -> str:
        """Hex digest of what the packed bytes are a function of: attributes and source bytes.

        A tensor's ``location`` is its blob's digest, so this reads no weight.
        """
        digest = hashlib.sha256()
        for number, _, raw in fields(memoryview(self.node)):
            if number in (4, 5, 7):  # op_type, attribute, domain
                digest.update(raw)
        for position, tensor in sorted(self.tensors.items()):
            digest.update(repr((position, replace(tensor, name=""))).encode())
        return digest.hexdigest()

    def alone(self, header: bytes, tensors: Mapping[int, Tensor]) -> bytes:
        """A model of this node alone, from input ``A`` to its output.

        Args:
            header: The fields of the model that say IR version and opsets.
            tensors: Weight, scales and zero points.
        """
        found = {at: replace(tensor, name=self.inputs[at]) for at, tensor in tensors.items()}
        element = found[2].data_type  # activations have the scales' type
        body = (
            field(1, self.node),
            field(2, "prepare"),
            *(field(5, encode(tensor)) for tensor in found.values()),
            *(field(5, raw) for raw in self.rest),
            field(11, _value(self.inputs[0], element, ("rows", self.width))),
            field(12, _value(self.output, element, None)),
        )
        return header + field(7, b"".join(body))


@dataclass(frozen=True)
class Model:
    """An ONNX model, decoded as far as preparing needs it.

    Attributes:
        header: Encoded fields other than the graph: IR version, opsets.
        packable: Nodes whose weights can be packed.
    """

    header: bytes
    packable: tuple[Packable, ...]
    _graph: bytes
    _tensors: Mapping[str, Tensor]
    _uses: Mapping[str, int]

    def unread(self, outputs: Container[str]) -> set[str]:
        """Locations that nothing reads any more once these nodes have other tensors."""
        nodes = [node for node in self.packable if node.output in outputs]
        freed = Counter(tensor.name for node in nodes for tensor in node.tensors.values())
        needed = {
            tensor.location
            for name, tensor in self._tensors.items()
            if name not in freed or self._uses[name] > freed[name]
        }
        return {self._tensors[name].location for name in freed} - needed

    def rewritten(self, packed: Mapping[str, Mapping[int, Tensor]]) -> bytes:
        """The model with packed weights in the place of the raw ones.

        Raw initializers stay (another node may read them); the engine drops what
        nothing refers to before it opens any file.

        Args:
            packed: :attr:`Packable.output` -> tensors to use from now on, by input position.
        """
        out = []
        for number, value, raw in fields(memoryview(self._graph)):
            if number == 1:
                out.append(_with_inputs(message(value), packed))
            elif number == 5 and (tensor := decode(message(value))):
                out.append(field(5, encode(self._tensors[tensor.name])))
            else:
                out.append(bytes(raw))
        new = {t.name: t for tensors in packed.values() for t in tensors.values()}
        out += (field(5, encode(tensor)) for tensor in new.values())
        return self.header + field(7, b"".join(out))


def read_model(data: bytes, folder: str) -> Model:
    """Decodes a model.

    Args:
        data: The encoded ``ModelProto``.
        folder: Where its external tensors are, relative to the folder that the engine will be
            given; their locations include it from now on.

    Raises:
        BundleError: The bytes are no ONNX model.
    """
    header, graph = [], b""
    for number, value, raw in fields(memoryview(data)):
        if number == 7:
            graph = bytes(message(value))
        else:
            header.append(bytes(raw))
    tensors: dict[str, Tensor] = {}
    encoded: dict[str, bytes] = {}
    nodes = []
    for number, value, _ in fields(memoryview(graph)):
        if number == 5:
            tensor = decode(message(value))
            if tensor:
                moved = replace(tensor, location=f"{folder}/{tensor.location}")
                tensors[tensor.name] = moved
                encoded[tensor.name] = encode(moved)
            else:
                encoded[_name(message(value))] = bytes(message(value))
        elif number == 1:
            nodes.append(message(value))
    found = (_packable(node, tensors, encoded) for node in nodes)
    uses = Counter(text(v) for node in nodes for number, v, _ in fields(node) if number == 1)
    return Model(b"".join(header), tuple(node for node in found if node), graph, tensors, uses)


def decode(tensor: memoryview) -> Tensor | None:
    """An encoded ``TensorProto``, or ``None`` where its bytes are not in a file."""
    name, data_type, place = "", 0, 0
    dims: list[int] = []
    external: dict[str, str] = {}
    for number, value, _ in fields(tensor):
        if number == 1:
            dims += integers(value)
        elif number == 2:
            data_type = integer(value)
        elif number == 8:
            name = text(value)
        elif number == 13:
            entry = {n: text(v) for n, v, _ in fields(message(value))}
            external[entry.get(1, "")] = entry.get(2, "")
        elif number == 14:
            place = integer(value)
    if place != _EXTERNAL or "length" not in external:
        return None
    return Tensor(
        name=name,
        data_type=data_type,
        dims=tuple(dims),
        location=external.get("location", ""),
        offset=int(external.get("offset", "0")),
        length=int(external["length"]),
        packed=external.get("prepacked_0", ""),
    )


def encode(tensor: Tensor) -> bytes:
    """A ``TensorProto`` of an external tensor."""
    entries = {
        "location": tensor.location,
        "offset": str(tensor.offset),
        "length": str(tensor.length),
    }
    if tensor.packed:
        entries["prepacked_0"] = tensor.packed
    return b"".join(
        (
            *(field(1, size) for size in tensor.dims),
            field(2, tensor.data_type),
            field(8, tensor.name),
            *(field(13, field(1, key) + field(2, value)) for key, value in entries.items()),
            field(14, _EXTERNAL),
        )
    )


def _packable(
    node: memoryview, tensors: Mapping[str, Tensor], encoded: Mapping[str, bytes]
) -> Packable | None:
    inputs, output, name, op, width = [], "", "", "", 0
    for number, value, _ in fields(node):
        if number == 1:
            inputs.append(text(value))
        elif number == 2:
            output = output or text(value)
        elif number == 3:
            name = text(value)
        elif number == 4:
            op = text(value)
        elif number == 5:
            width = width or _width(message(value))
    if op != OP or not all(given in tensors for given in inputs[1:4] if given):
        return None
    if any(given and given not in encoded for given in inputs[4:]):
        return None  # computed, so the node cannot run alone
    return Packable(
        name=name or output,
        node=bytes(node),
        inputs=tuple(inputs),
        output=output,
        width=width,
        tensors={at: tensors[inputs[at]] for at in range(1, min(4, len(inputs))) if inputs[at]},
        rest=tuple(encoded[given] for given in inputs[4:] if given),
    )


def _width(attribute: memoryview) -> int:
    """The value of attribute ``K``; zero of any other."""
    found = {number: value for number, value, _ in fields(attribute)}
    return integer(found.get(3, 0)) if bytes(message(found.get(1, memoryview(b"")))) == b"K" else 0


def _name(tensor: memoryview) -> str:
    return next((text(value) for number, value, _ in fields(tensor) if number == 8), "")


def _with_inputs(node: memoryview, packed: Mapping[str, Mapping[int, Tensor]]) -> bytes:
    """A node field whose packed inputs have their new names."""
    outputs = (text(value) for number, value, _ in fields(node) if number == 2)
    tensors = packed.get(next(outputs, ""), {})
    out, position = [], 0
    for number, value, raw in fields(node):
        if number == 1:
            name = tensors[position].name if position in tensors else text(value)
            out.append(field(1, name))
            position += 1
        else:
            out.append(bytes(raw))
    return field(1, b"".join(out))


def _value(name: str, element: int, shape: Sequence[int | str] | None) -> bytes:
    """A ``ValueInfoProto``."""
    kind = field(1, element)
    if shape is not None:
        dims = (field(1, field(1 if isinstance(size, int) else 2, size)) for size in shape)
        kind += field(2, b"".join(dims))
    return field(1, name) + field(2, field(1, kind))
