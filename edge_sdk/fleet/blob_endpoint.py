"""A store as a registry, after the OCI distribution specification 1.1.

For a fleet on one server; anything that pulls from registries can pull from it, and what
pushes bundles can push to it where that is allowed. Documents, graphs and records come
compressed to those who accept it.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from edge_sdk.bundle import oci
from edge_sdk.errors import BundleError, DigestError, WorkError
from edge_sdk.fleet.door import Door, Refusal
from edge_sdk.fleet.intake import Intake
from edge_sdk.fleet.shelf import Shelf, tag
from edge_sdk.transport.packing import PACKED_UP_TO, pack

_ROOT = {"Docker-Distribution-Api-Version": "registry/2.0"}
_BYTES = "application/octet-stream"
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
Handler = Callable[[Request], Awaitable[Response]]


def app(root: Path, door: Door | None = None) -> Starlette:
    """An ASGI application that serves a store under ``/v2/``."""
    return Starlette(routes=routes(root, door))


def routes(root: Path, door: Door | None = None) -> list[BaseRoute]:
    """The same as routes, to put among others.

    Args:
        root: The store; what is installed later is served from then on.
        door: Who may push and delete; nobody unless given.
    """
    intake = Intake(root)
    reads = _Reads(Shelf(root), intake if door else None)
    changes = _Changes(Shelf(root), intake)
    return [
        _route("/v2/", door, reads.version),
        _route("/v2/{name:path}/tags/list", door, reads.tags),
        _route(
            "/v2/{name:path}/manifests/{reference}", door, reads.manifest,
            PUT=changes.manifest, DELETE=changes.delete,
        ),
        _route("/v2/{name:path}/blobs/uploads/", door, _nothing, POST=changes.begin),
        _route(
            "/v2/{name:path}/blobs/uploads/{upload}", door, _nothing,
            PATCH=changes.part, PUT=changes.blob,
        ),
        _route("/v2/{name:path}/blobs/{digest}", door, reads.blob),
        _route("/v2/{rest:path}", door, _nothing),
    ]  # fmt: skip


class _Reads:
    """What everyone may ask for."""

    def __init__(self, shelf: Shelf, intake: Intake | None) -> None:
        self._shelf = shelf
        self._intake = intake

    async def version(self, _: Request) -> Response:
        return JSONResponse({})

    async def manifest(self, request: Request) -> Response:
        name, reference = _named(request)
        found = await run_in_threadpool(self._shelf.document, name, reference)
        if found is None:
            return _error(404, "MANIFEST_UNKNOWN", f"{name} has no {reference}")
        packed = await run_in_threadpool(pack, found.data) if _may_pack(request) else None
        return Response(
            found.data if packed is None else packed,
            headers=_headers(found.descriptor.digest, packed),
            media_type=found.descriptor.media_type,
        )

    async def blob(self, request: Request) -> Response:
        name, digest = request.path_params["name"], request.path_params["digest"]
        found = await run_in_threadpool(self._shelf.blob, name, digest)
        if found and self._intake and request.method == "HEAD":
            found = found if await run_in_threadpool(self._intake.claim, name, digest) else None
        if found is None:
            return _error(404, "BLOB_UNKNOWN", f"{name} has no {digest}")
        path, packed = self._shelf.store.blobs.path(digest), None
        if _may_pack(request) and found.size <= PACKED_UP_TO:
            packed = await run_in_threadpool(lambda: pack(path.read_bytes()))
        headers = _headers(digest, packed)
        if packed is not None:
            return Response(packed, headers=headers, media_type=_BYTES)
        return FileResponse(path, headers=headers, media_type=_BYTES)

    async def tags(self, request: Request) -> Response:
        name = request.path_params["name"]
        entries = await run_in_threadpool(self._shelf.entries, name)
        if not entries:
            return _error(404, "NAME_UNKNOWN", f"there is no {name}")
        return JSONResponse({"name": name, "tags": sorted(tag(entry.version) for entry in entries)})


class _Changes:
    """What those may who are let in."""

    def __init__(self, shelf: Shelf, intake: Intake) -> None:
        self._shelf = shelf
        self._intake = intake

    async def begin(self, request: Request) -> Response:
        """Names an upload; nothing is kept of it until its bytes come."""
        where = f"{request.url.path}{secrets.token_hex(16)}"
        return Response(status_code=202, headers={"Location": where, "Range": "0-0"})

    async def part(self, request: Request) -> Response:
        size = await self._intake.append(request.path_params["upload"], request.stream())
        headers = {"Location": request.url.path, "Range": f"0-{max(0, size - 1)}"}
        return Response(status_code=202, headers=headers)

    async def blob(self, request: Request) -> Response:
        digest = request.query_params.get("digest", "")
        name, upload = request.path_params["name"], request.path_params["upload"]
        await self._intake.finish(name, upload, digest, request.stream())
        where = f"/v2/{name}/blobs/{digest}"
        return Response(status_code=201, headers={"Location": where})

    async def manifest(self, request: Request) -> Response:
        name, reference = _named(request)
        data = bytearray()
        async for piece in request.stream():
            data += piece
            if len(data) > oci.MANIFEST_LIMIT:
                return _error(413, "MANIFEST_INVALID", "is larger than a manifest may be")
        kind = request.headers.get("content-type", "")
        take = self._intake.document
        found = await run_in_threadpool(take, name, reference, kind, bytes(data))
        return Response(status_code=201, headers=_headers(found.digest, None))

    async def delete(self, request: Request) -> Response:
        name, reference = _named(request)
        for entry in await run_in_threadpool(self._shelf.entries, name):
            if reference in (tag(entry.version), entry.descriptor.digest):
                await run_in_threadpool(self._intake.remove, entry)
                return Response(status_code=202)
        return _error(404, "MANIFEST_UNKNOWN", f"{name} has no {reference}")


def _named(request: Request) -> tuple[str, str]:
    return request.path_params["name"], request.path_params["reference"]


def _route(path: str, door: Door | None, read: Handler, **changes: Handler) -> Route:
    """A route that reads for everyone, and changes for those who may."""

    async def answer(request: Request) -> Response:
        response = await answered(request)
        response.headers.update(_ROOT)
        return response

    async def answered(request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            try:
                return await read(request)
            except BundleError as error:
                return _error(500, "UNKNOWN", f"the store is damaged: {error.message}")
        change = changes.get(request.method)
        if change is None or door is None:
            said = (
                "this registry is read-only" if door is None else "this registry does not do that"
            )
            return _error(405, "UNSUPPORTED", said)
        refusal = door.refuse(request)
        if refusal is not None:
            return _refused(refusal)
        try:
            return await change(request)
        except DigestError as error:
            return _error(400, "DIGEST_INVALID", str(error))
        except BundleError as error:
            return _error(400, "MANIFEST_INVALID", str(error))
        except WorkError as error:
            return _error(507, "UNKNOWN", str(error))
        except ClientDisconnect:  # nobody reads this
            return _error(400, "BLOB_UPLOAD_INVALID", "the upload broke off")

    return Route(path, answer, methods=_METHODS)


def _refused(refusal: Refusal) -> Response:
    if refusal.status != HTTPStatus.UNAUTHORIZED:
        return _error(refusal.status, "DENIED", str(refusal.error))
    response = _error(401, "UNAUTHORIZED", "the password is this server's token")
    response.headers["WWW-Authenticate"] = 'Basic realm="edge-sdk"'
    return response


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
