"""What a variant for TensorRT needs beside its graph.

::

    shapes.py    shapes that engines are built for, from what the data have
    options.py   the execution providers' options of one variant
    check.py     a graph before TensorRT's own parser and builder, without a GPU
    toolchain.py where those come from

Where quantization stands in the graph is :mod:`converters.passes.qdq_tensorrt`; building
the engine on the device is :mod:`edge_sdk.runtime.compiled`.
"""

from __future__ import annotations

from converters.tensorrt.check import Inspector
from converters.tensorrt.options import uses_tensorrt, variant_options
from converters.tensorrt.shapes import ShapeProfile, shape_profile

__all__ = ["Inspector", "ShapeProfile", "shape_profile", "uses_tensorrt", "variant_options"]
