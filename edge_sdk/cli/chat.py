"""``edge-sdk chat``: a conversation with a dialogue model, in the terminal or through a pipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_sdk.cli import generation
from edge_sdk.cli.arguments import thread_count
from edge_sdk.cli.output import note
from edge_sdk.errors import DataError, InputError

if TYPE_CHECKING:
    from edge_sdk.runtime.generation.chat_template import Message
    from edge_sdk.runtime.generation.completion import Completion
    from edge_sdk.runtime.model import Model

HELP = """\
/reset         forget the conversation, keep the instructions
/system TEXT   other instructions from now on; without TEXT, none
/adapter NAME  another LoRA adapter of the bundle; without NAME, none
/stats         what the last answer took, and how full the context is
/help          this list
/quit          leave, as Ctrl-D does

Ctrl-C ends an answer; what was said of it stays part of the conversation.
A message that begins with a slash needs a space before it.
"""
EPILOG = f"""\
examples:
  edge-sdk chat assistant.bundle
  edge-sdk chat assistant.bundle --system "You answer in one sentence." --temperature 0.7
  printf 'Hello\\nWhat did I say?\\n' | edge-sdk chat assistant.bundle

in the conversation:
{"".join(f"  {line}" for line in HELP.splitlines(keepends=True) if line.strip())}
When the context is nearly full, the oldest turns are forgotten, with a notice. Answers go
to stdout, everything else to stderr. One answer to a script: edge-sdk run --prompt.
"""
# Forgetting makes the model read again what is left, so it happens rarely and then thoroughly:
# a conversation beyond the first share of the context is cut to the second.
FULL, CUT = 0.75, 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = EPILOG
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="bundle, or STORE#name:version")
    parser.add_argument("--profile", default="auto", help="variant (default: this machine's)")
    parser.add_argument("--threads", type=thread_count, help="threads (default: the profile's)")
    parser.add_argument("--memory-limit", metavar="SIZE", help="refuse to exceed it, as in 256MiB")
    generation.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Answers line by line until the input ends."""
    from edge_sdk.runtime.opening import load

    generation.tolerate_any_encoding()
    system = generation.instructions(args.system)
    model = load(
        args.bundle,
        args.profile,
        args.memory_limit,
        context=args.context,
        streams=1,
        threads=args.threads,
    )
    chat = Chat(model, system, generation.settings(args))
    for line in model.notes:
        note(line)
    if sys.stdin.isatty():
        named = f"{model.record.name} {model.record.version}"
        note(f"{named}, context {model.context} tokens; /help lists the commands")
    for line in _lines():
        if line.strip() == "/quit":
            break
        if line.startswith("/"):
            chat.command(line)
        elif line.strip():
            chat.say(line)
    return 0


class Chat:
    """One conversation.

    Args:
        model: Answers.
        system: What the conversation begins with: one message or none.
        settings: Keyword arguments of :meth:`edge_sdk.Model.generate`.

    Raises:
        InputError: The model is no dialogue model.
    """

    def __init__(self, model: Model, system: list[Message], settings: dict[str, Any]) -> None:
        self._model = model
        self._context = model.context
        self._settings = dict(settings)
        self._system = system
        self._turns: list[Message] = []
        self._last: Completion | None = None

    def say(self, text: str) -> None:
        """Answers a message; an answer that cannot begin leaves the conversation as it was.

        Raises:
            EngineError: The engine failed.
        """
        from edge_sdk.runtime.generation.chat_template import Message

        try:
            turns = [*self._turns, Message("user", text)]
            completion, kept = self._begin(turns)
        except InputError as error:
            note(str(error))
            return
        if len(kept) < len(turns):
            note(f"(forgot the oldest {len(turns) - len(kept)} turns: the context is full)")
        with completion:
            generation.show(completion)
        self._last = completion
        self._turns = [*kept, Message("assistant", completion.text)]
        if self._used >= self._context:
            note("(the answer ends here: the context is full)")

    def command(self, line: str) -> None:
        """Runs one of the commands that begin with a slash."""
        name, _, rest = line[1:].strip().partition(" ")
        commands: dict[str, Callable[[str], None]] = {
            "reset": self._reset,
            "system": self._instruct,
            "adapter": self._adapt,
            "stats": self._show_stats,
            "help": lambda _: note(HELP),
        }
        if name in commands:
            commands[name](rest.strip())
        else:
            note(f"no command /{name}; /help lists them")

    def _begin(self, turns: list[Message]) -> tuple[Completion, list[Message]]:
        """Begins an answer to as many of the last turns as fit; says which."""
        most = int(FULL * self._context)
        while True:
            try:
                completion = self._model.generate([*self._system, *turns], **self._settings)
                if len(turns) == 1 or completion.stats.prompt_tokens <= most:
                    return completion, turns
                completion.close()
            except DataError:
                if len(turns) == 1:
                    raise
            most = int(CUT * self._context)
            turns = turns[2:]  # a question and its answer

    @property
    def _used(self) -> int:
        """Tokens of the context that the conversation takes."""
        if self._last is None:
            return 0
        return self._last.stats.prompt_tokens + self._last.stats.new_tokens

    def _reset(self, _: str) -> None:
        self._turns, self._last = [], None
        note("(forgot the conversation)")

    def _instruct(self, text: str) -> None:
        self._system = generation.instructions(text)
        note("(new instructions)" if text else "(no instructions)")

    def _adapt(self, name: str) -> None:
        known = [adapter.name for adapter in self._model.record.adapters]
        if name and name not in known:
            note(f"no adapter {name}; there are: {', '.join(known) or 'none'}")
            return
        self._settings["adapter"] = name or None
        note(f"(adapter {name})" if name else "(no adapter)")

    def _show_stats(self, _: str) -> None:
        if self._last is not None:
            note(generation.figures(self._last))
        note(f"context: {self._used} of {self._context} tokens")


def _lines() -> Iterator[str]:
    """The user's lines; in a terminal with a prompt, line editing and history."""
    terminal = sys.stdin.isatty()
    if terminal:
        with suppress(ImportError):
            import readline  # noqa: F401 - input() edits lines with it
    while True:
        try:
            line = input("> " if terminal else "")
        except EOFError:
            if terminal:
                print()
            return
        except KeyboardInterrupt:
            if not terminal:
                raise
            note("\n(/quit or Ctrl-D leaves)")
            continue
        yield line
