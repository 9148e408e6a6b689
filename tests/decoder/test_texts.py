"""Text as calibration and evaluation data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from converters.decoder import texts
from converters.decoder.source import DecoderSource
from converters.decoder.texts import divide, read_texts
from edge_sdk.errors import DataError, SourceError
from tests.decoder.speakers import speaker

pytestmark = pytest.mark.converts

TEMPLATE = "{% for m in messages %}{{ m.role[:1] == 'u' and 'w100' or 'w101' }} {{ m.content }} {% endfor %}"  # noqa: E501


def write(folder: Path, *lines: object) -> Path:
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def words(*ids: int) -> str:
    return " ".join(f"w{i}" for i in ids)


def with_generation(source: DecoderSource, **changes: object) -> DecoderSource:
    return replace(source, generation=msgspec.structs.replace(source.generation, **changes))


def all_windows(found: texts.Texts) -> list[list[int]]:
    return sorted(window.tolist() for window in (*found.calibration, *found.evaluation))


def test_documents_are_divided_without_a_rest(tmp_path: Path) -> None:
    documents = [list(range(start, start + 12)) for start in range(20)]
    path = write(tmp_path, *({"text": words(*ids)} for ids in documents))
    found = read_texts(speaker(), path, 10_000, 10_000)
    assert all_windows(found) == sorted(documents)
    assert (len(found.calibration), len(found.evaluation)) == (10, 10)
    assert found.origin == "user"


def test_dialogues_go_through_the_chat_template(tmp_path: Path) -> None:
    source = with_generation(speaker(), chat_template=TEMPLATE, bos=127, add_bos=True)
    turns = [{"role": "user", "content": words(1, 2)}, {"role": "assistant", "content": words(3)}]
    pair = {"prompt": words(4), "completion": words(5, 6)}
    plain = {"text": words(*range(7, 20))}
    path = write(tmp_path, *[{"messages": turns}, pair, plain] * 8)
    found = all_windows(read_texts(source, path, 10_000, 10_000))
    assert found[0] == [100, 1, 2, 101, 3]
    assert found[8] == [100, 4, 101, 5, 6]
    assert found[16] == [127, *range(7, 20)]  # only plain text begins with the bos token


def test_long_documents_are_cut_at_the_context(tmp_path: Path) -> None:
    source = speaker()
    path = write(tmp_path, *[{"text": words(*range(100))}] * 8)
    found = read_texts(source, path, 10_000, 10_000)
    assert {len(window) for window in found.evaluation} == {source.generation.context, 4}


def test_few_documents_are_cut_in_halves(tmp_path: Path) -> None:
    ids = [i % 128 for i in range(180)]
    found = read_texts(speaker(), write(tmp_path, {"text": words(*ids)}), 10_000, 10_000)
    assert [window.tolist() for window in found.calibration] == [ids[:90]]
    assert [window.tolist() for window in found.evaluation] == [ids[90:]]


def test_no_more_tokens_are_taken_than_wanted() -> None:
    documents = [np.arange(40, dtype=np.int64)] * 20
    found = divide(documents, "user", 96, 100, 50)
    assert sum(map(len, found.calibration)) == 100
    assert sum(map(len, found.evaluation)) == 50


def test_digest_is_of_the_documents_and_not_of_what_was_taken() -> None:
    documents = [np.arange(40, dtype=np.int64)] * 20
    assert divide(documents, "user", 96, 100, 50).digest == divide(documents, "u", 9, 9, 9).digest
    assert (
        divide(documents[1:], "user", 96, 100, 50).digest != divide(documents, "u", 9, 9, 9).digest
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ({"txt": "w1"}, "neither text"),
        ({"prompt": "w1"}, "neither text"),
        ({"text": 3}, "line 2"),
        ({"messages": [{"role": "user"}]}, "content"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: object, complaint: str) -> None:
    path = write(tmp_path, {"text": words(*range(90))}, line)
    with pytest.raises(DataError, match=complaint) as caught:
        read_texts(speaker(), path, 100, 100)
    assert "2" in str(caught.value.where)


def test_too_little_text_says_how_little(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": words(1, 2, 3, 4)})
    with pytest.raises(DataError, match=r"1 tokens .* at least 64"):
        read_texts(speaker(), path, 100, 100)


def test_arrays_are_no_data_for_a_dialogue_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"on text"):
        read_texts(speaker(), tmp_path / "data.npz", 100, 100)


def test_damaged_tokenizer_is_an_error_of_the_source(tmp_path: Path) -> None:
    source = replace(speaker(), tokenizer=b"{}")
    with pytest.raises(SourceError, match="not a readable tokenizer"):
        read_texts(source, write(tmp_path, {"text": "w1"}), 100, 100)
