"""Errors over HTTP: one status per kind of error, one shape per protocol."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from edge_sdk.errors import (
    BundleError,
    BusyError,
    EdgeSdkError,
    InputError,
    MemoryLimitError,
    NotServedError,
)


def json_response(content: Any, status: int = HTTPStatus.OK) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def status_of(error: EdgeSdkError) -> HTTPStatus:
    """The HTTP status that says whose fault an error is."""
    if isinstance(error, NotServedError):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, BusyError):
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, MemoryLimitError):
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE  # a smaller request may fit
    if isinstance(error, InputError) and not isinstance(error, BundleError):
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.INTERNAL_SERVER_ERROR


def openai_error(error: EdgeSdkError) -> dict[str, Any]:
    """What OpenAI's clients read: in an error's body, and in a stream that breaks off."""
    code = "model_not_found" if isinstance(error, NotServedError) else None
    return _openai_error(_text_of(error), status_of(error), error.where, code)


async def known(request: Request, error: Exception) -> Response:
    """Answers with an error of the product's tree."""
    if not isinstance(error, EdgeSdkError):
        raise error
    content = openai_error(error) if _is_openai(request) else {"error": _text_of(error)}
    response = json_response(content, status_of(error))
    if isinstance(error, BusyError):
        response.headers["Retry-After"] = "1"
    return response


async def of_http(request: Request, error: Exception) -> Response:
    """Answers where there is no such path or method, or a body is too large."""
    if not isinstance(error, HTTPException):
        raise error
    response = _problem(request, f"{request.url.path}: {error.detail}", error.status_code)
    response.headers.update(error.headers or {})
    return response


async def unforeseen(request: Request, error: Exception) -> Response:
    """Answers after an error that nobody foresaw; the server's log has all of it."""
    return _problem(request, f"internal error: {type(error).__name__}", 500)


def _problem(request: Request, message: str, status: int) -> Response:
    content = _openai_error(message, status) if _is_openai(request) else {"error": message}
    return json_response(content, status)


def _is_openai(request: Request) -> bool:
    return request.url.path.startswith("/v1/")


def _openai_error(
    message: str, status: int, where: str | None = None, code: str | None = None
) -> dict[str, Any]:
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    return {"error": {"message": message, "type": kind, "param": where, "code": code}}


def _text_of(error: EdgeSdkError) -> str:
    """An error in one line."""
    text = f"{error.where}: {error.message}" if error.where else error.message
    return f"{text}; {error.remedy}" if error.remedy else text
