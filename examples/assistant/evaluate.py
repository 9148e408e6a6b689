"""Ask a bundle of the assistant everything that was held out, and count the right answers.

From the repository root, after converting ``examples/assistant/model``:

    python -m examples.assistant.evaluate assistant.bundle
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import edge_sdk
from edge_sdk.runtime.model import Model

Message = dict[str, str]
HELDOUT = Path(__file__).with_name("heldout.jsonl")


@dataclass(frozen=True)
class Tried:
    """One answer of the model beside the right one."""

    question: str
    said: str
    expected: str

    @property
    def is_right(self) -> bool:
        """Whether every character is."""
        return self.said == self.expected


def read_dialogues(path: Path = HELDOUT) -> Iterator[list[Message]]:
    """The dialogues of a ``.jsonl`` file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["messages"]


def answers(
    model: Model, dialogues: Iterable[list[Message]], adapter: str | None = None
) -> Iterator[Tried]:
    """Every answer, generated greedily after the true dialogue so far."""
    for messages in dialogues:
        for at, message in enumerate(messages):
            if message["role"] == "assistant":
                said = model.generate(messages[:at], temperature=0.0, adapter=adapter).read()
                yield Tried(messages[at - 1]["content"], said, message["content"])


def main() -> None:
    """Print the wrong answers and the share of right ones."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--dialogues", type=int, help="only the first so many")
    parser.add_argument("--profile", default="auto")
    arguments = parser.parse_args()
    model = edge_sdk.load(arguments.bundle, profile=arguments.profile)
    tried = list(answers(model, islice(read_dialogues(), arguments.dialogues)))
    for one in tried:
        if not one.is_right:
            print(f"{one.question!r} -> {one.said!r}, not {one.expected!r}")
    right = sum(one.is_right for one in tried)
    print(f"{right} of {len(tried)} right: {right / len(tried):.1%}")


if __name__ == "__main__":
    main()
