"""Prompts to tokens: a conversation through the chat template, a text or tokens as they are.

What is said in a conversation is text, whatever it looks like. A special token's name
within a message stays its letters, so that nobody ends his turn and goes on as the system.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import msgspec

from edge_sdk.bundle.record import Generation
from edge_sdk.errors import DataError
from edge_sdk.runtime.generation.chat_template import PLAIN_STOP, Message, render

if TYPE_CHECKING:
    from edge_sdk.runtime.tokenizer import Tokenizer

# Arrays are for encoder-decoder models; others refuse them.
Prompt = str | Sequence[Message | Mapping[str, str]] | Sequence[int] | Mapping[str, Any]
# A private character that parts the letters of a special token's name until they are encoded.
BREAK = "\ue000"


@dataclass(frozen=True)
class Encoded:
    """A prompt in tokens.

    Attributes:
        tokens: The prompt.
        answers: Whether what follows is a text of its own, and does not continue the prompt's.
        stop: Strings that end what follows.
    """

    tokens: tuple[int, ...]
    answers: bool = False
    stop: tuple[str, ...] = ()


class PromptEncoder:
    """Encodes prompts for one model. Safe to use from several threads.

    Args:
        generation: The model's template, special tokens and vocabulary.
        tokenizer: Its tokenizer.
    """

    def __init__(self, generation: Generation, tokenizer: Tokenizer) -> None:
        self._generation = generation
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values()
        self._special = tuple(entry.content for entry in added if entry.special)

    def encode(self, prompt: Prompt, raw: bool = False) -> Encoded:
        """The tokens of a prompt.

        Args:
            prompt: What a user says, a conversation, or tokens.
            raw: Whether a text is taken as it is, and not as a user's turn.

        Raises:
            DataError: It is empty, no text, no message or no token of the model.
        """
        if not isinstance(prompt, Iterable):
            raise _no_message(f"{prompt!r}")
        turns = self._turns(prompt, raw)
        if turns:
            encoded = self._conversation(turns)
        elif isinstance(prompt, str):
            encoded = Encoded((*self._begin, *self.text(prompt)))
        else:
            encoded = Encoded(tuple(int(token) for token in prompt if isinstance(token, Integral)))
        if not encoded.tokens:
            raise DataError("the prompt is empty", where="prompt")
        check_tokens(encoded.tokens, self._generation.vocab)  # tokenizers may know more of them
        return encoded

    def text(self, text: str) -> list[int]:
        """The tokens of a text, nothing added.

        Raises:
            DataError: It holds half a character, as Python makes of bytes that are no UTF-8.
        """
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            raise DataError("is not UTF-8", where="prompt") from error
        return ids

    def _turns(self, prompt: Prompt, raw: bool) -> list[Message]:
        """The conversation that a prompt is; empty where it is a text or tokens to continue."""
        if isinstance(prompt, str):
            talks = self._generation.chat_template and not raw
            return [Message("user", prompt)] if talks else []
        return [] if all(isinstance(item, Integral) for item in prompt) else _messages(prompt)

    def _conversation(self, turns: Sequence[Message]) -> Encoded:
        text = render(self._generation, [self._as_text(turn) for turn in turns])
        tokens = [token for part in text.split(BREAK) for token in self.text(part)]
        if self._generation.chat_template:  # which writes by itself what a text begins with
            return Encoded(tuple(tokens), answers=True)
        return Encoded((*self._begin, *tokens), answers=True, stop=(PLAIN_STOP,))

    def _as_text(self, turn: Message) -> Message:
        role, content = turn.role, turn.content
        for name in self._special:
            parted = name[:1] + BREAK + name[1:]
            role, content = role.replace(name, parted), content.replace(name, parted)
        return Message(role, content)

    @property
    def _begin(self) -> Iterator[int]:
        """What a text begins with."""
        if self._generation.add_bos and self._generation.bos is not None:
            yield self._generation.bos


def check_tokens(tokens: Sequence[int], vocab: int) -> None:
    """Checks that each token is one.

    Raises:
        DataError: One is not a whole number from 0 to ``vocab - 1``.
    """
    for token in tokens:
        if not (isinstance(token, Integral) and 0 <= token < vocab):
            raise DataError(f"{token} is no token; they run from 0 to {vocab - 1}", where="tokens")


def _messages(prompt: Iterable[Any]) -> list[Message]:
    try:
        return [
            item if isinstance(item, Message) else msgspec.convert(item, Message) for item in prompt
        ]
    except msgspec.ValidationError as error:
        raise _no_message(str(error)) from error


def _no_message(what: str) -> DataError:
    return DataError(
        f"not a message: {what}",
        where="prompt",
        remedy='give a text, or messages such as {"role": "user", "content": "…"}',
    )
