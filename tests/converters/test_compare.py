"""Agreement of a candidate with its source: what it reacts to, and what it forgives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from converters.compare import SampleOutputs, agreement, run
from converters.dataset import Dataset
from converters.materialize import open_path
from converters.metrics import Metric, find_metric
from edge_sdk.bundle.record import State
from edge_sdk.errors import DataError
from tests.converters.small_graphs import ACCUMULATOR, write

RNG = np.random.default_rng(0)
WIDE = [RNG.standard_normal((1, 64)).astype(np.float32) for _ in range(20)]


def outputs(arrays: Any, name: str = "y") -> list[SampleOutputs]:
    """One call per sample with one output."""
    return [({name: np.asarray(array)},) for array in arrays]


def noisy(arrays: Any, share: float) -> list[Any]:
    rng = np.random.default_rng(1)
    return [
        a + np.float32(share) * rng.standard_normal(a.shape).astype(a.dtype)
        for a in map(np.asarray, arrays)
    ]


def test_run_rolls_states_and_keeps_every_call(tmp_path: Path) -> None:
    session = open_path(write(ACCUMULATOR, tmp_path / "model.onnx"))
    calls = tuple({"x": np.full((1, 2), v, np.float32)} for v in (1, 2, 3))
    data = Dataset((calls, calls[:1]), None, "user", "sha256:0")
    found = run(session, data, (State(input="state", output="next"),))
    assert [[float(call["y"][0, 0]) for call in sample] for sample in found] == [[1, 3, 6], [1]]


def test_an_initial_state_in_the_first_call_is_used(tmp_path: Path) -> None:
    session = open_path(write(ACCUMULATOR, tmp_path / "model.onnx"))
    one = np.ones((1, 2), np.float32)
    data = Dataset((({"x": one, "state": 10 * one}, {"x": one}),), None, "user", "sha256:0")
    found = run(session, data, (State(input="state", output="next"),))
    assert [float(call["y"][0, 0]) for call in found[0]] == [11, 12]


def test_equal_outputs_drop_nothing() -> None:
    found = agreement(outputs(WIDE, "features"), outputs(WIDE, "features"))
    assert (found.cosine, found.max_error, found.drop, found.samples) == (1, 0, 0, 20)


def test_drop_is_one_minus_the_mean_cosine_for_vectors() -> None:
    images = [a.reshape(1, 4, 4, 4) for a in WIDE]
    found = agreement(outputs(images), outputs(noisy(images, 0.1)))
    assert found.drop_of == "1 - cosine"
    assert found.drop == pytest.approx(1 - found.cosine, rel=1e-4)
    assert 0.003 < found.drop < 0.007, "noise of 10 % has a cosine of about 1 - 0.1² / 2"
    assert found.top1 is None


def test_the_worst_output_counts() -> None:
    def two(second: list[Any]) -> list[SampleOutputs]:
        images = [a.reshape(1, 8, 8) for a in WIDE]
        return [({"a": x, "b": y},) for x, y in zip(images, second, strict=True)]

    good = [a.reshape(1, 8, 8) for a in WIDE]
    found = agreement(two(good), two(noisy(good, 0.3)))
    assert found.cosine == 1
    assert found.drop > 0.02
    assert found.drop_of == "1 - cosine of b"


def test_changed_decisions_count_for_class_scores() -> None:
    source = [np.float32([[5, 0, 0, 0]])] * 10
    candidate = [*source[:9], np.float32([[4.9, 5, 0, 0]])]
    found = agreement(outputs(source), outputs(candidate))
    assert found.top1 == 0.9
    assert (found.drop, found.drop_of) == (0.1, "1 - top1 agreement")


def test_a_changed_decision_on_a_tie_is_forgiven() -> None:
    tie, turned = np.float32([[3, 3.001, 0]]), np.float32([[3.001, 3, 0]])
    found = agreement(outputs([tie] * 4), outputs([tie, tie, tie, turned]))
    assert found.top1 == 0.75
    assert found.drop < 1e-6


def test_a_single_probability_is_compared_as_a_decision() -> None:
    """The cosine of scalars is always 1, so a wrong voice detector would pass."""
    speech = [np.float32([[p]]) for p in (0.02, 0.97, 0.9, 0.01)]
    silent = [np.float32([[p]]) for p in (0.02, 0.03, 0.1, 0.01)]
    found = agreement(outputs(speech), outputs(silent))
    assert found.top1 == 0.5
    assert found.drop == 0.5
    assert found.cosine < 0.7


def test_a_probability_slightly_above_one_is_still_a_probability() -> None:
    speech = [np.float32([[p]]) for p in (0.02, 0.97, 0.9, 0.3)]
    rounded = [np.float32([[p]]) for p in (0.02, 1.004, 0.9, 0.3)]
    found = agreement(outputs(speech), outputs(rounded))
    assert found.top1 == 1
    assert found.drop < 1e-3


def test_few_numbers_are_compared_by_concordance() -> None:
    angles = [np.float32([[a]]) for a in np.linspace(-90, 90, 15)]
    assert agreement(outputs(angles), outputs(angles)).drop == 0
    scaled = agreement(outputs(angles), outputs([0.5 * a for a in angles]))
    assert scaled.drop_of == "1 - concordance"
    assert scaled.drop == pytest.approx(0.2, abs=1e-3), "Lin: 1 - 2·0.5 / (1 + 0.25)"


def test_noise_of_a_constant_output_does_not_decide() -> None:
    constant = [np.float32([[40.0]])] * 8
    found = agreement(outputs(constant), outputs(noisy(constant, 1e-4)))
    assert found.drop < 1e-3


def test_embeddings_are_pooled_and_never_classes() -> None:
    tokens = [RNG.standard_normal((1, 5 + i, 32)).astype(np.float32) for i in range(12)]
    found = agreement(outputs(tokens), outputs(noisy(tokens, 0.2)), task="feature-extraction")
    pooled = [t.mean(axis=1) for t in tokens]
    by_hand = agreement(outputs(pooled), outputs([
        t.mean(axis=1) for t in noisy(tokens, 0.2)
    ]), task="feature-extraction")  # fmt: skip
    assert found.cosine == pytest.approx(by_hand.cosine, rel=1e-5)
    assert found.nearest is not None
    assert 0 < found.nearest <= 1
    assert found.top1 is None


def test_unit_vectors_are_embeddings_without_being_told() -> None:
    unit = [a / np.linalg.norm(a) for a in WIDE]
    assert agreement(outputs(unit), outputs(unit)).top1 is None


def test_sequence_logits_are_decisions_per_position() -> None:
    logits = [np.eye(6, dtype=np.float32)[None, [0, 3, 2, 5]] * 9 for _ in range(5)]
    changed = [a.copy() for a in logits]
    changed[0][0, 1] = np.roll(changed[0][0, 1], 1)
    found = agreement(outputs(logits, "logits"), outputs(changed, "logits"))
    assert found.top1 == pytest.approx(1 - 1 / 20)
    assert agreement(outputs(logits, "boxes"), outputs(changed, "boxes")).top1 is None


def test_scores_next_to_box_coordinates_count_on_their_own() -> None:
    boxes = RNG.uniform(0, 320, (6, 4, 50))
    scores = RNG.uniform(0, 1, (6, 3, 50)) ** 4
    source = np.concatenate([boxes, scores], axis=1).astype(np.float32)
    ruined = np.concatenate([boxes, scores[:, ::-1]], axis=1).astype(np.float32)
    found = agreement(outputs(source[:, None]), outputs(ruined[:, None]))
    assert found.cosine > 0.9999, "the cosine of everything sees only coordinates"
    assert found.drop > 0.3
    assert found.drop_of == "1 - cosine of y (scores)"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_candidate_that_is_not_finite_is_rejected_whole(bad: float) -> None:
    broken = [a.copy() for a in WIDE]
    broken[3][0, 5] = bad
    labels = np.array([int(a.argmax()) for a in WIDE])
    found = agreement(outputs(WIDE), outputs(broken), labels=labels)
    assert (found.drop, found.drop_of) == (1, "output y not finite")
    assert found.max_error > 1e308
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_what_is_infinite_in_both_is_equal() -> None:
    masked = [a.copy() for a in WIDE]
    for a in masked:
        a[0, 7] = -np.inf
    found = agreement(outputs(masked), outputs(masked))
    assert (found.drop, found.max_error) == (0, 0)


def test_another_shape_is_rejected_whole() -> None:
    found = agreement(outputs(WIDE), outputs([a[:, :32] for a in WIDE]))
    assert (found.drop, found.drop_of) == (1, "output y shape differs")


def test_integers_and_text_must_match_exactly() -> None:
    ids = [np.arange(10).reshape(1, 10) for _ in range(4)]
    changed = [a.copy() for a in ids]
    changed[0][0, :4] = 99
    found = agreement(outputs(ids), outputs(changed))
    assert (found.drop, found.drop_of) == (0.1, "1 - exact match")
    words = [np.array(["cat"], object), np.array(["dog"], object)]
    assert agreement(outputs(words), outputs([words[0]] * 2)).drop == 0.5


def test_lists_of_maps_are_compared_by_their_values() -> None:
    source: list[SampleOutputs] = [({"probabilities": [{"a": 0.9, "b": 0.1}]},)]  # type: ignore[dict-item]
    candidate: list[SampleOutputs] = [({"probabilities": [{"a": 0.4, "b": 0.6}]},)]  # type: ignore[dict-item]
    assert agreement(source, source).drop == 0
    assert agreement(source, candidate).top1 == 0


SCORES = [np.float32([[2, 0, 0]]), np.float32([[0, 2, 0]]), np.float32([[0, 0, 2]])] * 4


def test_labels_make_accuracy_decide() -> None:
    labels = np.array([0, 1, 2] * 4)
    wrong = [*SCORES[:-1], SCORES[0]]
    found = agreement(outputs(SCORES), outputs(wrong), labels=labels)
    assert found.metrics == {"top1": (1.0, pytest.approx(11 / 12, rel=1e-5))}
    assert found.drop == pytest.approx(1 / 12, rel=1e-5)
    assert found.drop_of == "drop of top1"
    better = agreement(outputs(wrong), outputs(SCORES), labels=labels)
    assert better.drop < 0


def test_labels_per_step_are_compared_with_every_call() -> None:
    sequence: list[SampleOutputs] = [tuple({"p": np.float32([[p]])} for p in (0.9, 0.2, 0.8))]
    found = agreement(sequence, sequence, labels=np.array([[1, 0, 0]]))
    assert found.metrics["top1"][0] == pytest.approx(2 / 3, rel=1e-5)
    last = agreement(sequence, sequence, labels=np.array([1]))
    assert last.metrics["top1"][0] == 1


def test_a_relative_metric_drops_relatively() -> None:
    logits = [np.zeros((1, 2, 4), np.float32)]
    sure = [np.log(np.float32([[[0.7, 0.1, 0.1, 0.1]] * 2]))]
    found = agreement(
        outputs(sure), outputs(logits), labels=np.array([[0, 0]]), metric=find_metric("perplexity")
    )
    assert found.metrics["perplexity"] == (pytest.approx(1 / 0.7, rel=1e-5), 4)
    assert found.drop == pytest.approx(4 * 0.7 - 1, rel=1e-4)


def test_a_metric_that_compares_with_the_source_needs_no_labels() -> None:
    wrong = [*SCORES[:-1], SCORES[0]]
    found = agreement(outputs(SCORES), outputs(wrong), metric=find_metric("top1"))
    assert found.metrics["top1"] == (1, pytest.approx(11 / 12, rel=1e-5))
    with pytest.raises(DataError, match="'auc' needs labels"):
        agreement(outputs(SCORES), outputs(wrong), metric=find_metric("auc"))


def test_labels_that_are_no_class_numbers_do_not_become_a_metric() -> None:
    several = np.array([[1, 0, 1]] * len(SCORES))
    assert agreement(outputs(SCORES), outputs(SCORES), labels=several).metrics == {}
    weights = np.linspace(0, 1, len(SCORES))
    assert agreement(outputs(SCORES), outputs(SCORES), labels=weights).metrics == {}


def broken_metric(predictions: Any, references: Any) -> float:
    raise KeyError("vocabulary")


@pytest.mark.parametrize(
    ("function", "message"),
    [(broken_metric, "failed: KeyError: 'vocabulary'"), (lambda *_: math.nan, "nan for the")],
)
def test_metric_that_does_not_work_is_named(function: Any, message: str) -> None:
    rows = np.eye(4, dtype=np.float32)
    with pytest.raises(DataError, match=message):
        agreement(
            outputs(rows), outputs(rows), labels=np.arange(4), metric=Metric("mine", function)
        )


def test_candidate_without_a_value_of_the_metric_has_lost_all() -> None:
    rows = np.eye(4, dtype=np.float32)
    metric = Metric("mine", lambda p, r: 1.0 if p[0].sum() == 1 else math.nan)
    found = agreement(outputs(rows), outputs(rows * 2), labels=np.arange(4), metric=metric)
    assert (found.drop, found.drop_of, found.metrics) == (1.0, "mine of nan", {})
