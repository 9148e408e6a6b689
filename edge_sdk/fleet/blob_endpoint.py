"""A store as a read-only registry: the pull part of the OCI distribution specification 1.1.

For a fleet on one server; anything that pulls from registries can pull from it. Documents,
graphs and records come compressed to those who accept it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from edge_sdk.errors import BundleError
from edge_sdk.fleet.shelf import Shelf, tag
from edge_sdk.transport.packing import PACKED_UP_TO, pack

_ROOT = {"Docker-Distribution-Api-Version": "registry/2.0"}
_BYTES = "application/octet-stream"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
Handler = Callable[[Request], Awaitable[Response]]


def app(root: Path) -> Starlette:
    """An ASGI application that serves a store under ``/v2/``."""
    return Starlette(routes=routes(root))


def routes(root: Path) -> list[BaseRoute]:
    """The same as routes, to put among others.

    Args:
        root: The store; what is installed later is served from then on.
    """
    shelf = Shelf(root)

    async def version(_: Request) -> Response:
        return JSONResponse({})

    async def manifest(request: Request) -> Response:
        name, reference = request.path_params["name"], request.path_params["reference"]
        found = await run_in_threadpool(shelf.document, name, reference)
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN", f"{name} has no {reference}")
        packed = await run_in_threadpool(pack, found.data) if _may_pack(request) else None
        return Response(
            found.data if packed is None else packed,
            headers=_headers(found.descriptor.digest, packed),
            media_type=found.descriptor.media_type,
        )

    async def blob(request: Request) -> Response:
        name, digest = request.path_params["name"], request.path_params["digest"]
        found = await run_in_threadpool(shelf.blob, name, digest)
        if found is None:
            return _error(404, "BLOB_UNKNOWN", f"{name} has no {digest}")
        path, packed = shelf.store.blobs.path(digest), None
        if _may_pack(request) and found.size <= PACKED_UP_TO:
            packed = await run_in_threadpool(lambda: pack(path.read_bytes()))
        headers = _headers(digest, packed)
        if packed is not None:
            return Response(packed, headers=headers, media_type=_BYTES)
        return FileResponse(path, headers=headers, media_type=_BYTES)

    async def tags(request: Request) -> Response:
        name = request.path_params["name"]
        entries = await run_in_threadpool(shelf.entries, name)
        if not entries:
            return _error(404, "NAME_UNKNOWN", f"there is no {name}")
        return JSONResponse({"name": name, "tags": sorted(tag(entry.version) for entry in entries)})

    return [
        _route("/v2/", version),
        _route("/v2/{name:path}/tags/list", tags),
        _route("/v2/{name:path}/manifests/{reference}", manifest),
        _route("/v2/{name:path}/blobs/{digest}", blob),
        _route("/v2/{rest:path}", _nothing),
    ]


def _route(path: str, handler: Handler) -> Route:
    async def answer(request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return _error(405, "UNSUPPORTED", "this registry is read-only")
        try:
            response = await handler(request)
        except BundleError as error:
            response = _error(500, "UNKNOWN", f"the store is damaged: {error.message}")
        response.headers.update(_ROOT)
        return response

    return Route(path, answer, methods=_METHODS)


def _may_pack(request: Request) -> bool:
    """Whether the answer may come compressed; ranges are of the bytes themselves."""
    accepted = request.headers.get("accept-encoding", "")
    whole = request.method == "GET" and "range" not in request.headers
    return whole and "gzip" in (token.strip() for token in accepted.split(","))


def _headers(digest: str, packed: bytes | None) -> dict[str, str]:
    headers = {"Docker-Content-Digest": digest, "Vary": "Accept-Encoding"}
    return headers if packed is None else headers | {"Content-Encoding": "gzip"}


async def _nothing(request: Request) -> Response:
    return _error(404, "NAME_UNKNOWN", f"there is nothing at {request.url.path}")


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"errors": [{"code": code, "message": message}]}, status_code=status)
