"""``edge-sdk chat`` as a process: through a pipe and in a terminal, over a tiny decoder."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import edge_sdk
from edge_sdk.runtime.generation.chat_template import Message
from tests.cli.conftest import COMMAND
from tests.generation import tiny
from tests.generation.endless import endless
from tests.runtime.bundles import linear

# The likeliest answers of random weights are the same to everything.
DRAWN: dict[str, Any] = {"max_new_tokens": 6, "temperature": 1.0, "seed": 3}
GREEDY = ("--temperature", "0")
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in DRAWN.items()]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny.bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@dataclass
class Said:
    """What a conversation through a pipe came to."""

    code: int
    answers: str
    notes: str


def chat(bundle: Path, text: str, *options: str) -> Said:
    """Talks through a pipe."""
    done = subprocess.run(
        [*COMMAND, "chat", bundle, *OPTIONS, *options],
        input=text.encode(errors="surrogateescape"),
        capture_output=True,
        timeout=120,
    )
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


def answers(bundle: Path, *said: str, system: str | None = None) -> list[str]:
    """What the model itself answers in one conversation."""
    model = edge_sdk.load(bundle, streams=1)
    turns = [Message("system", system)] if system else []
    for text in said:
        turns.append(Message("user", text))
        turns.append(Message("assistant", model.generate(turns, **DRAWN).read()))
    return [turn.content for turn in turns if turn.role == "assistant"]


def lines(*texts: str) -> str:
    return "".join(text + "\n" for text in texts)


def test_every_line_is_answered_with_what_was_said_before(bundle):
    done = chat(bundle, lines("hi", "", "you"))
    assert (done.code, done.answers) == (0, lines(*answers(bundle, "hi", "you")))
    assert answers(bundle, "hi", "you")[1] != answers(bundle, "you")[0]


def test_reset_forgets_what_was_said_and_keeps_the_instructions(bundle):
    done = chat(bundle, lines("a", "/reset", "a"), "--system", "S")
    [first] = answers(bundle, "a", system="S")
    assert done.answers == lines(first, first)
    assert "(forgot the conversation)" in done.notes
    assert first != answers(bundle, "a")[0]


def test_system_changes_the_instructions(bundle):
    done = chat(bundle, lines("/system Be kind.", "a", "/reset", "/system", "a"))
    [kind], [plain] = answers(bundle, "a", system="Be kind."), answers(bundle, "a")
    assert done.answers == lines(kind, plain)
    assert kind != plain


def test_adapter_is_another_persona_in_the_same_conversation(tmp_path):
    files = {"pirate": tiny.adapter(0)}
    bundle = tiny.bundle(tmp_path / "b", adapters=files)
    model = edge_sdk.load(bundle, streams=1)
    [plain] = answers(bundle, "hi")
    pirate = model.generate("hi", adapter="pirate", **DRAWN).read()
    assert pirate != plain
    script = lines("/adapter parrot", "/adapter pirate", "hi", "/reset", "/adapter", "hi")
    done = chat(bundle, script)
    assert done.answers == lines(pirate, plain)
    assert "no adapter parrot; there are: pirate" in done.notes


def test_stats_tell_what_the_last_answer_took(bundle):
    done = chat(bundle, lines("/stats", "hi", "/stats", "you", "/stats"), *GREEDY)
    found = done.notes.splitlines()
    assert "context: 0 of 128 tokens" in found
    assert "context: 27 of 128 tokens" in found
    first, second = (line for line in found if line.startswith("prompt "))
    figures = r"prompt (\d+) tokens \((\d+) cached\), answer 6 tokens, first after [\d.]+ ms, "
    assert re.match(figures + r"[\d.]+ tokens/s; ended by its length", first).groups() == (
        "21",
        "0",
    )
    assert int(re.match(figures, second)[2]) >= 21


def test_help_unknown_commands_and_text_that_begins_with_a_slash(bundle):
    done = chat(bundle, lines("/help", "/halp", " /help"))
    assert done.answers == lines(*answers(bundle, " /help"))
    assert "/system TEXT" in done.notes
    assert "no command /halp; /help lists them" in done.notes


def test_quit_leaves_at_once(bundle):
    done = chat(bundle, lines("/quit", "hi"))
    assert (done.code, done.answers) == (0, "")


def test_oldest_turns_are_forgotten_when_the_context_fills(bundle):
    done = chat(bundle, lines("one", "two", "three", "/stats", "four", "/stats"), *GREEDY)
    assert (done.code, done.answers.count("\n")) == (0, 4)
    assert done.notes.count("(forgot") == 1
    assert "(forgot the oldest 4 turns: the context is full)" in done.notes
    before, after = map(int, re.findall(r"prompt (\d+) tokens", done.notes))
    # "three", its answer of six characters and "four" are left of it.
    frame = len("<user\n>\n")
    assert after == len("three") + len("four") + 6 + 2 * frame + 2 * len("<assistant\n") + 2
    assert before + frame + 6 + len("<assistant\n>\nfour") > 0.75 * 128


def test_message_that_cannot_fit_is_refused_and_the_conversation_goes_on(bundle):
    done = chat(bundle, lines("hi", "x" * 300, "you"))
    assert done.answers == lines(*answers(bundle, "hi", "you"))
    assert "tokens; the context of 128 must hold it and an answer" in done.notes


def test_answer_that_fills_the_context_says_so(bundle):
    done = chat(bundle, lines("x" * 90), "--max-new-tokens", "100")
    assert "(the answer ends here: the context is full)" in done.notes


def test_messages_the_template_refuses_leave_the_conversation_as_it_was(tmp_path):
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('No orders!') }}{% endif %}"
    generation = replace(tiny.GENERATION, chat_template=strict + tiny.TEMPLATE)
    bundle = tiny.bundle(tmp_path / "strict", generation=generation)
    done = chat(bundle, lines("hi", "/system S", "hi", "/system", "you"))
    assert done.answers == lines(*answers(bundle, "hi", "you"))
    assert done.notes.count("refuses these messages: No orders!") == 1


def test_model_without_a_template_gets_paragraphs(tmp_path):
    generation = replace(tiny.GENERATION, chat_template="")
    bundle = tiny.bundle(tmp_path / "plain", generation=generation)
    done = chat(bundle, lines("hi", "/stats"))
    assert done.answers == lines(*answers(bundle, "hi"))
    assert f"prompt {len('User: hi') + len('  Assistant:')} tokens" in done.notes


def test_bytes_that_are_no_text_are_refused(bundle):
    done = chat(bundle, "\udcff\nhi\n")
    assert done.answers == lines(*answers(bundle, "hi"))
    assert "prompt: is not UTF-8" in done.notes


def test_model_that_generates_nothing_is_bad_input(tmp_path):
    done = chat(linear(tmp_path / "bundle"), lines("hi"), "--profile", "here")
    assert done.code == 2
    assert "does not generate text" in done.notes


class Terminal:
    """``edge-sdk chat`` in a terminal of its own."""

    def __init__(self, *command: object) -> None:
        self._here, there = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, command)],
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # Ctrl-C becomes a signal
            env=environment,
        )
        os.close(there)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._here, text.encode())

    def until(self, pattern: str, seconds: float = 60) -> str:
        """Reads until the pattern comes; returns and drops what came up to its end."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self._here], [], [], left)[0], self.shown[-500:]
            self.shown += os.read(self._here, 65536).decode(errors="replace").replace("\r", "")
        said, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return said

    def interrupt_until(self, pattern: str) -> str:
        """Presses Ctrl-C until the pattern comes.

        Python's readline waits for keys without looking for signals that came just before: such
        a Ctrl-C takes effect with the next key.
        """
        for _ in range(60):
            self.type("\x03")
            with suppress(AssertionError):
                return self.until(pattern, seconds=1)
        raise AssertionError(self.shown[-500:])

    def close(self) -> int:
        self.process.kill()
        os.close(self._here)
        return self.process.wait()


