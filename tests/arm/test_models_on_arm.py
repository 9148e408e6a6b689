"""Bundles made here by ``edge-sdk convert`` run on the boards' cores, and say what they say here.

How near an answer must be is a fact about kernels, not a wish:

- Static int8: the very bits, on both engines, as far as a network is integers throughout.
- Dynamic int8: a scale is computed from float activations on every call. Where these differ in
  the last bit a code may fall to the other side, which moves a probability by thousandths.
- Float32: other orders of sums, so the last bits differ.
- int4 blocks: kernels differ by class of core (with dot product the activations are int8, else
  float32). Answers are compared, and the self-test compares logits within the record's tolerance.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.arm.boards import BOARDS
from tests.arm.converted import EXAMPLES, converted
from tests.arm.on_board import Answers, answer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.converts,
    pytest.mark.needs("qemu-aarch64-static", "qemu-user-static"),
]
DIALOGUE = 1  # of the held-out ones: a short answer


@dataclass(frozen=True)
class Case:
    """A model, the recipe that is forced, and how near its answers must be.

    Attributes:
        model: Name of the example.
        recipe: The candidate to ship.
        boards: Profile -> largest difference of a number from what this machine says.
    """

    model: str
    recipe: str
    boards: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        return f"{self.model}-{self.recipe}"


def on_arm64(tolerance: float) -> tuple[tuple[str, float], ...]:
    return ("board-512mb", tolerance), ("arm64", tolerance)


CASES = (
    Case("digits", "int8-static", on_arm64(0)),
    # Its last layer gives floats: its activations are quantized per call, on A53 as here.
    Case(
        "digits",
        "int8-static@litert",
        (("board-512mb", 0), ("arm64", 3e-3), ("armv7-512mb", 4e-2)),
    ),
    Case("intents", "int8-smooth", on_arm64(5e-3)),
    # The older library quantizes activations without a zero point.
    Case("intents", "int8-smooth@litert", (*on_arm64(5e-3), ("armv7-512mb", 1e-2))),
    Case("intents", "fp32@litert", (("armv7-512mb", 1e-5),)),
    Case("assistant", "int4-b32", on_arm64(0)),
)
EACH = [
    pytest.param(case, profile, tolerance, id=f"{case.name}-{profile}")
    for case in CASES
    for profile, tolerance in case.boards
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Callable[[Case], Path]:
    """Converts an example, once."""

    @cache
    def make(case: Case) -> Path:
        profiles = [profile for profile, _ in case.boards]
        return converted(tmp_path_factory.mktemp(case.name), case.model, profiles, case.recipe)

    return make


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Callable[[str], Path]:
    """What a model is asked: a part of its held-out data."""
    folder = tmp_path_factory.mktemp("questions")

    def make(model: str) -> Path:
        if model == "digits":
            images = np.load(EXAMPLES / "digits" / "heldout.npz")["image"][:32]
            np.savez(folder / "digits.npz", image=images)
            return folder / "digits.npz"
        lines = (EXAMPLES / model / "heldout.jsonl").read_text().splitlines()
        if model == "assistant":
            messages = json.loads(lines[DIALOGUE])["messages"][:-1]
            lines = [json.dumps({"messages": messages})]
        (folder / f"{model}.jsonl").write_text("\n".join(lines[:32]) + "\n")
        return folder / f"{model}.jsonl"

    return make


@pytest.mark.parametrize(("case", "profile", "tolerance"), EACH)
def test_a_board_answers_as_this_machine_does(
    board, bundle, questions, tmp_path, case, profile, tolerance
):
    here = board(BOARDS[profile])
    asked = questions(case.model)
    # Without a profile: the one that fits the core is chosen.
    here.run("-m", "tests.arm.on_board", bundle(case), "auto", asked, tmp_path / "answers.json")
    found = msgspec.json.decode((tmp_path / "answers.json").read_bytes(), type=Answers)
    expected = answer(bundle(case), profile, asked)

    assert found.profile == profile
    assert found.cases >= 1
    assert found.share < 1
    assert found.recipe.startswith(case.recipe.partition("@")[0])
    assert found.engine == (case.recipe.partition("@")[2] or "onnx")
    assert found.texts == expected.texts
    assert found.arrays.keys() == expected.arrays.keys()
    for name, rows in found.arrays.items():
        here_rows, there = np.array(expected.arrays[name]), np.array(rows)
        assert np.abs(here_rows - there).max() <= tolerance
        assert np.array_equal(here_rows.argmax(axis=1), there.argmax(axis=1))
