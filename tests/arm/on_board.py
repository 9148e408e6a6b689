"""What a board is asked, there and here: ``on_board.py BUNDLE PROFILE QUESTIONS ANSWERS``.

Loads a variant, runs its self-test and answers questions: an ``.npz`` of samples, or a
``.jsonl`` of texts to classify or of dialogues to go on with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import edge_sdk
from edge_sdk import Model


class Answers(msgspec.Struct, kw_only=True):
    """What a variant said.

    Attributes:
        profile: The variant's.
        engine: Its engine.
        recipe: How it was made.
        cases: Golden cases of its self-test.
        share: Worst deviation in it, as a share of what is tolerated.
        notes: Where this machine differs from what the variant asks for.
        arrays: Outputs by name, a row per sample.
        texts: Ends of the dialogues.
    """

    profile: str
    engine: str
    recipe: str
    cases: int
    share: float
    notes: list[str]
    arrays: dict[str, list[Any]]
    texts: list[str]


def answer(bundle: Path, profile: str, questions: Path) -> Answers:
    """Asks a variant of a bundle."""
    with edge_sdk.load(bundle, profile) as model:
        tested = model.self_test()
        arrays, texts = _asked(model, questions)
        return Answers(
            profile=model.record.profile,
            engine=model.record.engine.name,
            recipe=model.record.recipe.name,
            cases=tested.cases,
            share=tested.worst.share if tested.worst else 0.0,
            notes=list(model.notes),
            arrays=arrays,
            texts=texts,
        )


def _asked(model: Model, questions: Path) -> tuple[dict[str, list[Any]], list[str]]:
    if questions.suffix == ".npz":
        samples = dict(np.load(questions))
        rows = [
            model.run({name: array[row : row + 1] for name, array in samples.items()})
            for row in range(len(next(iter(samples.values()))))
        ]
        return {name: [row[name][0].tolist() for row in rows] for name in rows[0]}, []
    asked = [json.loads(line) for line in questions.read_text().splitlines()]
    if "text" in asked[0]:
        ranked = model.classify([each["text"] for each in asked], top=len(model.labels))
        scores = [{found.label: found.score for found in each} for each in ranked]
        return {"scores": [[each[label] for label in model.labels] for each in scores]}, []
    answers = (model.generate(each["messages"], temperature=0) for each in asked)
    return {}, ["".join(parts) for parts in answers]


if __name__ == "__main__":
    given, name, question, answers = sys.argv[1:]
    Path(answers).write_bytes(msgspec.json.encode(answer(Path(given), name, Path(question))))