@pytest.fixture
def terminal():
    opened = []

    def open_terminal(*command: object) -> Terminal:
        opened.append(Terminal("chat", *command))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


def test_terminal_has_a_prompt_and_line_editing(bundle, terminal):
    session = terminal(bundle, *OPTIONS, *GREEDY)
    assert "tiny 1.0.0, context 128 tokens; /help" in session.until("> ")
    session.type("hx\x7fi\n/stats\n")
    assert f"prompt {len('<user.hi>.<assistant.')} tokens" in session.until("context: .*\n> ")
    session.type("\x04")
    assert session.process.wait(timeout=60) == 0


def test_ctrl_c_at_the_prompt_stays_in_the_conversation(bundle, terminal):
    session = terminal(bundle, *OPTIONS)
    session.until("> ")
    session.type("half a line")
    session.until("half a line")
    session.interrupt_until("leaves.*\n> ")
    session.type("/quit\n")
    assert session.process.wait(timeout=60) == 0


def test_ctrl_c_ends_an_answer_that_stays_in_the_conversation(tmp_path, terminal):
    session = terminal(endless(tmp_path / "endless"), *GREEDY)
    session.until("> ")
    session.type("hi\n")
    session.until("hi\n.{20}")
    session.type("\x03")
    session.until("\n> ")
    session.type("/stats\n")
    said = session.until("context: .*")
    assert "interrupted" in said
    prompt, new = map(int, re.search(r"prompt (\d+) .* answer (\d+)", said).groups())
    assert new > 0
    session.type("you\n")
    session.until("you\n.{20}")
    session.type("\x03")
    session.until("\n> ")
    session.type("/stats\n")
    again = int(re.search(r"prompt (\d+)", session.until("context: .*"))[1])
    assert again > prompt + new
    session.process.send_signal(signal.SIGTERM)
    assert session.process.wait(timeout=60) == 128 + signal.SIGTERM


def test_terminal_is_not_controlled_by_what_the_model_says(tmp_path, terminal):
    session = terminal(tiny.bundle(tmp_path / "bundle"), "--temperature", "3", "--seed", "1")
    session.until("> ")
    session.type("hi\n")
    said = session.until("\n> $")
    assert "\ufffd" in said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said)
