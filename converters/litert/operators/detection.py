"""The operator at the end of detectors: boxes that no better one overlaps."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.litert.arithmetic import Math
from converters.litert.call import Call, lowers
from converters.litert.operators.indexing import gathered
from converters.litert.tensors import INT32, Tensor

# The kernel is called once for each class of each picture.
MAX_CALLS = 1000


@lowers("NonMaxSuppression")
def _non_max_suppression(call: Call) -> None:
    boxes, scores = call.tensor(0), call.tensor(1)
    batches, classes, _ = scores.shape
    if not isinstance(batches, int) or not isinstance(classes, int):
        raise call.unsupported("the number of pictures or classes is known only at run time")
    if batches * classes > MAX_CALLS:
        raise call.unsupported(f"it looks at {batches * classes} classes one by one")
    overlap, lowest = call.number(3, 0.0), call.number(4, float(np.finfo(np.float32).min))
    if overlap is None or lowest is None or not call.has(2):
        raise call.unsupported("its thresholds or its limit are not constant")
    # The kernel drops what overlaps by just the threshold too.
    above = max(float(np.nextafter(np.float32(overlap), np.float32(2))), 1e-30)
    limits = [_most(call, boxes), *(call.number_tensor(number) for number in (above, lowest))]
    rows = []
    for batch in range(batches):
        corners = _corners(call, _one(call, boxes, batch))
        per_class = _one(call, scores, batch)
        for number in range(classes):
            found = _kept(call, [corners, _one(call, per_class, number), *limits])
            rows.append(_row(call, found, batch, number))
    call.give(_joined(call, rows, axis=0) if len(rows) > 1 else rows[0])


def _one(call: Call, tensor: Tensor, index: int) -> Tensor:
    return gathered(call, tensor, np.array(index), 0)


def _most(call: Call, boxes: Tensor) -> Tensor:
    """Room for results: as many as wanted, at most as there are boxes."""
    values = call.values
    wanted = values.reshape(values.cast(call.tensor(2), INT32), ())
    there = values.reshape(values.sizes((boxes.shape[1],)), ())
    return call.emit("MINIMUM", [wanted, there], ())


def _corners(call: Call, boxes: Tensor) -> Tensor:
    """Boxes ``[n, 4]`` with the lower corner first."""
    m = Math(call)
    first, second = (gathered(call, boxes, np.array(pair), 1) for pair in ([0, 1], [2, 3]))
    if call.node.attributes.get_int("center_point_box", 0):
        half = m.mul(second, 0.5)
        return _joined(call, [m.sub(first, half), m.add(first, half)], axis=1)
    ends = [call.emit(op, [first, second]) for op in ("MINIMUM", "MAXIMUM")]
    return _joined(call, ends, axis=1)


def _kept(call: Call, inputs: list[Tensor]) -> Tensor:
    """Places of the boxes that are kept, best first: ``[kept, 1]``."""
    values = call.values
    places = Tensor(f"{values.scope}_places", INT32, (None,))
    count = Tensor(f"{values.scope}_count", INT32, ())
    options = schema.NonMaxSuppressionV4OptionsT()
    values.graph.emit("NON_MAX_SUPPRESSION_V4", inputs, [places, count], options)
    bounds = [values.integers([0]), values.reshape(count, (1,)), values.integers([1])]
    found = call.emit(
        "STRIDED_SLICE", [places, *bounds], (None,), options=schema.StridedSliceOptionsT()
    )
    return call.unsqueeze(found, (1,))


def _row(call: Call, places: Tensor, batch: int, number: int) -> Tensor:
    """Picture, class and box of each: ``[kept, 3]``."""
    m, integers = Math(call), call.values.integers
    none = m.mul(places, integers(0))
    return _joined(call, [m.add(none, integers(batch)), m.add(none, integers(number)), places], 1)


def _joined(call: Call, parts: list[Tensor], axis: int) -> Tensor:
    sizes = [part.shape[axis] for part in parts]
    total = sum(s for s in sizes if isinstance(s, int)) if None not in sizes else None
    shape = (*parts[0].shape[:axis], total, *parts[0].shape[axis + 1 :])
    options = schema.ConcatenationOptionsT(axis=axis)
    return call.emit("CONCATENATION", parts, shape, options=options)
