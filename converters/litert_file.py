"""Where a ``.tflite`` file may be cut, so that an unchanged weight is an unchanged blob.

A file is one flatbuffer: a structure of some kilobytes around the bytes of its
buffers, one per weight. Cut at their boundaries, the parts joined again are the
file, and a file that differs in one weight differs in one part.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from ai_edge_litert import schema_py_generated as schema

if TYPE_CHECKING:
    from typing_extensions import Buffer

PART = 256 * 1024
IDENTIFIER = b"TFL3"


def parts(data: Buffer, size: int = PART) -> list[memoryview]:
    """Cuts a file at boundaries of its buffers; the parts in order are the file.

    A buffer of at least ``size`` bytes is a part of its own, and so is as much structure in a
    row. What is smaller is cut where a part reaches ``size``. The cuts depend on the sizes of
    the buffers alone, not on what is in them.

    Args:
        data: The file.
        size: Bytes from which on a part stands alone.
    """
    view = memoryview(data).cast("B")
    edges = {edge for ends in buffer_ranges(view) for edge in ends}
    cuts = [0]
    for begin, end in pairwise(sorted({0, len(view)} | edges)):
        if end - begin >= size:
            cuts += [begin, end]
        elif end - cuts[-1] >= size:
            cuts.append(end)
    cuts.append(len(view))
    return [view[a:b] for a, b in pairwise(cuts) if a < b]


def buffer_ranges(data: memoryview) -> list[tuple[int, int]]:
    """Begin and end of every buffer's bytes, in the order of the file, none within another.

    A file that is no flatbuffer, or a damaged one, has none.
    """
    if bytes(data[4:8]) != IDENTIFIER:
        return []
    try:
        found = sorted(set(_ranges(data)))
    except (struct.error, IndexError, ValueError, TypeError):
        return []
    apart, last = [], 0
    for begin, end in found:
        if last <= begin < end <= len(data):
            apart.append((begin, end))
            last = end
    return apart


def _ranges(data: memoryview) -> Iterator[tuple[int, int]]:
    model = schema.Model.GetRootAs(data, 0)
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        table = buffer._tab
        field = table.Offset(4)  # of `data`, in the vtable
        if field:
            begin = table.Vector(field)
            yield begin, begin + table.VectorLen(field)
        elif buffer.Size() > 1:  # behind the flatbuffer, in files beyond 2 GB
            yield buffer.Offset(), buffer.Offset() + buffer.Size()
