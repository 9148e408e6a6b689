"""``run --text``, ``--image`` and ``--audio``: the task that the variant is made for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edge_sdk.cli.output import table
from edge_sdk.errors import InputError
from edge_sdk.runtime.tasks.results import Answer, Classification, Entity, Filling, Word

if TYPE_CHECKING:
    from edge_sdk.runtime.model import Model

TEXT_TASKS = ("tag", "fill", "classify", "embed")  # the first that the variant is made for


def check(args: argparse.Namespace) -> None:
    """Refuses options that do not belong together.

    Raises:
        InputError: They do not.
    """
    if args.question is not None and args.text is None:
        raise InputError("--question needs --text, the text that the answer stands in")
    if args.language is not None and args.audio is None:
        raise InputError("--language needs --audio")


def run_task(model: Model, args: argparse.Namespace) -> dict[str, Any]:
    """Runs the task and returns the fields of the result that it fills.

    Raises:
        InputError: The variant is not made for it.
    """
    if args.image is not None:
        return {"classes": tuple(model.classify(args.image, args.top)[0])}
    if args.audio is not None:
        return _hear(model, args)
    if args.question is not None:
        return {"answers": tuple(model.answer(args.question, args.text, args.top))}
    task = next((task for task in TEXT_TASKS if task in model.tasks), TEXT_TASKS[-1])
    if task == "tag":
        return {"entities": tuple(model.tag(args.text)[0])}
    if task == "fill":
        return {"fillings": tuple(map(tuple, model.fill(args.text, args.top)))}
    if task == "classify":
        return {"classes": tuple(model.classify(args.text, args.top)[0])}
    return {"embedding": tuple(model.embed(args.text)[0].tolist())}


def _hear(model: Model, args: argparse.Namespace) -> dict[str, Any]:
    if "classify" in model.tasks:
        return {"classes": tuple(model.classify(args.audio, args.top)[0])}
    found = model.transcribe(args.audio, language=args.language)
    return {"text": found.text, "words": found.words}


def classes_table(classes: Sequence[Classification]) -> str:
    """Classes for people."""
    return table(("label", "score"), [(c.label, f"{c.score:.4f}") for c in classes])


def entities_table(entities: Sequence[Entity]) -> str:
    """Entities for people."""
    rows = [(e.label, f"{e.score:.4f}", f"{e.start}-{e.end}", e.text) for e in entities]
    return table(("label", "score", "characters", "text"), rows)


def answers_table(answers: Sequence[Answer]) -> str:
    """Answers for people; no answer is a dash."""
    rows = [(f"{a.score:.4f}", f"{a.start}-{a.end}", a.text or "-") for a in answers]
    return table(("score", "characters", "answer"), rows)


def fillings_table(gaps: Sequence[Sequence[Filling]]) -> str:
    """What may stand in each gap, for people."""
    rows = [
        (str(number), f"{one.score:.4f}", one.text)
        for number, gap in enumerate(gaps, start=1)
        for one in gap
    ]
    return table(("gap", "score", "text"), rows)


def words_table(words: Sequence[Word]) -> str:
    """Words in time, for people."""
    rows = [(f"{word.start:.2f}", f"{word.end:.2f}", word.text) for word in words]
    return table(("from s", "to s", "word"), rows)
