"""Messages to one prompt, by the model's own chat template.

A template is Jinja as models ship it in ``tokenizer_config.json``. It is a program by
whoever made the model, so it runs in Jinja's sandbox, without the attributes that lead
out of it, and with bounds on what it repeats and writes. The bounds stop accidents and
plain mischief; what vouches for a template is the signature of its bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from edge_sdk.bundle.record import Generation
from edge_sdk.errors import BundleError, DataError

if TYPE_CHECKING:
    from jinja2 import Template

WHERE = "chat template"
# Where a model that has no template begins to speak for the user, its answer is over.
PLAIN_STOP = "\nUser:"
# What a template may write beside the messages, each of which it may repeat a few times.
MOST_OWN_TEXT = 1 << 16
MOST_REPETITIONS = 4


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        content: What was said.
    """

    role: str
    content: str


def render(generation: Generation, messages: Sequence[Message], *, answer: bool = True) -> str:
    """The prompt for a conversation.

    A model without a template gets plain paragraphs: ``User: …`` and ``Assistant: …``,
    what the system says without a name.

    Args:
        generation: The variant's template and special tokens.
        messages: The conversation so far, oldest first.
        answer: Whether the prompt ends where the assistant's next turn begins.

    Raises:
        DataError: The template refuses these messages; the error says why.
        BundleError: The template is wrong, or does what no template needs.
    """
    if not generation.chat_template:
        return _plain(messages, answer)
    from edge_sdk.runtime.generation.template_sandbox import RefusedError, pieces

    values = {
        **generation.tokens,
        "messages": [msgspec.structs.asdict(message) for message in messages],
        "tools": None,
        "documents": None,
        "add_generation_prompt": answer,
    }
    said = sum(len(message.content) for message in messages)
    template = compiled(generation.chat_template)
    try:
        return _joined(pieces(template, values), MOST_OWN_TEXT + MOST_REPETITIONS * said)
    except RefusedError as error:
        raise DataError(f"refuses these messages: {error.message}", where=WHERE) from error
    except Exception as error:
        raise _wrong(error) from error


@lru_cache(maxsize=8)  # as many as a device serves models; compiling takes milliseconds
def compiled(source: str) -> Template:
    """A template, ready to render.

    Raises:
        BundleError: It is no template.
    """
    from jinja2 import TemplateError

    from edge_sdk.runtime.generation.template_sandbox import compile_template

    try:
        return compile_template(source)
    except (TemplateError, RecursionError) as error:
        raise _wrong(error) from error


def _wrong(error: Exception) -> BundleError:
    line = getattr(error, "lineno", None)
    return BundleError(
        f"{type(error).__name__}: {error}",
        where=f"{WHERE}, line {line}" if line else WHERE,
        remedy="give the prompt as plain text (raw), or convert again with a corrected template",
    )


def _joined(pieces: Iterable[str], most: int) -> str:
    text = []
    for piece in pieces:
        most -= len(piece)
        if most < 0:
            raise OverflowError("it writes far more than the messages hold")
        text.append(piece)
    return "".join(text)


def _plain(messages: Sequence[Message], answer: bool) -> str:
    turns = [
        message.content
        if message.role == "system"
        else f"{message.role.title()}: {message.content}"
        for message in messages
    ]
    return "\n\n".join([*turns, "Assistant:"] if answer else turns)
