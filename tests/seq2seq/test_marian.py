"""Marian's tokenizer: read as its first model reads, written as its second one writes."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import Tokenizer

from converters.seq2seq.marian import is_marian, read_marian
from edge_sdk.errors import SourceError
from edge_sdk.runtime.generation.text_stream import TextStream
from tests.seq2seq.fixtures.archive import unpack
from tests.seq2seq.inputs import FOLDER
from tests.seq2seq.test_graphs import reread

pytestmark = pytest.mark.converts
FILES = FOLDER / "marian-tokenizer"
EXPECTED = json.loads((FILES / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    assert is_marian(FILES)
    return Tokenizer.from_buffer(read_marian(FILES))


@pytest.mark.parametrize(("text", "ids"), EXPECTED["read"])
def test_texts_become_the_ids_of_the_source_framework(tokenizer, text, ids):
    assert tokenizer.encode(text).ids == ids


@pytest.mark.parametrize(("ids", "text"), EXPECTED["written"])
def test_ids_become_its_text(tokenizer, ids, text):
    assert tokenizer.decode(ids) == text
    stream = TextStream(tokenizer)
    assert "".join(map(stream.push, ids)) + stream.flush() == text


def test_export_without_tokenizer_json_takes_marian_s_files(tmp_path):
    folder = unpack(FOLDER / "marian.tar.xz", tmp_path / "export")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match="no such file"):
        reread(folder, tmp_path)
    for name in ("source.spm", "vocab.json"):
        shutil.copy(FILES / name, folder)
    found = Tokenizer.from_file(str(reread(folder, tmp_path).tokenizer))
    assert found.encode("the pump").ids[-1] == 0


def test_damaged_model_is_named(tmp_path):
    shutil.copytree(FILES, tmp_path / "broken")
    (tmp_path / "broken" / "source.spm").write_bytes(b"\x0a\xff")
    with pytest.raises(SourceError, match="not a SentencePiece model"):
        read_marian(tmp_path / "broken")
