"""The toolchains that come with us."""

from __future__ import annotations

from pathlib import Path

from converters.toolchains.spec import Pythons, Toolchain

_SCRIPTS = Path(__file__).parent / "scripts"

# torch first: the wheel that was chosen for it (an index may have several builds) stays.
HUGGING_FACE = Toolchain(
    name="hugging-face",
    title="Hugging Face and PyTorch models to ONNX, through optimum and torch",
    python=Pythons((3, 10), (3, 14)),
    requirements=(
        ("torch==2.13.0",),
        (
            "optimum==2.1.0",
            "optimum-onnx==0.1.0",
            "transformers==4.57.6",
            "onnx==1.23.2",
            "onnxruntime==1.31.1",
        ),
    ),
    script=_SCRIPTS / "hugging_face.py",
    size_bytes=1_900_000_000,
)

ONNX2TF = Toolchain(
    name="onnx2tf",
    title="ONNX to TFLite for operators that edge-sdk does not lower itself",
    python=Pythons((3, 12), (3, 14)),
    requirements=(("onnx2tf==2.6.9",),),
    script=_SCRIPTS / "onnx2tf.py",
    size_bytes=700_000_000,
)
