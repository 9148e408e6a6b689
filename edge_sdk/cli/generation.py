"""What ``run --prompt`` and ``chat`` share: options, streaming to the terminal, figures."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

    from edge_sdk.runtime.generation.chat_template import Message
    from edge_sdk.runtime.generation.completion import Completion

INTERRUPTED = 130  # exit code, as a shell has it for Ctrl-C
_ENDINGS = {
    "stop": "the model ended it",
    "length": "ended by its length",
    "cancelled": "interrupted",
}
# A model may be made to say what moves the cursor, sets the title or answers for the user.
_HARMLESS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}
# Options that go to Model.generate by their own names.
_SETTINGS = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "stop",
    "adapter",
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declares the options of generation."""
    group = parser.add_argument_group("generation", "What is left out is as the model's maker set.")
    group.add_argument("--system", metavar="TEXT", help="instructions before the conversation")
    group.add_argument("--max-new-tokens", metavar="N", type=int, help="most tokens of an answer")
    group.add_argument(
        "--temperature", metavar="T", type=float, help="0 takes the likeliest token, 1 draws freely"
    )
    group.add_argument("--top-k", metavar="K", type=int, help="draw from the K likeliest tokens")
    group.add_argument(
        "--top-p", metavar="P", type=float, help="draw from the likeliest tokens, P in sum"
    )
    group.add_argument(
        "--min-p", metavar="P", type=float, help="no token below P times the likeliest"
    )
    group.add_argument(
        "--repetition-penalty", metavar="R", type=float, help="above 1 avoids tokens seen before"
    )
    group.add_argument("--seed", metavar="N", type=int, help="the same draws every time")
    group.add_argument(
        "--stop", metavar="TEXT", action="append", default=[], help="ends the answer; repeatable"
    )
    group.add_argument("--adapter", metavar="NAME", help="a LoRA adapter of the bundle")
    group.add_argument(
        "--context",
        metavar="N",
        type=int,
        help="tokens of prompt and answer that memory is kept for",
    )


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options as keyword arguments of :meth:`edge_sdk.Model.generate`."""
    return {name: getattr(args, name) for name in _SETTINGS}


def read_prompt(given: str) -> str:
    """The prompt: as given, or all of stdin for ``-``."""
    tolerate_any_encoding()
    return sys.stdin.read().removesuffix("\n") if given == "-" else given


def instructions(system: str | None) -> list[Message]:
    """What a conversation begins with."""
    from edge_sdk.runtime.generation.chat_template import Message

    return [Message("system", system)] if system else []


def show(completion: Completion, silent: bool = False) -> bool:
    """Prints an answer as it comes, and ends its line.

    Returns:
        Whether it came to its end; Ctrl-C cuts it short.
    """
    harmless = _HARMLESS if sys.stdout.isatty() else {}
    with _cancelled_by_ctrl_c(completion) as interrupted:
        for piece in completion:
            if not silent:
                print(piece.translate(harmless), end="", flush=True)
    if not silent and not completion.text.endswith("\n"):
        print(flush=True)
    return not interrupted.is_set()


@contextmanager
def _cancelled_by_ctrl_c(completion: Completion) -> Iterator[threading.Event]:
    """Makes Ctrl-C end the completion within a token, rather than this thread anywhere."""
    interrupted = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        # From a thread of its own: this one may be in the middle of what cancelling changes.
        threading.Thread(target=completion.cancel).start()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def tolerate_any_encoding() -> None:
    """Shows a substitute for what the terminal lacks; the tokenizer judges what it sends."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "replace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def figures(completion: Completion) -> str:
    """What an answer took, in one line."""
    stats = completion.stats
    parts = [
        f"prompt {stats.prompt_tokens} tokens ({stats.cached_tokens} cached)",
        f"answer {stats.new_tokens} tokens",
    ]
    if stats.ttft_ms is not None:
        parts.append(f"first after {stats.ttft_ms:.1f} ms")
    if stats.tokens_per_second is not None:
        parts.append(f"{stats.tokens_per_second:.1f} tokens/s")
    return f"{', '.join(parts)}; {_ENDINGS[completion.finish_reason or 'cancelled']}"
