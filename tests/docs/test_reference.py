"""What docs/reference says is what the code says."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from edge_sdk.toml_files import loads

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def generate():
    sys.path.insert(0, str(FOLDER))
    try:
        import generate
    finally:
        sys.path.remove(str(FOLDER))
    return generate


def test_reference_is_up_to_date(generate) -> None:
    expected = generate.files()
    stored = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.name in expected}
    assert stored == expected, "run: python docs/reference/generate.py"
    kinds = {path.name for kind in ("*.json", "*.toml") for path in FOLDER.glob(kind)}
    assert kinds == expected.keys(), "run: python docs/reference/generate.py"


def test_the_fleets_configuration_file_holds_the_defaults(generate) -> None:
    fleet = generate.CONFIGURATIONS["fleet"]
    text = (FOLDER / "fleet.toml").read_text()
    assert msgspec.convert(loads(text), fleet) == fleet()


def test_every_key_is_in_its_configuration_file(generate) -> None:
    for name, struct in generate.CONFIGURATIONS.items():
        text = (FOLDER / f"{name}.toml").read_text()
        for field in msgspec.structs.fields(struct):
            assert f"{field.name} =" in text or f"[{field.name}]" in text
