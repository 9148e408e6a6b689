"""Graphs against the logits of the reference implementation, however the tokens are fed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.converts
pytest.importorskip("onnx_ir")

from converters.decoder import families, graph, names  # noqa: E402
from converters.decoder.checkpoint import Checkpoint  # noqa: E402
from converters.decoder.stored import StoredWeights  # noqa: E402
from converters.decoder.weights import WeightFormat, WeightPlan  # noqa: E402
from tests.decoder.fixtures import CASES, FOLDER, logits, tokens  # noqa: E402
from tests.decoder.running import Runner  # noqa: E402

TOLERANCE = 1e-4
IDS = tokens()
COUNT = len(IDS)


def load(case: str):
    given = CASES[case]
    architecture, parts = families.read(given["config"], case)
    folder = FOLDER / given["weights"]
    shapes = names.shapes(architecture)
    return architecture, StoredWeights(
        Checkpoint(folder), parts, shapes, ignored=families.ignored, where=folder
    )


@pytest.fixture(params=CASES)
def case(request) -> str:
    return request.param


def runner(case: str, folder: Path, *, batch: int = 1, **options) -> Runner:
    architecture, weights = load(case)
    return Runner(graph.build(architecture, weights, graph.FLOAT32, **options), folder, batch=batch)


def worst(found, wanted) -> float:
    return float(np.abs(found - wanted).max())


def test_prompt_at_once(case: str, tmp_path: Path) -> None:
    found = runner(case, tmp_path)([IDS], [COUNT], range(COUNT))
    assert worst(found[0], logits(case)) <= TOLERANCE


def test_token_by_token(case: str, tmp_path: Path) -> None:
    run = runner(case, tmp_path)
    found = [run([[token]], [at + 1], [0])[0, 0] for at, token in enumerate(IDS)]
    assert worst(found, logits(case)) <= TOLERANCE


def test_prompt_in_chunks(case: str, tmp_path: Path) -> None:
    run = runner(case, tmp_path)
    found = []
    for start, end in ((0, 9), (9, 10), (10, 24), (24, COUNT)):
        found += [*run([IDS[start:end]], [end], range(end - start))[0]]
    assert worst(found, logits(case)) <= TOLERANCE


def test_rows_of_different_length(case: str, tmp_path: Path) -> None:
    """A batch padded on the right, and decoding from there with each row at its own length."""
    run = runner(case, tmp_path, batch=2)
    lengths = [24, 17]
    padded = [IDS[:length] + [0] * (max(lengths) - length) for length in lengths]
    found = run(padded, lengths, range(max(lengths)))
    for row, length in zip(found, lengths, strict=True):
        assert worst(row[:length], logits(case)[:length]) <= TOLERANCE
    for step in range(4):
        ends = [length + step for length in lengths]
        found = run([[IDS[end]] for end in ends], [end + 1 for end in ends], [0])
        assert worst(found[:, 0], logits(case)[ends]) <= TOLERANCE


def test_only_the_wanted_logits(case: str, tmp_path: Path) -> None:
    found = runner(case, tmp_path)([IDS], [COUNT], [COUNT - 1, 3])
    assert worst(found[0], logits(case)[[COUNT - 1, 3]]) <= TOLERANCE


def test_int8_cache_stays_close(case: str, tmp_path: Path) -> None:
    """Scales per channel from the float cache; the error is a small share of the logits."""
    plain = runner(case, tmp_path)
    plain([IDS], [COUNT], [0])
    caches = {name: value.numpy()[0, :, :COUNT] for name, value in plain.caches.items()}
    scales = [
        graph.KvScales(
            *(
                np.abs(caches[f"past_key_values.{index}.{part}"]).max(axis=1) / np.float32(127)
                for part in ("key", "value")
            )
        )
        for index in range(load(case)[0].layers)
    ]
    run = runner(case, tmp_path, kv="int8", kv_scales=scales)
    found = [run([[token]], [at + 1], [0])[0, 0] for at, token in enumerate(IDS)]
    error = np.square(found - logits(case)).mean() / np.square(logits(case)).mean()
    assert 0 < np.sqrt(error) < 0.03


def test_float16_graph_stays_close(case: str, tmp_path: Path) -> None:
    run = runner(case, tmp_path, float_type="float16")
    assert all(cache.numpy().dtype == np.float16 for cache in run.caches.values())
    found = run([IDS], [COUNT], range(COUNT))
    assert found.dtype == np.float32
    error = np.square(found[0] - logits(case)).mean() / np.square(logits(case)).mean()
    assert 0 < np.sqrt(error) < 0.01


def test_layer_by_layer_equals_the_whole(case: str, tmp_path: Path) -> None:
    architecture, weights = load(case)
    session = Runner(graph.embed(architecture, weights), tmp_path).session
    (hidden,) = session.run(None, {"input_ids": np.array([IDS])})
    for index in range(architecture.layers):
        session = Runner(graph.layer(architecture, weights, index), tmp_path).session
        hidden, *_ = session.run(None, {"hidden": hidden})
    found, _ = Runner(graph.head(architecture, weights), tmp_path).session.run(
        None, {"hidden": hidden}
    )
    assert worst(found[0], logits(case)) <= TOLERANCE


def test_shorter_rotary_tables_change_nothing(case: str, tmp_path: Path) -> None:
    architecture, weights = load(case)
    model = graph.build(replace(architecture, context=COUNT), weights, graph.FLOAT32)
    assert worst(Runner(model, tmp_path)([IDS], [COUNT], range(COUNT))[0], logits(case)) <= 1e-4


def test_half_precision_weights_in_a_float32_graph(case: str, tmp_path: Path) -> None:
    architecture, weights = load(case)
    model = graph.build(architecture, weights, WeightPlan(WeightFormat(16)))
    found = Runner(model, tmp_path)([IDS], [COUNT], range(COUNT))
    assert worst(found[0], logits(case)) <= 2e-2
