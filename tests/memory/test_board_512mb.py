"""512 MB for real: an agent and its model in a control group of that size, without swap.

Broker and server are real, and outside. The agent downloads, verifies, prepares and serves.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the cloud's side needs the extra [fleet]")

from benchmarks.board512 import LIMIT, PROFILE, answered, called, stay
from benchmarks.cgroup import unavailable
from benchmarks.llm import assets
from benchmarks.llm.memory import RECIPE
from converters import convert
from edge_sdk.bundle.reader import Bundle, open_bundle

pytestmark = [
    pytest.mark.converts,
    pytest.mark.needs("mosquitto", "mosquitto"),
    pytest.mark.skipif(unavailable() is not None, reason=f"no memory limits: {unavailable()}"),
]
EXAMPLES = Path(__file__).parents[2] / "examples"


def converted(folder: Path, name: str, recipe: str) -> Bundle:
    """An example for the board."""
    example = EXAMPLES / name
    [data] = example.glob("calibration.*")
    (folder / "recipe.toml").write_text(f'name = "{recipe}"\n')
    source, forced = example / f"{name}.onnx", folder / "recipe.toml"
    convert(source, [PROFILE], folder / "bundle", data=data, recipe=forced)
    return open_bundle(folder / "bundle")


@pytest.mark.parametrize(
    ("name", "recipe"), [("digits", "int8-static"), ("intents", "int8-dynamic")]
)
def test_an_agent_with_a_small_model_stays_far_below_the_limit(tmp_path, name, recipe):
    found = stay(converted(tmp_path, name, recipe), called)
    assert 20 << 20 < found.peak < LIMIT / 2
    assert (found.hits, found.kills, found.swapped) == (0, 0, 0)


@pytest.mark.slow
def test_an_agent_answers_with_a_model_of_360_million_parameters():
    found = stay(open_bundle(assets.bundle("360m", RECIPE, profile=PROFILE)), answered)
    assert 200 << 20 < found.peak <= LIMIT
    assert found.resident < 384 << 20
    # Pages of files may have had to go; nothing else had to.
    assert (found.kills, found.swapped) == (0, 0)
