"""How data files are read, cut into calls, checked and divided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from converters.data import load_data, split
from converters.dataset import Dataset
from edge_sdk.bundle.record import State, TensorSpec
from edge_sdk.errors import DataError

X = TensorSpec(name="x", dtype="float32", shape=("batch", 3))
RATE = TensorSpec(name="rate", dtype="int64", shape=())
STATE = TensorSpec(name="state", dtype="float32", shape=(2, "batch", 4))
RECURRENCE = (State(input="state", output="next"),)


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, allow_pickle=True, **arrays)
    return path


def test_rank_plus_one_is_a_list_of_samples(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    data = load_data(save(tmp_path / "d.npz", x=x), [X])
    assert [len(sample) for sample in data.samples] == [1, 1]
    np.testing.assert_array_equal(data.samples[1][0]["x"], x[1])
    assert data.origin == "user"


def test_equal_rank_is_cut_with_batch_one(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    data = load_data(save(tmp_path / "d.npz", x=x), [X])
    assert [sample[0]["x"].shape for sample in data.samples] == [(1, 3)] * 4
    np.testing.assert_array_equal(data.samples[2][0]["x"], x[2:3])


def test_a_fixed_first_dimension_is_kept_when_cutting(tmp_path: Path) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=(2, 3))
    data = load_data(save(tmp_path / "d.npz", x=np.zeros((6, 3), np.float32)), [spec])
    assert [sample[0]["x"].shape for sample in data.samples] == [(2, 3)] * 3


def test_a_sequence_without_steps_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=np.zeros((2, 0, 1, 3), np.float32))
    with pytest.raises(DataError, match="a sequence in it has no steps"):
        load_data(path, [X, STATE], RECURRENCE)


@pytest.mark.parametrize(("rates", "expected"), [(8, [8, 8]), ([8, 16], [8, 16])])
def test_a_scalar_input_takes_one_for_all_or_one_per_sample(
    tmp_path: Path, rates: Any, expected: list[int]
) -> None:
    path = save(tmp_path / "d.npz", x=np.zeros((2, 3), np.float32), rate=np.array(rates))
    data = load_data(path, [X, RATE])
    assert [sample[0]["rate"].shape for sample in data.samples] == [(), ()]
    assert [int(sample[0]["rate"]) for sample in data.samples] == expected


@given(
    samples=st.integers(1, 5),
    call=st.lists(st.integers(1, 3), min_size=0, max_size=3),
    listed=st.booleans(),
)
def test_cutting_loses_and_reorders_nothing(
    tmp_path_factory: pytest.TempPathFactory, samples: int, call: list[int], listed: bool
) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=("n", *call))
    shape = (samples, 1, *call) if listed else (samples, *call)
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    path = save(tmp_path_factory.mktemp("npz") / "d.npz", x=x)
    data = load_data(path, [spec])
    assert all(sample[0]["x"].shape == (1, *call) for sample in data.samples)
    joined = np.concatenate([sample[0]["x"] for sample in data.samples])
    np.testing.assert_array_equal(joined.ravel(), x.ravel())


def test_stateful_rank_plus_one_is_the_steps_of_one_sequence(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=np.zeros((5, 1, 3), np.float32), rate=np.array(8))
    data = load_data(path, [X, STATE, RATE], RECURRENCE)
    assert len(data) == 1
    assert [feeds["x"].shape for feeds in data.samples[0]] == [(1, 3)] * 5
    assert all("state" not in feeds and feeds["rate"] == 8 for feeds in data.samples[0])


def test_stateful_rank_plus_two_is_sequence_and_step(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 1, 3)
    path = save(tmp_path / "d.npz", x=x, rate=np.array([8, 16]))
    data = load_data(path, [X, STATE, RATE], RECURRENCE)
    assert [len(sample) for sample in data.samples] == [4, 4]
    np.testing.assert_array_equal(data.samples[1][2]["x"], x[1, 2])
    assert [int(feeds["rate"]) for feeds in data.samples[1]] == [16] * 4


def test_stateful_sequences_may_leave_out_the_batch_axis(tmp_path: Path) -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    data = load_data(save(tmp_path / "d.npz", x=x), [X, STATE], RECURRENCE)
    assert [len(sample) for sample in data.samples] == [4, 4]
    np.testing.assert_array_equal(data.samples[1][2]["x"], x[1, 2:3])


def test_frames_of_one_call_are_not_taken_for_steps(tmp_path: Path) -> None:
    frames = TensorSpec(name="x", dtype="float32", shape=("seq_len", 3))
    path = save(tmp_path / "d.npz", x=np.zeros((2, 4, 3), np.float32))
    data = load_data(path, [frames, STATE], RECURRENCE)
    assert [feeds["x"].shape for feeds in data.samples[0]] == [(4, 3), (4, 3)]


def test_state_in_the_data_is_the_initial_value_of_each_sequence(tmp_path: Path) -> None:
    x = np.zeros((2, 4, 1, 3), np.float32)
    state = np.arange(16, dtype=np.float32).reshape(2, 2, 1, 4)
    data = load_data(save(tmp_path / "d.npz", x=x, state=state), [X, STATE], RECURRENCE)
    np.testing.assert_array_equal(data.samples[1][0]["state"], state[1])
    assert all("state" not in feeds for sample in data.samples for feeds in sample[1:])


def test_each_file_of_a_folder_is_one_sequence(tmp_path: Path) -> None:
    for index, steps in enumerate((3, 5)):
        x = np.full((steps, 1, 3), index, np.float32)
        save(tmp_path / f"{index}.npz", x=x, labels=np.arange(steps))
    data = load_data(tmp_path, [X, STATE], RECURRENCE)
    assert [len(sample) for sample in data.samples] == [3, 5]
    assert data.labels is not None
    assert [label.tolist() for label in data.labels] == [[0, 1, 2], [0, 1, 2, 3, 4]]


def test_numbers_of_the_same_kind_are_cast(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=np.zeros((2, 3)), rate=np.zeros(2, np.int32))
    feeds = load_data(path, [X, RATE]).samples[0][0]
    assert feeds["x"].dtype == np.float32
    assert feeds["rate"].dtype == np.int64


def test_labels_follow_their_samples_through_take(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=np.zeros((3, 3), np.float32), labels=np.array([5, 6, 7]))
    taken = load_data(path, [X]).take([2, 0])
    assert taken.labels is not None
    assert taken.labels.tolist() == [7, 5]


def test_digest_is_of_the_content_and_not_of_the_file(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    one = load_data(save(tmp_path / "one.npz", x=x), [X])
    np.savez_compressed(tmp_path / "two.npz", x=x[:, None], other=x)
    two = load_data(tmp_path / "two.npz", [X])
    other = load_data(save(tmp_path / "three.npz", x=x + 1), [X])
    assert one.digest == two.digest != other.digest
    assert one.digest.startswith("sha256:")


OPTIONAL = TensorSpec(name="gain", dtype="float32", shape=(), required=False)
ZEROS = np.zeros((2, 3), np.float32)


def test_an_optional_input_may_be_missing(tmp_path: Path) -> None:
    assert set(load_data(save(tmp_path / "d.npz", x=ZEROS), [X, OPTIONAL]).samples[0][0]) == {"x"}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": ZEROS}, ["input x (float32 [batch, 3]) is missing", "y (float32 [2, 3])"]),
        ({"x": ZEROS.astype(np.uint8)}, ["array 'x'", "uint8", "float32"]),
        ({"x": np.zeros((2, 4), np.float32)}, ["array 'x'", "[2, 4]", "[batch, 3]"]),
        ({"x": np.zeros((2, 1, 1, 3), np.float32)}, ["array 'x'", "rank 2 to 3"]),
        ({"x": np.zeros(3, np.float32)}, ["array 'x'", "[3]"]),
        ({"x": np.zeros((0, 3), np.float32)}, ["no samples"]),
        ({"x": np.array([[None] * 3])}, ["Object arrays cannot be loaded"]),
        ({"x": ZEROS, "labels": np.zeros(3)}, ["labels of shape [3]", "2 samples"]),
    ],
)
def test_a_misfit_is_named(tmp_path: Path, arrays: dict[str, Any], words: list[str]) -> None:
    path = save(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError) as error:
        load_data(path, [X])
    assert str(path) in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_arrays_of_different_length_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=ZEROS, rate=np.zeros(3, np.int64))
    with pytest.raises(DataError, match=r"'x': 2, 'rate': 3"):
        load_data(path, [X, RATE])


def test_integers_out_of_range_are_refused(tmp_path: Path) -> None:
    small = TensorSpec(name="x", dtype="uint8", shape=("n",))
    with pytest.raises(DataError, match="int64 values do not fit"):
        load_data(save(tmp_path / "d.npz", x=np.array([1, 256])), [small])


def test_text_arrays_fill_string_inputs_and_sequences_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=np.array(["red", "blue"]))
    text = TensorSpec(name="x", dtype="string", shape=("n",))
    assert load_data(path, [text]).samples[1][0]["x"].tolist() == ["blue"]
    with pytest.raises(DataError, match=r"seq\(tensor\(float\)\)"):
        load_data(path, [TensorSpec(name="x", dtype="seq(tensor(float))", shape=None)])


@pytest.mark.parametrize("name", ["gone.npz", "gone", "data.csv"])
def test_an_unreadable_path_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=name):
        load_data(tmp_path / name, [X])


def test_a_truncated_archive_is_an_error_and_not_a_traceback(tmp_path: Path) -> None:
    path = save(tmp_path / "d.npz", x=ZEROS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        load_data(path, [X])


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.npz"):
        load_data(tmp_path, [X])


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    words = {"[UNK]": 0, "a": 1, "b": 2, "c": 3}
    built = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    built.pre_tokenizer = Whitespace()
    built.enable_padding(length=16)
    built.enable_truncation(5)
    built.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def token_specs(length: int | str = "sequence") -> list[TensorSpec]:
    return [
        TensorSpec(name="input_ids", dtype="int64", shape=("batch", length)),
        TensorSpec(name="attention_mask", dtype="int32", shape=("batch", length)),
    ]


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def test_texts_keep_their_own_length_up_to_the_limit(tmp_path: Path, tokenizer: Path) -> None:
    path = lines(tmp_path / "d.jsonl", {"text": "a b"}, {"text": "c " * 9, "more": 1})
    data = load_data(path, token_specs(), tokenizer=tokenizer)
    first, second = (sample[0] for sample in data.samples)
    assert first["input_ids"].tolist() == [[1, 2]]
    assert first["attention_mask"].dtype == np.int32
    assert second["input_ids"].tolist() == [[3] * 5]
    longer = load_data(path, token_specs(), tokenizer=tokenizer, max_length=7)
    assert longer.samples[1][0]["input_ids"].shape == (1, 7)


def test_a_fixed_length_is_padded_under_the_mask(tmp_path: Path, tokenizer: Path) -> None:
    path = lines(tmp_path / "d.jsonl", {"text": "a b"})
    feeds = load_data(path, token_specs(4), tokenizer=tokenizer).samples[0][0]
    assert feeds["input_ids"].tolist() == [[1, 2, 0, 0]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 0, 0]]


def test_label_names_become_class_numbers(tmp_path: Path, tokenizer: Path) -> None:
    path = lines(tmp_path / "d.jsonl", {"text": "a", "label": "no"}, {"text": "b", "label": "yes"})
    data = load_data(path, token_specs(), tokenizer=tokenizer, classes=["yes", "no"])
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match="unknown label 'no'"):
        load_data(path, token_specs(), tokenizer=tokenizer, classes=["yes", "maybe"])


@pytest.mark.parametrize(
    ("bad", "word"), [("{", "truncated"), ('{"label": 1}', "text"), ('{"text": 3}', "text")]
)
def test_a_bad_line_is_named_by_number(
    tmp_path: Path, tokenizer: Path, bad: str, word: str
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a"}\n\n' + bad)
    with pytest.raises(DataError, match="line 3") as error:
        load_data(path, token_specs(), tokenizer=tokenizer)
    assert word in str(error.value)


def test_half_labelled_texts_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    path = lines(tmp_path / "d.jsonl", {"text": "a", "label": 1}, {"text": "b"})
    with pytest.raises(DataError, match="only 1 of 2"):
        load_data(path, token_specs(), tokenizer=tokenizer)


def test_text_for_a_model_without_tokens_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    path = lines(tmp_path / "d.jsonl", {"text": "a"})
    with pytest.raises(DataError, match="does not give the inputs"):
        load_data(path, [X], tokenizer=tokenizer)
    with pytest.raises(DataError, match="tokenizer"):
        load_data(path, token_specs())


def numbered(count: int, steps: int = 1) -> Dataset:
    samples = tuple(
        tuple({"x": np.array([i * steps + step])} for step in range(steps)) for i in range(count)
    )
    return Dataset(samples, np.arange(count), "user", "sha256:0")


def content(data: Dataset) -> list[int]:
    return [int(feeds["x"][0]) for sample in data.samples for feeds in sample]


@given(count=st.integers(8, 60))
def test_halves_are_disjoint_and_keep_their_labels(count: int) -> None:
    calibration, evaluation = split(numbered(count))
    assert sorted(content(calibration) + content(evaluation)) == list(range(count))
    for half in (calibration, evaluation):
        assert half.labels is not None
        assert half.labels.tolist() == content(half)


def test_split_is_repeatable_and_mixes_sorted_classes() -> None:
    first, second = split(numbered(400, 1), max_calibration=50, max_evaluation=30)
    again = split(numbered(400, 1), max_calibration=50, max_evaluation=30)
    assert (len(first), len(second)) == (50, 30)
    assert (content(first), content(second)) == (content(again[0]), content(again[1]))
    assert {value // 100 for value in content(first)} == {0, 1, 2, 3}


def test_few_samples_serve_both_halves() -> None:
    calibration, evaluation = split(numbered(7))
    assert content(calibration) == content(evaluation) == list(range(7))


def test_a_single_sequence_is_cut_in_time() -> None:
    calibration, evaluation = split(numbered(1, steps=9))
    assert content(calibration) == [0, 1, 2, 3]
    assert content(evaluation) == [4, 5, 6, 7, 8]
