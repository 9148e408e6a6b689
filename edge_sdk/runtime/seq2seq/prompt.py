"""What an output begins with: start token, and language and task where a model is told them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_sdk.bundle.record import Decoding
from edge_sdk.errors import InputError
from edge_sdk.runtime.generation.sampling import likeliest
from edge_sdk.runtime.seq2seq.network import Output


@dataclass(frozen=True)
class Start:
    """What an output begins with.

    Attributes:
        tokens: All of it.
        languages: Where not empty, the likeliest of these tokens takes the second place.
    """

    tokens: tuple[int, ...]
    languages: tuple[int, ...] = ()


def start_of(decoding: Decoding, language: str | None = None, task: str | None = None) -> Start:
    """The beginning for a language and task.

    Args:
        decoding: How the model writes.
        language: The input's; the likeliest where ``None``.
        task: The first that the model knows where ``None``.

    Raises:
        InputError: The model is not told such things, or knows no such language or task.
    """
    if not decoding.languages:
        for where, given in (("language", language), ("task", task)):
            if given is not None:
                raise InputError("this model is not told any", where=where, remedy="leave it out")
        return Start(decoding.start)
    spoken = _one_of(decoding.languages, language, "language")
    tasks = (_one_of(decoding.tasks, task, "task"),) if decoding.tasks else ()
    tokens = (*decoding.start, spoken, *tasks, *decoding.end_of_start)
    return Start(tokens, () if language else tuple(decoding.languages.values()))


def begin(output: Output, start: Start) -> tuple[int, ...]:
    """Writes the beginning; what it is, with the language that was found."""
    tokens = start.tokens
    if start.languages:
        scores = output.append(tokens[:1])[-1][list(start.languages)]
        tokens = (tokens[0], start.languages[likeliest(scores)], *tokens[2:])
    output.append(tokens[output.length :])
    return tokens


def _one_of(table: Mapping[str, int], name: str | None, where: str) -> int:
    if name is None:
        return next(iter(table.values()))
    if name not in table:
        raise InputError(
            f"{name!r} is none that the model knows",
            where=where,
            remedy=f"give one of: {', '.join(sorted(table))}",
        )
    return table[name]
