"""A store as a read-only registry: the pull part of the OCI distribution specification 1.1.

For a fleet on one server; anything that pulls from registries can pull from it.
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

_ROOT = {"Docker-Distribution-Api-Version": "registry/2.0"}
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
        headers = {"Docker-Content-Digest": found.descriptor.digest}
        return Response(found.data, headers=headers, media_type=found.descriptor.media_type)

    async def blob(request: Request) -> Response:
        name, digest = request.path_params["name"], request.path_params["digest"]
        found = await run_in_threadpool(shelf.blob, name, digest)
        if found is None:
            return _error(404, "BLOB_UNKNOWN", f"{name} has no {digest}")
        return FileResponse(
            shelf.store.blobs.path(digest),
            headers={"Docker-Content-Digest": digest},
            media_type="application/octet-stream",
        )

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


async def _nothing(request: Request) -> Response:
    return _error(404, "NAME_UNKNOWN", f"there is nothing at {request.url.path}")


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"errors": [{"code": code, "message": message}]}, status_code=status)
