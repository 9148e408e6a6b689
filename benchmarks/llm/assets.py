"""Models and environments of the contests, made once under ``build/benchmarks/llm``.

Every engine gets the same weights: a Hugging Face folder with seeded random
ones, which is converted to a bundle, quantized to a GGUF file, and built by
onnxruntime-genai's own builder.
"""

from __future__ import annotations

import json
import random
import string
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.llm import model
from benchmarks.llm.contest import Contestant
from benchmarks.llm.gguf_file import write_gguf
from converters import convert
from converters.decoder.source import DecoderSource
from converters.source import open_source
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.runtime.generation.memory import kv_per_token

CACHE = Path(__file__).parents[2] / "build" / "benchmarks" / "llm"
EXAMPLES = Path(__file__).parents[2] / "examples"
PROFILE = "x86-64"
CHANGED_LAYER = 7
# llama-cpp-python comes as source and is compiled for this CPU.
PEERS = (("llama-cpp-python==0.3.36", "onnxruntime-genai==0.18.0", "onnxruntime==1.31.1"),)
# The builder needs other versions than anything else here, torch before what depends on it.
BUILDER = (
    ("torch==2.13.0",),
    ("onnxruntime-genai==0.18.0", "transformers>=5,<6", "onnx==1.23.2", "onnx-ir==1.1.0"),
)


def edge(name: str, bundle: Path, **settings: object) -> Contestant:
    """This SDK over a bundle."""
    python = Path(sys.executable)
    return Contestant(
        name, python, "benchmarks.llm.worker_edge", {"model": str(bundle), **settings}
    )


def edge_int8(name: str, bundle: Path, context: int, **settings: object) -> Contestant:
    """The same under a memory limit that leaves the context room in an int8 cache only."""
    [variant] = open_bundle(bundle).variants
    record = variant.record
    assert record.generation is not None
    cache = context * kv_per_token(record.memory, record.generation, "int8")
    limit = record.memory.peak + cache
    return edge(name, bundle, context=context, memory_limit=limit, **settings)


def llama(name: str, file: Path, **settings: object) -> Contestant:
    """llama.cpp over a GGUF file."""
    return Contestant(
        name, peers(), "benchmarks.llm.worker_llama", {"model": str(file), **settings}
    )


def genai(name: str, folder: Path, **settings: object) -> Contestant:
    """onnxruntime-genai over its builder's folder."""
    return Contestant(
        name, peers(), "benchmarks.llm.worker_genai", {"model": str(folder), **settings}
    )


def source(shape: str, *, changed: bool = False) -> Path:
    """A Hugging Face folder, or its twin with one layer changed."""
    folder = CACHE / shape / ("changed" if changed else "source")
    if not (folder / "model.safetensors").is_file():
        layer = CHANGED_LAYER % model.SHAPES[shape].layers if changed else None
        model.write(folder, model.SHAPES[shape], changed_layer=layer)
    return folder


def bundle(
    shape: str,
    recipe: str,
    *,
    changed: bool = False,
    version: str = "1.0.0",
    profile: str = PROFILE,
) -> Path:
    """A bundle made by ``edge-sdk convert`` with a recipe forced, of the source or its twin.

    The twin, and later versions, are converted on the base of the first.
    """
    later = "" if version == "1.0.0" else f".{version}"
    kind = ("" if profile == PROFILE else f".{profile}") + (".changed" if changed else "") + later
    made = CACHE / shape / f"{recipe}{kind}.bundle"
    if not made.is_dir():
        convert(
            source(shape, changed=changed), [profile], made, recipe=_forced(recipe),
            data=_texts(), version=version,
            base=bundle(shape, recipe, profile=profile) if changed or later else None,
        )  # fmt: skip
    return made


def assistant(recipe: str | None = None) -> Path:
    """The example's dialogue model as its users convert it, or with a recipe forced."""
    made = CACHE / f"assistant{'' if recipe is None else '-' + recipe}.bundle"
    if not made.is_dir():
        data = EXAMPLES / "assistant" / "calibration.jsonl"
        forced = None if recipe is None else _forced(recipe)
        convert(EXAMPLES / "assistant" / "model", [PROFILE], made, recipe=forced, data=data)
    return made


def gguf(shape: str, kind: str = "Q4_0") -> Path:
    """A GGUF file with all matrices in one type."""
    from gguf import GGMLQuantizationType

    file = CACHE / shape / f"{kind.lower()}.gguf"
    if not file.is_file():
        found = open_source(source(shape))
        assert isinstance(found, DecoderSource)
        partial = file.with_suffix(".part")
        write_gguf(found, partial, GGMLQuantizationType[kind]).rename(file)
    return file


def genai_model(shape: str, block: int) -> Path:
    """What onnxruntime-genai's builder makes of the source: int4, symmetric, tied, CPU."""
    folder = CACHE / shape / f"genai-b{block}"
    if not (folder / "genai_config.json").is_file():
        python = str(_environment("genai-builder", BUILDER))
        command = [
            python, "-m", "onnxruntime_genai.models.builder", "-i", str(source(shape)),
            "-o", str(folder), "-p", "int4", "-e", "cpu", "--extra_options",
            f"block_size={block}", "accuracy_level=4", "shared_embeddings=true",
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    return folder


def peers() -> Path:
    """The interpreter of the peers' environment."""
    return _environment("peers", PEERS)


def _environment(name: str, requirements: Sequence[Sequence[str]]) -> Path:
    """The interpreter of an environment of our own; made on first use."""
    python = CACHE / name / "bin" / "python"
    if not python.is_file():
        venv.create(CACHE / name, with_pip=True)
        for together in requirements:
            subprocess.run([python, "-m", "pip", "install", "-q", *together], check=True)
    return python


def _forced(recipe: str) -> Path:
    """A recipe file that names one candidate."""
    file = CACHE / f"{recipe}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'name = "{recipe}"\n')
    return file


def _texts() -> Path:
    """Few words, which the random model knows as little as any others: only speed matters."""
    file = CACHE / "texts.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    with file.open("w") as lines:
        for _ in range(16):
            words = ("".join(draw.choices(string.ascii_lowercase, k=3)) for _ in range(40))
            lines.write(json.dumps({"text": " ".join(words)}) + "\n")
    return file
