"""OpenAI's protocol over HTTP, on the tiny decoder."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import edge_sdk
from edge_sdk.errors import EngineError
from edge_sdk.serving import app
from tests.generation import tiny
from tests.runtime import bundles
from tests.runtime.bundles import HERE
from tests.serving.conftest import load, until

PATH = "/v1/chat/completions"
SAID = [{"role": "user", "content": "what is on?"}]
LONG = {"model": "assistant", "messages": SAID, "max_tokens": 100, "seed": 1, "temperature": 1.5}


def events(body: bytes) -> list[dict]:
    """The events of a stream; that it ends with [DONE] is checked."""
    *found, done, rest = body.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in found]


def text_of(chunks: list[dict]) -> str:
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


@pytest.fixture
def alone(tiny_bundle):
    """What the model answers in Python."""

    def alone(messages=SAID, **settings) -> str:
        with edge_sdk.load(tiny_bundle, HERE, threads=1, prepare=False) as model:
            return model.generate(messages, **settings).read()

    return alone


def test_an_answer_is_what_the_model_says(api, chat, alone):
    response = api.post(PATH, {"model": "assistant", "messages": SAID, "max_tokens": 20})
    assert response.status == 200, response.body
    answer = response.json
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "assistant"
    assert answer["system_fingerprint"].startswith("1.0.0@sha256:")
    [choice] = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == alone(max_new_tokens=20)
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 20
    assert usage["total_tokens"] == usage["prompt_tokens"] + 20


def test_a_stream_says_the_same_in_pieces(api, chat):
    whole = api.post(PATH, LONG).json["choices"][0]
    response = api.post(PATH, {**LONG, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = events(response.body)
    assert text_of(chunks) == whole["message"]["content"]
    assert len(chunks) > 3  # the role, the end, and more than one piece between
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert {c["id"] for c in chunks} == {chunks[0]["id"]}
    assert all("usage" not in c for c in chunks)


def test_usage_of_a_stream_comes_last_where_it_is_asked_for(api, chat):
    request = {**LONG, "stream": True, "stream_options": {"include_usage": True}}
    *_, last = events(api.post(PATH, request).body)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] > 0
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_an_answer_without_text_is_a_stream_too(api, chat):
    stop = [chr(code) for code in range(32, 127)]
    chunks = events(api.post(PATH, {**LONG, "stream": True, "stop": stop}).body)
    assert text_of(chunks) != api.post(PATH, LONG).json["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_settings_reach_the_model(api, chat, alone):
    settings = {"temperature": 1.2, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "seed": 7,
                "repetition_penalty": 1.1, "stop": "q", "adapter": "pirate"}  # fmt: skip
    request = {"model": "assistant:1.0.0", "messages": SAID, "max_completion_tokens": 30}
    answer = api.post(PATH, {**request, **settings}).json
    assert answer["choices"][0]["message"]["content"] == alone(max_new_tokens=30, **settings)


def test_messages_may_come_in_parts_and_from_the_developer(api, chat, alone):
    parts = [{"type": "text", "text": "what "}, {"type": "text", "text": "is on?"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what is on?"}]
    answer = api.post(PATH, {"model": "assistant", "messages": messages, "max_tokens": 9}).json
    assert answer["choices"][0]["message"]["content"] == alone(plain, max_new_tokens=9)


def test_neutral_fields_of_others_are_ignored(api, chat):
    neutral = {"n": 1, "tools": [], "logprobs": None, "presence_penalty": 0.0,
               "response_format": {"type": "text"}}  # fmt: skip
    unknown = {"user": "me", "tool_choice": "none", "store": False}
    assert api.post(PATH, {**LONG, **neutral, **unknown}).status == 200


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "none"}, 404, "no such model; there are: assistant, linear"),
        ({"model": "assistant:2.0.0"}, 404, "has no version 2.0.0"),
        ({"model": "linear"}, 400, "does not generate text"),
        ({"model": 1}, 400, "Expected `str`, got `int` - at `$.model`"),
        ({"messages": []}, 400, "the prompt is empty"),
        ({"messages": [{"role": "king", "content": "x"}]}, 400, "Invalid enum value 'king'"),
        ({"messages": [{"role": "user"}]}, 400, "missing required field `content`"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "Invalid enum value 'image_url'",
        ),
        ({"messages": [{"role": "user", "content": "x" * 200}]}, 400, "the context of 128"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "no chat request"),
        ({"max_tokens": 0}, 400, "Expected `int` >= 1"),
        ({"temperature": -1}, 400, "temperature"),
        ({"adapter": "none"}, 400, "no adapter 'none'; there are: pirate"),
        ({"n": 2}, 400, "n: is not supported; leave it out"),
        ({"tools": [{"type": "function"}]}, 400, "tools: is not supported"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format: is not supported"),
        ({"logprobs": True}, 400, "logprobs: is not supported"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_answered_is_refused(api, chat, put, change, status, message, stream):
    put("linear", bundles.linear)
    response = api.post(PATH, {**LONG, "stream": stream, **change})
    assert (response.status, message in response.error["message"]) == (status, True), response.body
    assert response.error["type"] == "invalid_request_error"
    assert chat.figures().requests == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"model": "assistant"}', b"[" * 100_000])
def test_a_body_that_is_no_request_is_refused(api, chat, body):
    response = api.post(PATH, body)
    assert response.status == 400
    assert "is no chat request" in response.error["message"]


def test_models_are_listed(api, chat, put):
    put("linear", bundles.linear)
    listed = api.get("/v1/models").json["data"]
    assert [entry["id"] for entry in listed] == ["assistant", "linear"]
    assert api.get("/v1/models/assistant").json == listed[0]
    assert listed[0]["created"] == int(chat.since)


def test_concurrent_requests_share_the_models_steps(api, chat, monkeypatch):
    """Eight answers, four rows: each is what it is alone, in far fewer steps than tokens."""
    requests = [{**LONG, "seed": seed, "max_tokens": 40} for seed in range(8)]
    one_by_one = [api.post(PATH, request).json["choices"][0]["message"] for request in requests]
    drawn = chat.tokens
    steps = []
    step = chat.model.step
    monkeypatch.setattr(chat.model, "step", lambda: (steps.append(1), step())[1])
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda request: api.post(PATH, request), requests))
    assert [answer.json["choices"][0]["message"] for answer in together] == one_by_one
    assert chat.tokens == 2 * drawn
    assert len(steps) < 0.7 * drawn


def stuck(served, monkeypatch) -> tuple[threading.Event, list[int]]:
    """Makes a model step only when told to; counts the steps."""
    go, steps = threading.Event(), []
    step = served.model.step

    def gated() -> bool:
        assert go.wait(30)
        steps.append(1)
        return step()

    monkeypatch.setattr(served.model, "step", gated)
    return go, steps


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_hangs_up_ends_the_answer(api, chat, monkeypatch, stream):
    request = {**LONG, "stream": stream, "stop": ["\x00never"]}
    go, steps = stuck(chat, monkeypatch)
    connection = api.open()
    connection.request("POST", PATH, json.dumps(request))
    until(lambda: chat.uses)
    if stream:  # hang up in the middle
        go.set()
        assert connection.getresponse().readline().startswith(b"data: ")
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    until(lambda: not chat.uses)  # the version is let go, though nothing was computed to its end
    go.set()
    assert chat.figures().errors == 0
    assert chat.tokens < 100
    # The next answer is as if nothing had been.
    assert api.post(PATH, LONG).status == 200
    assert len(steps) < 250


def test_an_engine_that_fails_before_the_first_token_is_an_error(api, chat, monkeypatch):
    def fails(*args):
        raise EngineError("out of order", where="graph 'main'")

    decoder = chat.model._generator.scheduler._decoders.of(None)
    monkeypatch.setattr(decoder, "prefill", fails)
    for stream in (False, True):
        response = api.post(PATH, {**LONG, "stream": stream})
        assert response.status == 500
        assert response.error["message"] == "graph 'main': out of order"
        assert response.error["type"] == "server_error"
    assert (chat.figures().requests, chat.figures().errors) == (2, 2)
    monkeypatch.undo()
    assert api.post(PATH, LONG).status == 200


def test_an_engine_that_fails_later_ends_the_stream_with_the_error(api, chat, monkeypatch):
    def fails(*args):
        raise EngineError("out of order")

    decoder = chat.model._generator.scheduler._decoders.of(None)
    monkeypatch.setattr(decoder, "decode", fails)
    chunks = events(api.post(PATH, {**LONG, "stream": True}).body)
    assert chunks[-1]["error"]["message"] == "out of order"
    assert chat.figures().errors == 1


def test_what_nobody_foresaw_ends_the_answers_and_not_the_thread(api, chat, monkeypatch):
    def fails():
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(chat.model, "step", fails)
    response = api.post(PATH, LONG)
    assert response.status == 500
    assert response.error["message"] == "generation failed: ZeroDivisionError: surprise"
    monkeypatch.undo()
    assert api.post(PATH, LONG).status == 200


def test_an_answer_finishes_on_the_version_that_it_began_on(api, chat, monkeypatch, tmp_path):
    go, _ = stuck(chat, monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(api.post, PATH, {**LONG, "stream": True})
        until(lambda: chat.uses)
        new = load(tiny.bundle(tmp_path / "new", version="2.0.0"))
        assert api.router.swap("assistant", new) is chat
        assert api.post(PATH, LONG).json["system_fingerprint"].startswith("2.0.0@")
        assert not chat.wait_closed(0.05)
        go.set()
        chunks = events(answer.result().body)
    assert {c["system_fingerprint"].partition("@")[0] for c in chunks} == {"1.0.0"}
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    assert chat.wait_closed(30)


def test_a_caller_who_does_not_read_is_hung_up_on(router, chat, monkeypatch):
    monkeypatch.setattr(app, "STALLED_S", 0.05)
    scope = {"type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(),
             "headers": [], "query_string": b""}  # fmt: skip
    body = json.dumps({**LONG, "stream": True}).encode()
    sent = []

    async def talk() -> None:
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive():
            return next(messages, None) or await asyncio.Event().wait()

        async def send(message):
            sent.append(message)
            if len(sent) == 3:  # status, headers and one event have gone
                await asyncio.Event().wait()

        await app.app(router)(scope, receive, send)

    asyncio.run(asyncio.wait_for(talk(), 30))
    assert len(sent) == 3
    assert chat.uses == 0
    assert chat.figures().errors == 0


def test_latency_is_that_of_the_first_token(api, chat):
    response = api.post(PATH, LONG)
    figures = chat.figures()
    assert (figures.requests, figures.errors) == (1, 0)
    assert figures.p50_ms > 0
    assert chat.tokens == response.json["usage"]["completion_tokens"]


def test_openais_own_client_is_understood(api, chat):
    openai = pytest.importorskip("openai")
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{api.running.port}/v1", api_key="none", max_retries=0
    ) as client:
        assert [model.id for model in client.models.list()] == ["assistant"]
        whole = client.chat.completions.create(
            model="assistant", messages=SAID, max_tokens=20, extra_body={"top_k": 1}
        )
        stream = client.chat.completions.create(
            model="assistant", messages=SAID, max_tokens=20, stream=True, extra_body={"top_k": 1}
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        assert text == whole.choices[0].message.content
        assert whole.usage.completion_tokens == 20
        with pytest.raises(openai.NotFoundError, match="no such model"):
            client.chat.completions.create(model="none", messages=SAID)
        with pytest.raises(openai.BadRequestError, match="not supported"):
            client.chat.completions.create(model="assistant", messages=SAID, n=2)
