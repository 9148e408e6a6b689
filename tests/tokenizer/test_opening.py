"""A variant's tokenizer: tables made once and mapped from then on, else the library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from edge_sdk.bundle.blobs import hex_of
from edge_sdk.bundle.reader import Variant, open_bundle
from edge_sdk.runtime.tokenizer import making, open_tokenizer, opening
from edge_sdk.runtime.tokenizer.byte_level import ByteLevelTokenizer
from tests.generation import tiny

TEXT = "hello <|start|>user wörld"
ANSWER = """
import sys, edge_sdk
model = edge_sdk.load(sys.argv[1], "here", threads=1)
model.generate("hello", max_new_tokens=4).read()
print("tokenizers" in sys.modules)
"""


@pytest.fixture
def variant(tmp_path: Path) -> Variant:
    [found] = open_bundle(tiny.bundle(tmp_path / "bundle")).variants
    return found


def prepared(variant: Variant) -> Path:
    return variant.blobs.root / "prepared" / hex_of(variant.digest) / opening.PREPARED


def test_a_second_load_does_without_the_library(tmp_path: Path) -> None:
    path = tiny.bundle(tmp_path / "bundle")
    command = [sys.executable, "-c", ANSWER, str(path)]
    said = [subprocess.run(command, check=True, capture_output=True).stdout for _ in range(2)]
    assert [each.strip() for each in said] == [b"True", b"False"]


def test_tables_and_library_are_one_tokenizer(variant: Variant) -> None:
    library = open_tokenizer(variant, prepare=False)
    assert not isinstance(library, ByteLevelTokenizer)
    assert not prepared(variant).exists()
    tokenizer = open_tokenizer(variant)
    assert isinstance(tokenizer, ByteLevelTokenizer)
    ids = library.encode(TEXT, add_special_tokens=False).ids
    assert tokenizer.encode(TEXT, add_special_tokens=False).ids == ids
    assert tokenizer.decode(ids) == library.decode(ids)


@pytest.mark.parametrize("damage", ["empty", "cut", "bit", "length"])
def test_a_damaged_file_is_made_again(variant: Variant, damage: str) -> None:
    open_tokenizer(variant)
    whole = prepared(variant).read_bytes()
    middle = len(whole) // 2
    prepared(variant).write_bytes(
        {
            "empty": b"",
            "cut": whole[:-9],
            "bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "length": whole[:24] + b"\xff" * 8 + whole[32:],
        }[damage]
    )
    assert isinstance(open_tokenizer(variant), ByteLevelTokenizer)
    assert prepared(variant).read_bytes() == whole


def test_a_file_of_another_unicode_is_made_again(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(making, "unidata_version", "1.1.0")
        open_tokenizer(variant)
        assert b'"1.1.0"' in prepared(variant).read_bytes()
    assert isinstance(open_tokenizer(variant), ByteLevelTokenizer)
    assert b'"1.1.0"' not in prepared(variant).read_bytes()


def test_a_refusal_is_not_tried_again(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(making, "patterns_of", lambda part: None)
        assert not isinstance(open_tokenizer(variant), ByteLevelTokenizer)
    monkeypatch.setattr(making, "made", None)
    assert not isinstance(open_tokenizer(variant), ByteLevelTokenizer)


def test_where_nothing_can_be_written_the_library_serves(variant: Variant) -> None:
    prepared(variant).parent.parent.write_bytes(b"")  # no folder can be here
    assert not isinstance(open_tokenizer(variant), ByteLevelTokenizer)
