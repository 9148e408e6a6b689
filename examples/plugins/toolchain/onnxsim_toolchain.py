"""A toolchain for onnxsim, which wants releases of onnx that others do not."""

from __future__ import annotations

from pathlib import Path

from converters.toolchains import Pythons, Toolchain

ONNXSIM = Toolchain(
    name="onnxsim",
    title="ONNX graphs simplified by onnxsim",
    python=Pythons((3, 10), (3, 14)),
    requirements=(("onnx==1.20.1", "onnxruntime==1.23.2", "onnxsim==0.6.5"),),
    script=Path(__file__).with_name("onnxsim_script.py"),
    size_bytes=250_000_000,
)
