"""The JSON Schemas in docs/reference are those of the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def test_reference_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", FOLDER / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    expected = {stem: generate.render(struct) for stem, struct in generate.documents().items()}
    stored = {path.stem: path.read_bytes() for path in FOLDER.glob("*.json")}
    assert stored.keys() == expected.keys(), "run: python docs/reference/generate.py"
    assert stored == expected, "run: python docs/reference/generate.py"
