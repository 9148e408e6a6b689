"""The toolchain, built once per machine, and the tiny models that a script inside it makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.toolchains import find, process

INSIDE = Path(__file__).with_name("inside.py")
MODELS = (
    "sentences", "dense", "slow-tokenizer", "bert-classes", "bert-labels", "bert-regression",
    "bert-fill", "distilbert-tags", "roberta-answers", "vit", "resnet", "mobilenet-v1",
    "mobilenet-v2", "convnext", "wav2vec2-classes", "ast", "wav2vec2-ctc", "hubert-ctc",
    "ernie", "focalnet", "t5", "bart", "bart-rules", "marian", "whisper",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model, what it is given, and what the source framework answers."""

    folder: Path
    task: str
    inputs: list[Any]
    answers: list[Any]


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Name -> model."""
    environment = find("hugging-face")
    environment.install(print)
    out = tmp_path_factory.mktemp("models")
    found = process.call(
        environment.python,
        INSIDE,
        "prepare",
        {"out": str(out), "models": MODELS},
        print,
        where="tests",
        timeout=1200,
    )
    return {
        name: Case(out / name, case["task"], list(map(_loaded, case["inputs"])), case["answers"])
        for name, case in found["cases"].items()
    }


def _loaded(given: Any) -> Any:
    is_array = isinstance(given, str) and given.endswith(".npy")
    return np.load(given) if is_array else given
