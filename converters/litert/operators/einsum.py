"""``Einsum`` of one or two operands, as one matrix product between reorderings."""

from __future__ import annotations

from converters.litert.call import Call, lowers
from converters.litert.operators.dense import fully_connected, product
from converters.litert.tensors import Shape, Size, Tensor, product_of, size_of
from converters.litert.weights import Layer


@lowers("Einsum")
def _einsum(call: Call) -> None:
    equation = call.node.attributes.get_string("equation", "").replace(" ", "")
    terms, _, result = equation.partition("->")
    operands = terms.split(",")
    plain = "." not in equation and all(len(set(term)) == len(term) for term in operands)
    if "->" not in equation or len(operands) > 2 or not plain:
        raise call.unsupported(f"its form {equation!r} is not one matrix product")
    if len(operands) == 1:
        _reordered(call, operands[0], result)
    else:
        _product(call, operands[0], operands[1], result)


def _reordered(call: Call, term: str, result: str) -> None:
    if set(term) != set(result):
        raise call.unsupported("it sums over an axis of its one operand")
    call.give(call.tensor(0, tuple(term.index(axis) for axis in result)))


def _product(call: Call, left: str, right: str, result: str) -> None:
    batch = [axis for axis in result if axis in left and axis in right]
    rows = [axis for axis in result if axis in left and axis not in right]
    columns = [axis for axis in result if axis in right and axis not in left]
    inner = [axis for axis in left if axis in right and axis not in result]
    if set(left) | set(right) != {*batch, *rows, *columns, *inner}:
        raise call.unsupported("it sums over an axis of one operand")
    sizes = {
        **dict(zip(left, call.shape(0), strict=True)),
        **dict(zip(right, call.shape(1), strict=True)),
    }
    layout = [*batch, *rows, *columns]
    shape = tuple(sizes[axis] for axis in layout)
    first = _grouped(call, 0, left, batch, rows, inner, sizes)
    if not batch and call.held(1).is_constant:
        array = call.constant(1)
        assert array is not None, "checked"
        order = tuple(right.index(axis) for axis in (*columns, *inner))
        count = size_of(tuple(sizes[axis] for axis in columns)) or 0
        weight = array.transpose(order).reshape(count, -1)
        tensor = fully_connected(call, first, Layer(weight, None, count, 0), None)
    else:
        second = _grouped(call, 1, right, batch, inner, columns, sizes)
        tensor = product(call, first, second)
    if len(rows) != 1 or len(columns) != 1:
        tensor = call.values.reshape(tensor, _resizable(call, shape))
    # The tensor's axes stand in the order of ``layout``; the value's in that of ``result``.
    call.give(tensor, tuple(result.index(axis) for axis in layout))


def _grouped(
    call: Call,
    index: int,
    term: str,
    batch: list[str],
    rows: list[str],
    columns: list[str],
    sizes: dict[str, Size],
) -> Tensor:
    """An operand as [batch, rows, columns], several axes of a kind as one."""
    tensor = call.tensor(index, tuple(term.index(axis) for axis in (*batch, *rows, *columns)))
    if len(rows) == len(columns) == 1:
        return tensor
    groups = [(axis,) for axis in batch] + [tuple(rows), tuple(columns)]
    shape = tuple(product_of(tuple(sizes[axis] for axis in group)) for group in groups)
    return call.values.reshape(tensor, _resizable(call, shape))


def _resizable(call: Call, shape: Shape) -> Shape:
    if shape.count(None) > 1:
        raise call.unsupported("several of its axes have sizes known only at run time")
    return shape
