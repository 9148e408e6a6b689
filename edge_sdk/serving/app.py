"""The local HTTP API: what applications on the device reach its models by.

Open Inference Protocol under ``/v2``, OpenAI's under ``/v1``, Prometheus at ``/metrics``.
Routes hold a version while they answer, and hand it what they read; nothing is computed in
the thread of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from edge_sdk import __version__
from edge_sdk.errors import EdgeSdkError
from edge_sdk.serving import metrics, openai, problems
from edge_sdk.serving.datatypes import datatype_of
from edge_sdk.serving.problems import json_response
from edge_sdk.serving.router import Router
from edge_sdk.serving.served import Served

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from edge_sdk.bundle.record import TensorSpec

BODY_LIMIT = 32 * 1024 * 1024
"""Largest body of a request, in bytes."""
STALLED_S = 60.0
"""Seconds after which a caller who takes nothing of his answer counts as gone."""
Result = TypeVar("Result")


def app(router: Router, *, body_limit: int = BODY_LIMIT) -> Starlette:
    """The API over a router.

    Args:
        router: What is served.
        body_limit: Largest body of a request, in bytes.
    """
    api = _Api(router, body_limit)
    model, version = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    routes = [
        Route("/v2", api.server),
        Route("/v2/health/live", api.live),
        Route("/v2/health/ready", api.ready),
        *(Route(path, api.model) for path in (model, version)),
        *(Route(f"{path}/ready", api.model_ready) for path in (model, version)),
        *(Route(f"{path}/infer", api.infer, methods=["POST"]) for path in (model, version)),
        Route("/v1/models", api.models),
        Route("/v1/models/{name}", api.one_of_models),
        Route("/v1/chat/completions", api.chat, methods=["POST"]),
        Route("/metrics", api.metrics),
    ]
    handlers: dict[Any, Any] = {
        EdgeSdkError: problems.known,
        HTTPException: problems.of_http,
        Exception: problems.unforeseen,
    }
    return Starlette(routes=routes, exception_handlers=handlers)


@dataclass(frozen=True)
class _Api:
    """The endpoints."""

    router: Router
    body_limit: int

    async def server(self, request: Request) -> Response:
        return json_response({"name": "edge-sdk", "version": __version__, "extensions": []})

    async def live(self, request: Request) -> Response:
        return json_response({"live": True})

    async def ready(self, request: Request) -> Response:
        missing = sorted(self.router.missing)
        if not missing:
            return json_response({"ready": True})
        content = {"ready": False, "missing": missing}
        return json_response(content, HTTPStatus.SERVICE_UNAVAILABLE)

    async def model(self, request: Request) -> Response:
        versions = self._versions(request)
        record = versions[0].model.record
        content = {
            "name": request.path_params["name"],
            "versions": [served.version for served in versions],
            "platform": record.engine.name,
            "inputs": [_described(spec) for spec in versions[0].model.inputs],
            "outputs": [_described(spec) for spec in versions[0].model.outputs],
        }
        return json_response(content)

    async def model_ready(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name in self.router.missing:
            content = {"name": name, "ready": False}
            return json_response(content, HTTPStatus.SERVICE_UNAVAILABLE)
        self._versions(request)
        return json_response({"name": name, "ready": True})

    async def infer(self, request: Request) -> Response:
        name, version = request.path_params["name"], request.path_params.get("version")
        body = await self._body(request)
        with self.router.use(name, version) as served:
            from edge_sdk.serving import infer

            answer = await _in_thread(served, lambda: infer.answer(served, name, body))
        return Response(answer, media_type="application/json")

    async def models(self, request: Request) -> Response:
        return json_response({"object": "list", "data": openai.models(self.router)})

    async def one_of_models(self, request: Request) -> Response:
        self._versions(request)
        [content] = [
            entry
            for entry in openai.models(self.router)
            if entry["id"] == request.path_params["name"]
        ]
        return json_response(content)

    async def chat(self, request: Request) -> Response:
        return _Chat(self.router, openai.read_request(await self._body(request)))

    async def metrics(self, request: Request) -> Response:
        return Response(metrics.render(self.router), media_type=metrics.MEDIA_TYPE)

    def _versions(self, request: Request) -> tuple[Served, ...]:
        """The versions that a path is about."""
        name, version = request.path_params["name"], request.path_params.get("version")
        return self.router.find(name, version)

    async def _body(self, request: Request) -> bytes:
        """A request's body, read only as far as it may be long."""
        too_large = HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {self.body_limit} bytes"
        )
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.body_limit:
            raise too_large
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > self.body_limit:
                    raise too_large
        except ClientDisconnect:  # nobody reads this; it only ends the request without a log
            raise HTTPException(HTTPStatus.BAD_REQUEST, "the body broke off") from None
        return bytes(body)


class _Chat(Response):
    """Answers a conversation; holds a version, and its completion, until all is sent.

    A caller who hangs up ends the completion within a token; one who does not read would
    keep his version from being closed, so he is hung up on.
    """

    def __init__(self, router: Router, request: openai.ChatRequest) -> None:
        super().__init__()
        self._router = router
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self._request
        with self._router.use(*request.route) as served:
            completion = await _in_thread(served, lambda: openai.generate(served, request))
            answer = openai.Answer(request, served, completion)
            try:
                if request.stream:
                    pieces = answer.pieces()
                    first = await _unless_gone(receive, _first(pieces))  # or an error, in time
                    events = answer.events(first, pieces)
                    response: Response = StreamingResponse(events, media_type="text/event-stream")
                    response.headers["Cache-Control"] = "no-cache"
                else:
                    response = json_response(await _unless_gone(receive, answer.whole()))
                await response(scope, receive, _impatient(send))
            except (ClientDisconnect, asyncio.TimeoutError):
                pass
            finally:
                completion.close()


def _impatient(send: Send) -> Send:
    async def timely(message: Message) -> None:
        await asyncio.wait_for(send(message), STALLED_S)

    return timely


async def _first(pieces: Any) -> list[str]:
    """The first piece, if there is any."""
    async for piece in pieces:
        return [piece]
    return []


async def _in_thread(served: Served, work: Callable[[], Result]) -> Result:
    """Does something in the version's thread."""
    return await asyncio.get_running_loop().run_in_executor(served.executor, work)


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Awaits something, or ends it when the caller hangs up.

    Raises:
        ClientDisconnect: The caller did.
    """

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _described(spec: TensorSpec) -> dict[str, Any]:
    """An input or output as the protocol describes it; dimensions that vary are -1."""
    shape = [size if isinstance(size, int) else -1 for size in spec.shape or ()]
    return {"name": spec.name, "datatype": datatype_of(spec.dtype) or spec.dtype, "shape": shape}
