"""Metrics against values worked by hand, and against scikit-learn."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from converters.dataset import Array
from converters.metrics import Metric, find_metric, metric_names
from edge_sdk.errors import DataError, RecipeError


def value(name: str, predictions: list[object], references: list[object]) -> float:
    def arrays(items: list[object]) -> list[Array]:
        return [np.asarray(item) for item in items]

    return find_metric(name).function(arrays(predictions), arrays(references))


def test_every_metric_of_the_contract_is_registered() -> None:
    assert set(metric_names()) >= {
        "top1", "f1", "auc", "cosine", "nearest", "perplexity", "exact-match", "bleu", "rouge-l",
        "wer",
    }  # fmt: skip
    assert all(find_metric(name).name == name for name in metric_names())


def test_top1_counts_rows_of_all_samples() -> None:
    predictions = [[[0.1, 0.9]], [[0.8, 0.2], [0.3, 0.7]]]
    assert value("top1", predictions, [1, [0, 0]]) == pytest.approx(2 / 3)
    assert value("top1", [1, 0], [1, 1]) == 0.5, "class numbers are taken as they are"


@pytest.mark.parametrize(
    ("scores", "share"), [([[0.4], [0.6]], 1.0), ([[-2.0], [0.3]], 1.0), ([[0.4], [0.3]], 0.5)]
)
def test_a_single_score_is_a_probability_or_a_logit(scores: list[object], share: float) -> None:
    assert value("top1", scores, [0, 1]) == share


rows = st.integers(0, 10_000)


@given(seed=rows, classes=st.integers(2, 5))
def test_f1_and_auc_are_those_of_scikit_learn(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(30) % classes)
    logits = rng.standard_normal((30, classes)).round(1)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predictions = list(scores[:, None])
    expected = f1_score(labels, scores.argmax(axis=1), average="macro")
    assert value("f1", predictions, list(labels)) == pytest.approx(expected)
    given_scores = scores[:, 1] if classes == 2 else scores
    expected = roc_auc_score(labels, given_scores, multi_class="ovr", average="macro")
    assert value("auc", predictions, list(labels)) == pytest.approx(expected)


def test_auc_counts_ties_as_half() -> None:
    assert value("auc", [[0.5], [0.5], [0.9]], [0, 1, 1]) == 0.75


def test_auc_needs_two_classes_and_scores() -> None:
    with pytest.raises(DataError, match="more than one class"):
        value("auc", [[0.5], [0.6]], [1, 1])
    with pytest.raises(DataError, match="needs scores"):
        value("auc", [0, 1], [0, 1])


def test_cosine_is_the_mean_over_samples() -> None:
    assert value("cosine", [[1.0, 0], [0, 2]], [[1.0, 1], [0, 1]]) == pytest.approx(
        (math.sqrt(0.5) + 1) / 2
    )
    assert value("cosine", [[0.0, 0], [0, 0]], [[0.0, 0], [0, 1]]) == 0.5


def test_cosine_of_what_is_no_number_is_zero_unless_both_agree() -> None:
    nan, inf = np.nan, np.inf
    assert value("cosine", [[1.0, nan]], [[1.0, 2]]) == 0
    assert value("cosine", [[1.0, -inf]], [[1.0, -inf]]) == 1


def test_nearest_is_the_share_of_neighbours_kept() -> None:
    references = [[1, 0.0], [1, 0.1], [0, 1.0], [0.1, 1]]
    assert value("nearest", references, references) == 1
    # The first two lie apart now, so each finds another neighbour; the last two do not.
    moved = [[1, 0.0], [-1, 0.1], [0, 1.0], [0.1, 1]]
    assert value("nearest", moved, references) == 0.5
    with pytest.raises(DataError, match="three samples"):
        value("nearest", references[:2], references[:2])


def test_perplexity_is_exp_of_the_mean_loss() -> None:
    uniform = np.zeros((1, 3, 8))
    assert value("perplexity", [uniform], [[[1, 2, 3]]]) == pytest.approx(8)
    certain = np.log(np.array([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]]))
    expected = math.exp(-(math.log(0.5) + math.log(0.8)) / 2)
    assert value("perplexity", [certain], [[0, 1]]) == pytest.approx(expected)
    assert value("perplexity", [certain], [[0, -100]]) == pytest.approx(2), "-100 is left out"
    with pytest.raises(DataError, match="3 positions"):
        value("perplexity", [uniform], [[1, 2]])


def test_exact_match_ignores_white_space_and_compares_ids() -> None:
    assert value("exact-match", ["a  b", "c"], ["a b", "d"]) == 0.5
    assert value("exact-match", [[1, 2], [3, 4]], [[1, 2], [3, 5]]) == 0.5


def test_bleu_of_papineni() -> None:
    # 1- to 4-gram precisions 5/6, 3/5, 2/4, 1/3 and no brevity penalty.
    said, truth = "the cat sat on the rug", "the cat sat on a rug"
    precisions = (5 / 6, 3 / 5, 2 / 4, 1 / 3)
    assert value("bleu", [said], [truth]) == pytest.approx(math.prod(precisions) ** 0.25)
    # Every n-gram right, five words for six: only the brevity penalty.
    short = "the cat sat on a"
    assert value("bleu", [short], [truth]) == pytest.approx(math.exp(1 - 6 / 5))
    assert value("bleu", ["dog"], [truth]) == 0


def test_bleu_clips_repeated_words() -> None:
    # "the" occurs twice in the reference: 2/4, not 4/4; padded so that all orders count.
    said = "the the the the a b c d"
    truth = "the cat the mat a b c d"
    precisions = (6 / 8, 3 / 7, 2 / 6, 1 / 5)
    assert value("bleu", [said], [truth]) == pytest.approx(math.prod(precisions) ** 0.25)


def test_rouge_l_is_f1_of_the_common_subsequence() -> None:
    # Lin's example: police kill the gunman / police killed the gunman: LCS 3 of 4 and 4.
    assert value("rouge-l", ["police kill the gunman"], ["police killed the gunman"]) == 0.75
    assert value("rouge-l", ["the gunman kill police"], ["police killed the gunman"]) == 0.5


def test_word_error_rate_is_over_all_reference_words() -> None:
    # One substitution and one insertion over three words; two deletions over two words.
    assert value("wer", ["a x c d", ""], ["a b c", "e f"]) == pytest.approx(4 / 5)


words = st.lists(st.sampled_from("abcd"), min_size=1, max_size=8)


@given(a=words, b=words)
def test_word_error_rate_obeys_the_bounds_of_an_edit_distance(a: list[str], b: list[str]) -> None:
    errors = value("wer", [" ".join(a)], [" ".join(b)]) * len(b)
    assert abs(len(a) - len(b)) - 1e-9 <= errors <= max(len(a), len(b)) + 1e-9
    assert (errors == 0) == (a == b)


def test_text_metrics_refuse_scores() -> None:
    with pytest.raises(DataError, match="module:function"):
        value("bleu", [[0.1, 0.2]], ["a"])


def test_class_metrics_refuse_text_labels_and_wrong_counts() -> None:
    with pytest.raises(DataError, match="labels are text"):
        value("top1", [[[0.1, 0.9]]], ["yes"])
    with pytest.raises(DataError, match="2 labels do not fit 1 predictions"):
        value("top1", [[[0.1, 0.9]]], [[0, 1]])


def test_drop_follows_direction_and_relativity() -> None:
    assert find_metric("top1").drop(0.9, 0.88) == pytest.approx(0.02)
    assert find_metric("wer").drop(0.10, 0.13) == pytest.approx(0.03)
    assert find_metric("perplexity").drop(4.0, 4.2) == pytest.approx(0.05)
    assert find_metric("perplexity").max_drop == 0.05


def test_an_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError) as error:
        find_metric("accuracy")
    assert "rouge-l" in str(error.value)


def test_a_function_of_the_user_is_a_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics_of_a_test.py").write_text(
        "from converters.metrics import Metric\n"
        "def always(predictions, references): return 0.25\n"
        "loss = Metric('loss', always, higher_is_better=False)\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_metric("metrics_of_a_test:always") == Metric(
        "metrics_of_a_test:always", sys.modules["metrics_of_a_test"].always
    )
    assert find_metric("metrics_of_a_test:loss").drop(1.0, 1.5) == 0.5
    for wrong in ("metrics_of_a_test:gone", "no_such_module:f", "metrics_of_a_test:number"):
        with pytest.raises(RecipeError, match=wrong):
            find_metric(wrong)


def test_class_numbers_may_be_floats() -> None:
    assert value("top1", [[[0.1, 0.9, 0.0]], [[0.1, 0.0, 0.9]]], [1.0, 2.0]) == 1.0


@pytest.mark.parametrize("label", [-1, 2])
def test_label_beyond_the_classes_is_refused(label: int) -> None:
    with pytest.raises(DataError, match=f"{label} is no class: the model scores classes 0 to 1"):
        value("top1", [[[0.1, 0.9]], [[0.8, 0.2]]], [1, label])
