"""The toolchain that verifies: TensorRT for RTX, whose parser and builder need no GPU."""

from __future__ import annotations

from pathlib import Path

from converters import toolchains
from converters.toolchains import Pythons, Toolchain

TENSORRT_RTX = Toolchain(
    name="tensorrt-rtx",
    title="TensorRT's parser and builder, to verify variants for a Jetson",
    python=Pythons((3, 10), (3, 14)),
    requirements=(("tensorrt-rtx==1.7.1.116",),),
    script=Path(toolchains.__file__).parent / "scripts" / "tensorrt_rtx.py",
    size_bytes=270_000_000,
)
