"""The HTTP API of a fleet's server, under ``/api/v1``: JSON, typed both ways.

::

    GET   /devices?selector=…      GET   /devices/{thing}      PATCH /devices/{thing}/labels
                                   DELETE /devices/{thing}
    GET, POST /devices/{thing}/trial     DELETE /devices/{thing}/trial/{id}
    GET   /rollouts                POST  /rollouts
    GET   /rollouts/{id}           POST  /rollouts/{id}/{pause|resume|approve|abort|rollback}
    GET   /rollouts/{id}/progress  server-sent events: the rollout, after every change
    GET   /audit?rollout=…&thing=…&before=…

Every change must come as ``application/json``, which no page in a browser can send here unasked;
and without a token the server must be called by its address, so that no page can have its own
name stand for it (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from edge_sdk.bundle.oci import check_name
from edge_sdk.errors import (
    AdmissionError,
    ConfigError,
    EdgeSdkError,
    FleetError,
    InputError,
    NotKnownError,
    TransferError,
)
from edge_sdk.fleet import audit, trials, views
from edge_sdk.fleet.bus import FleetBus
from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.devices import PRESENCE, Devices
from edge_sdk.fleet.door import Door
from edge_sdk.fleet.resolve import Resolved, resolve
from edge_sdk.fleet.rollout import operate
from edge_sdk.fleet.rollout.decide import Decision
from edge_sdk.fleet.rollout.device import Device
from edge_sdk.fleet.rollout.events import Event
from edge_sdk.fleet.rollout.gates import Gates, changed
from edge_sdk.fleet.rollout.selector import ALL, Selector
from edge_sdk.fleet.rollout.state import ENDED, Plan, Rollout
from edge_sdk.fleet.rollout_engine import RolloutEngine
from edge_sdk.fleet.shadow_service import ShadowService
from edge_sdk.shadow.trials import TrialCandidate
from edge_sdk.transport.link import Message

PREFIX = "/api/v1"
BODY_LIMIT = 64 * 1024
_LOG = logging.getLogger(__name__)
_LISTED = 100
_LABEL = re.compile(r"[\w./:-]{1,63}")
T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Api:
    """The endpoints.

    Attributes:
        database: For the audit.
        devices: What is known of devices.
        bus: The connection to the broker.
        engine: Runs rollouts.
        shadows: What devices follow.
        store: The server's own bundles.
        door: Who may come in, and by which name devices reach the server.
    """

    database: Database
    devices: Devices
    bus: FleetBus
    engine: RolloutEngine
    shadows: ShadowService
    store: Path
    door: Door

    def routes(self) -> list[Route]:
        """What to serve."""
        return [
            self._route("GET", "/devices", self._list_devices),
            self._route("GET", "/devices/{thing}", self._show_device),
            self._route("DELETE", "/devices/{thing}", self._forget),
            self._route("PATCH", "/devices/{thing}/labels", self._label),
            self._route("GET", "/devices/{thing}/trial", self._show_trial),
            self._route("POST", "/devices/{thing}/trial", self._begin_trial),
            self._route("DELETE", "/devices/{thing}/trial/{id}", self._end_trial),
            self._route("GET", "/rollouts", self._list_rollouts),
            self._route("POST", "/rollouts", self._deploy),
            self._route("GET", "/rollouts/{id:int}", self._show_rollout),
            self._route("GET", "/rollouts/{id:int}/progress", self._progress),
            self._route("POST", "/rollouts/{id:int}/{action}", self._operate),
            self._route("GET", "/audit", self._audit),
        ]

    def _route(self, method: str, path: str, endpoint: Endpoint) -> Route:
        async def guarded(request: Request) -> Response:
            try:
                return self._refuse(request) or await endpoint(request)
            except EdgeSdkError as error:
                return problem(error)
            except SQLAlchemyError as error:
                _LOG.exception("the database failed")
                cause = getattr(error, "orig", None) or error
                return problem(FleetError(f"the database failed: {cause}"), 503)

        return Route(PREFIX + path, guarded, methods=[method], name=endpoint.__name__)

    def _refuse(self, request: Request) -> Response | None:
        """An answer to who may not come in, or was sent here by a page in a browser."""
        refusal = self.door.refuse(request)
        if refusal is not None:
            response = problem(refusal.error, refusal.status)
            if refusal.status == HTTPStatus.UNAUTHORIZED:
                response.headers["WWW-Authenticate"] = 'Bearer realm="edge-sdk"'
            return response
        content = request.headers.get("content-type", "").partition(";")[0].strip()
        if request.method not in ("GET", "HEAD") and content != "application/json":
            error = ConfigError("must be application/json", where="Content-Type")
            return problem(error, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        return None

    async def _list_devices(self, request: Request) -> Response:
        selector = Selector.parse(request.query_params.get("selector", ALL))
        chosen = (device for device in self.devices.all.values() if selector.matches(device))
        ordered = sorted(chosen, key=lambda device: device.thing)
        return answer(views.DeviceList(devices=tuple(map(views.device_view, ordered))))

    async def _show_device(self, request: Request) -> Response:
        return await self._detail(self._device(request))

    async def _label(self, request: Request) -> Response:
        labels = (await _body(request, views.LabelRequest)).labels
        for name, value in labels.items():
            if not _LABEL.fullmatch(name) or not _LABEL.fullmatch("-" if value is None else value):
                raise ConfigError(
                    f"{name}={value} is no label that a selector could name",
                    remedy="use up to 63 letters, digits and . _ - / :",
                )
        device = self.devices.label(self._device(request).thing, labels)
        await self.devices.save(at_once=True)
        changes = ", ".join(f"{name}={value}" for name, value in labels.items())
        event = Event(kind="device.labelled", text=changes, thing=device.thing, by=_by(request))
        await self.engine.record((event,))
        return await self._detail(device)

    async def _forget(self, request: Request) -> Response:
        device = self._device(request)
        await self.engine.forget(device.thing, _by(request))
        # Else the broker would tell the next server of it.
        await self.bus.publish([Message(PRESENCE.replace("+", device.thing), b"", retain=True)])
        return await self._detail(device)

    async def _begin_trial(self, request: Request) -> Response:
        asked, device = await _body(request, views.TrialRequest), self._device(request)
        candidates = []
        for name, ref in asked.candidates.items():
            found = await asyncio.to_thread(resolve, ref, self.store, self._own(request))
            candidates.append(TrialCandidate(name=name, ref=found.ref, digest=found.digest))
        trial = await trials.begin(
            self.shadows, device.thing, candidates, seconds=asked.seconds, threads=asked.threads
        )
        return answer(
            views.TrialView(thing=device.thing, online=device.online, id=trial.id),
            HTTPStatus.CREATED,
        )

    async def _show_trial(self, request: Request) -> Response:
        device = self._device(request)
        number, result = await trials.state(self.shadows, device.thing)
        return answer(
            views.TrialView(thing=device.thing, online=device.online, id=number, result=result)
        )

    async def _end_trial(self, request: Request) -> Response:
        device = self._device(request)
        await trials.end(self.shadows, device.thing, request.path_params["id"])
        return answer(views.TrialView(thing=device.thing, online=device.online))

    async def _detail(self, device: Device) -> Response:
        history = await self.database.read(
            lambda db: audit.entries(db, thing=device.thing, limit=_LISTED)
        )
        return answer(views.DeviceDetail(device=views.device_view(device), history=history))

    def _own(self, request: Request) -> str:
        """By which devices reach this server's own bundles."""
        return self.door.public or f"{request.url.scheme}://{request.headers.get('host', '')}"

    def _device(self, request: Request) -> Device:
        thing = request.path_params["thing"]
        if thing not in self.devices.all:
            raise NotKnownError(
                f"no device {thing!r} is known",
                remedy="list them with edge-sdk fleet devices; one is known once its agent has run",
            )
        return self.devices.all[thing]

    async def _list_rollouts(self, request: Request) -> Response:
        found = await self.engine.rollouts()
        return answer(views.RolloutList(rollouts=tuple(map(self._as_shown, found))))

    async def _show_rollout(self, request: Request) -> Response:
        return self._shown(await self.engine.rollout(request.path_params["id"]))

    async def _operate(self, request: Request) -> Response:
        by, now = _by(request), time.time()
        actions: dict[str, Callable[[Rollout], Decision]] = {
            "pause": lambda rollout: operate.pause(rollout, by),
            "resume": lambda rollout: operate.resume(rollout, by, now),
            "approve": lambda rollout: operate.approve(rollout, by),
            "abort": lambda rollout: operate.abort(rollout, by, now),
            "rollback": lambda rollout: operate.rollback(rollout, self.devices.all, by, now),
        }
        action = actions.get(request.path_params["action"])
        if action is None:
            raise NotKnownError("there is no such action", remedy=f"one of {', '.join(actions)}")
        return self._shown(await self.engine.operate(request.path_params["id"], action))

    async def _deploy(self, request: Request) -> Response:
        asked = await _body(request, views.DeployRequest)
        found = await asyncio.to_thread(
            resolve, asked.ref, self.store, self._own(request), plain_http=asked.plain_http
        )
        plan = _plan(asked, found)
        layout = self.engine.lay_out(plan, found.profiles)
        number = None
        if not asked.dry_run:
            rollout = await self.engine.deploy(plan, found.profiles, _by(request))
            number, layout = rollout.id, msgspec.structs.replace(layout, members=rollout.members)
        deployment = views.Deployment(
            plan=plan, rollout=number, stages=views.stages_of(layout.members), notes=layout.notes
        )
        return answer(deployment, HTTPStatus.OK if asked.dry_run else HTTPStatus.CREATED)

    async def _progress(self, request: Request) -> Response:
        number = request.path_params["id"]
        await self.engine.rollout(number)  # so that there being none is an answer of its own

        async def events() -> AsyncIterator[bytes]:
            last = None
            async for rollout in self.engine.follow(number):
                view = self._as_shown(views.rollout_view(rollout))
                # A comment keeps up a connection on which nothing happens.
                yield b"data: %s\n\n" % msgspec.json.encode(view) if view != last else b":\n\n"
                last = view

        return StreamingResponse(
            events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    def _shown(self, rollout: Rollout) -> Response:
        detail = views.rollout_detail(rollout)
        return answer(msgspec.structs.replace(detail, rollout=self._as_shown(detail.rollout)))

    def _as_shown(self, view: views.RolloutView) -> views.RolloutView:
        """With what keeps it from going on, where that is the server's and not its own."""
        if view.status in ENDED or not self.engine.deaf:
            return view
        note = "the broker is away: devices are neither told nor heard"
        return msgspec.structs.replace(view, note=f"{note}; {view.note}" if view.note else note)

    async def _audit(self, request: Request) -> Response:
        number, before = _number(request, "rollout"), _number(request, "before")
        thing = request.query_params.get("thing")
        entries = await self.database.read(
            lambda db: audit.entries(db, rollout=number, thing=thing, before=before, limit=_LISTED)
        )
        return answer(views.AuditList(entries=entries))


def answer(value: msgspec.Struct, status: int = HTTPStatus.OK) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def problem(error: EdgeSdkError, status: int | None = None) -> Response:
    """An error of the product's tree as JSON, under the status that says whose fault it is."""
    statuses: dict[type[EdgeSdkError], int] = {
        NotKnownError: HTTPStatus.NOT_FOUND,
        InputError: HTTPStatus.BAD_REQUEST,
        AdmissionError: HTTPStatus.CONFLICT,
        TransferError: HTTPStatus.BAD_GATEWAY,
        FleetError: HTTPStatus.CONFLICT,
    }
    found = (code for kind, code in statuses.items() if isinstance(error, kind))
    view = views.Problem(
        kind=type(error).__name__, message=error.message, where=error.where, remedy=error.remedy
    )
    return answer(view, status or next(found, HTTPStatus.INTERNAL_SERVER_ERROR))


def _plan(asked: views.DeployRequest, found: Resolved) -> Plan:
    return Plan(
        model=check_name(asked.model or found.name, "model"),
        ref=found.ref,
        digest=found.digest,
        version=found.version,
        selector=asked.selector,
        stages=asked.stages,
        gates=changed(Gates(), asked.gates),
        canary=asked.canary,
        approve=asked.approve,
        allow_older=asked.allow_older,
        keep=asked.keep,
    )


async def _body(request: Request, type_: type[T]) -> T:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_LIMIT:
            raise ConfigError(f"the request has more than {BODY_LIMIT} bytes")
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.DecodeError as error:
        raise ConfigError(f"the request is not understood: {error}") from error


def _by(request: Request) -> str:
    """Who asks, as the client says: the name is for people, the token is what lets in."""
    claimed = request.headers.get("x-edge-sdk-by", "")
    host = request.client.host if request.client else ""
    return "".join(filter(str.isprintable, claimed))[:64] or host


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise ConfigError(f"{text!r} is no number", where=name)
    return int(text)
