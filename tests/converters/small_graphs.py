"""Small ONNX files for tests of data, comparison and measurement."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser

LINEAR = """
<ir_version: 8, opset_import: ["" : 17]>
linear (float[N, 4] x) => (float[N, 3] y)
<float[4, 3] w = {0.5, -1, 2, 1, 0.25, -0.5, -2, 1, 0, 3, 0.5, 1}>
{ y = MatMul(x, w) }
"""

# y = x + state; the state remembers it.
ACCUMULATOR = """
<ir_version: 8, opset_import: ["" : 17]>
accumulator (float[batch, 2] x, float[batch, 2] state) => (float[batch, 2] y, float[batch, 2] next)
{ y = Add(x, state)  next = Identity(y) }
"""

EMBEDDER = """
<ir_version: 8, opset_import: ["" : 17]>
embedder (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask)
  => (float[batch, sequence, 4] vectors)
<float[7, 4] table = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1, 1,1,0,0, 0,1,1,0, 0,0,1,1}>
{
  rows = Gather(table, input_ids)
  mask = Cast<to = 1>(attention_mask)
  axes = Constant<value_ints = [2]>()
  column = Unsqueeze(mask, axes)
  vectors = Mul(rows, column)
}
"""


def write(text: str, path: Path) -> Path:
    """Parses ONNX's text form and saves the checked model."""
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path
