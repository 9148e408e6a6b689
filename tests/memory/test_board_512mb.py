"""512 MB for real: an agent and its model in a control group of that size, without swap.

Broker and server are real, and outside. The agent downloads, verifies, prepares and serves.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="the cloud's side needs the extra [fleet]")

from benchmarks.board512 import LIMIT, PROFILE, answered, board, called, stay
from benchmarks.cgroup import unavailable
from benchmarks.fleet import cloud
from benchmarks.llm import assets
from benchmarks.llm.memory import RECIPE
from converters import convert
from device_profiles.loader import profile_path
from edge_sdk.bundle.reader import Bundle, open_bundle
from tests.cli.conftest import edge_sdk

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
def test_a_board_measures_the_finalists_of_a_conversion_within_its_limit(tmp_path):
    lean = tmp_path / "lean.toml"
    text = profile_path(PROFILE).read_text().replace(f'name = "{PROFILE}"', 'name = "lean"', 1)
    lean.write_text(re.sub(r"recipes = \[.*\]", 'recipes = ["int8-static"]', text))
    digits = EXAMPLES / "digits"
    with cloud.cloud() as here, board(here) as (_, group):
        done = edge_sdk(
            "convert", digits / "digits.onnx", "-o", tmp_path / "bundle", "-p", lean,
            "--data", digits / "calibration.npz", "--on", "thing:board", "--server", here.http,
            "--json",
        )  # fmt: skip
        found = group.peak, group.kills, group.swapped
    assert done.returncode == 0, done.stderr
    [variant] = json.loads(done.stdout)["variants"]
    rows = [row for row in variant["report"]["candidates"] if row.get("device")]
    assert {variant["report"]["chosen"], "source"} <= {row["name"] for row in rows}
    assert found[0] < LIMIT
    assert found[1:] == (0, 0)


@pytest.mark.slow
def test_an_agent_answers_with_a_model_of_360_million_parameters():
    found = stay(open_bundle(assets.bundle("360m", RECIPE, profile=PROFILE)), answered)
    assert 200 << 20 < found.peak <= LIMIT
    assert found.resident < 384 << 20
    # Pages of files may have had to go; nothing else had to.
    assert (found.kills, found.swapped) == (0, 0)
