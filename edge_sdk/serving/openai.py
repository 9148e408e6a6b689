"""OpenAI's protocol, as far as its clients need it for a conversation: whole, or streamed.

https://platform.openai.com/docs/api-reference/chat. A field that would change the answer and
is not supported is an error; others that are unknown are ignored.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from edge_sdk.errors import DataError, EdgeSdkError, EngineError
from edge_sdk.serving.problems import openai_error
from edge_sdk.serving.router import Router
from edge_sdk.serving.served import Served

if TYPE_CHECKING:
    from edge_sdk.runtime.generation.completion import Completion

DONE = b"data: [DONE]\n\n"
Count = Annotated[int, msgspec.Meta(ge=1)]
# Fields that would change the answer, and the values that do not.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}


class Part(msgspec.Struct, frozen=True):
    """A part of a message; only texts are understood."""

    type: Literal["text"]
    text: str


class ChatMessage(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]

    @property
    def text(self) -> str:
        """What was said."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream says beside the text."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct, frozen=True):
    """A request for an answer.

    Attributes:
        model: ``name``, or ``name:version`` for one of its versions.
        messages: The conversation, oldest first.
        stream: Whether the answer comes in pieces.
        stream_options: What comes beside them.
        max_completion_tokens: Most tokens to draw; until the context is full by default.
        max_tokens: The same, by its older name.
        temperature: This and what follows replace the model's own settings.
        top_p: Keep the likeliest tokens whose probabilities reach this sum.
        stop: Strings that end the answer.
        seed: Seed of the draws.
        top_k: Keep this many likeliest tokens (not OpenAI's).
        min_p: Drop tokens below this share of the likeliest one's probability (not OpenAI's).
        repetition_penalty: Makes tokens less likely that were seen before (not OpenAI's).
        adapter: One of the variant's adapters (not OpenAI's).
    """

    model: str
    messages: list[ChatMessage]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: Count | None = None
    max_tokens: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    adapter: str | None = None

    @property
    def route(self) -> tuple[str, str | None]:
        """The model's name, and the version that is asked for."""
        name, _, version = self.model.partition(":")
        return name, version or None


def read_request(body: bytes) -> ChatRequest:
    """A request from its JSON.

    Raises:
        DataError: It is none, or asks for what is not supported.
    """
    try:
        fields = msgspec.json.decode(body)
        request = msgspec.convert(fields, ChatRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"is no chat request: {error}",
            where="body",
            remedy='send {"model": …, "messages": [{"role": "user", "content": …}]}',
        ) from error
    for name, neutral in NEUTRAL.items():
        value = fields.get(name)
        if value is not None and value not in neutral:
            raise DataError("is not supported", where=name, remedy="leave it out")
    return request


def generate(served: Served, request: ChatRequest) -> Completion:
    """Begins an answer.

    Raises:
        InputError: The model does not generate text, or a setting is out of its range.
        DataError: The conversation is empty, or longer than the context.
    """
    try:
        return served.model.generate(
            [
                {
                    "role": "system" if turn.role == "developer" else turn.role,
                    "content": turn.text,
                }
                for turn in request.messages
            ],
            max_new_tokens=request.max_completion_tokens or request.max_tokens,
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
            min_p=request.min_p,
            repetition_penalty=request.repetition_penalty,
            seed=request.seed,
            stop=request.stop or (),
            adapter=request.adapter,
        )
    except Exception as error:
        served.failed(error)
        raise


def models(router: Router) -> list[dict[str, Any]]:
    """All models as OpenAI's clients list them."""
    return [
        {
            "id": name,
            "object": "model",
            "created": int(route.stable.since),
            "owned_by": "edge-sdk",
        }
        for name, route in sorted(router.routes.items())
    ]


@dataclass(frozen=True)
class Answer:
    """An answer on its way.

    Attributes:
        request: What was asked.
        served: The version that answers.
        completion: Its text.
    """

    request: ChatRequest
    served: Served
    completion: Completion
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    async def pieces(self) -> AsyncIterator[str]:
        """The text as it comes; when it has, the version has counted it.

        Raises:
            EdgeSdkError: It could not be computed to the end.
        """
        try:
            async for piece in self.served.driver.pieces(self.completion):
                yield piece
            if self.completion.finish_reason == "cancelled":
                raise EngineError("the model was closed", where=self.served.name)
        except EdgeSdkError as error:
            self.served.failed(error)
            raise
        finally:
            self.served.generated(self.completion)

    async def whole(self) -> dict[str, Any]:
        """The answer in one piece; raises as :meth:`pieces`."""
        text = "".join([piece async for piece in self.pieces()])
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = self._choice("message", message, self.completion.finish_reason)
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage()}

    async def events(self, text: Sequence[str], rest: AsyncIterator[str]) -> AsyncIterator[bytes]:
        """The answer as server-sent events.

        Args:
            text: Pieces that have come already.
            rest: What :meth:`pieces` gives after them.
        """
        yield self._chunk({"role": "assistant", "content": ""})
        try:
            for piece in text:
                yield self._chunk({"content": piece})
            async for piece in rest:
                yield self._chunk({"content": piece})
        except EdgeSdkError as error:
            yield event(openai_error(error))
        else:
            yield self._chunk({}, self.completion.finish_reason)
            options = self.request.stream_options
            if options is not None and options.include_usage:
                head = self._head("chat.completion.chunk")
                yield event({**head, "choices": [], "usage": self._usage()})
        yield DONE

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = self._choice("delta", delta, finish_reason)
        return event({**self._head("chat.completion.chunk"), "choices": [choice]})

    def _choice(self, key: str, content: Any, finish_reason: str | None) -> dict[str, Any]:
        return {"index": 0, key: content, "logprobs": None, "finish_reason": finish_reason}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.request.model,
            "system_fingerprint": f"{self.served.version}@{self.served.digest}",
        }

    def _usage(self) -> dict[str, Any]:
        stats = self.completion.stats
        return {
            "prompt_tokens": stats.prompt_tokens,
            "completion_tokens": stats.new_tokens,
            "total_tokens": stats.prompt_tokens + stats.new_tokens,
            "prompt_tokens_details": {"cached_tokens": stats.cached_tokens},
        }


def event(content: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(content) + b"\n\n"
