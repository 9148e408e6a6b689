"""The toolchains that come with us."""

from __future__ import annotations

from pathlib import Path

from converters.toolchains.spec import Pythons, Toolchain

_SCRIPTS = Path(__file__).parent / "scripts"

# torch first: the wheel that was chosen for it (an index may have several builds) stays.
HUGGING_FACE = Toolchain(
    name="hugging-face",
    title="Hugging Face and PyTorch models to ONNX, through optimum and torch",
    python=Pythons((3, 11), (3, 14)),
    requirements=(
        ("torch==2.13.0",),
        (
            "optimum==2.1.0",
            "optimum-onnx==0.1.0",
            "transformers==4.57.6",
            "onnxruntime==1.31.1",  # optimum asks which version is there
            "onnxscript==0.7.2",  # torch's exporter
            "sentencepiece==0.2.3",  # tokenizers of T5, Marian and others to tokenizer.json
            "protobuf==7.36.2",
            "pillow==13.0.0",  # image processors say through it how they resize
        ),
    ),
    constraints=(
        "certifi==2026.10.18", "charset-normalizer==3.5.2", "filelock==4.2.11",
        "flatbuffers==25.12.19", "fsspec==2026.9.0", "hf-xet==1.8.0", "huggingface-hub==0.36.2",
        "idna==3.20", "jinja2==3.1.6", "markupsafe==3.0.4", "ml-dtypes==0.6.0", "mpmath==1.3.0",
        "networkx==3.6.1", "numpy==2.4.6", "onnx==1.23.2", "onnx-ir==1.1.0", "packaging==26.3",
        "pyyaml==6.0.3", "regex==2026.11.15", "requests==2.34.2", "safetensors==0.8.0",
        "setuptools==84.2.1", "sympy==1.14.0", "tokenizers==0.22.2", "tqdm==4.70.1",
        "typing-extensions==4.16.0", "urllib3==2.8.0",
    ),
    script=_SCRIPTS / "hugging_face.py",
    size_bytes=1_400_000_000,
)  # fmt: skip

ONNX2TF = Toolchain(
    name="onnx2tf",
    title="ONNX to TFLite for operators that edge-sdk does not lower itself",
    python=Pythons((3, 12), (3, 14)),
    requirements=(("onnx2tf==2.6.9",),),
    script=_SCRIPTS / "onnx2tf.py",
    size_bytes=700_000_000,
)
