"""The fleet's server: broker, database, shadows, rollouts and API in one process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_sdk.fleet import blob_endpoint
from edge_sdk.fleet.broker import Broker, own_broker
from edge_sdk.fleet.bus import FleetBus
from edge_sdk.fleet.config import FleetConfig
from edge_sdk.fleet.control import Control
from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.door import Door
from edge_sdk.fleet.mqtt_blobs import MqttBlobs
from edge_sdk.fleet.shadow_service import ShadowService
from edge_sdk.fleet.tasks import together
from edge_sdk.serving.server import listen
from edge_sdk.shadow.topics import ROOTS

_CONNECT_S = 5
_GRACE_S = 2


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server is reached; what ``fleet serve --json`` prints once it is.

    Attributes:
        broker: URL of the broker.
        broker_kind: What it is, where the server has started it; else empty.
        database: URL of the database.
        http: URL of the API.
        store: Folder of the bundles that it hands out under ``/v2/``.
        token: Whether the API asks for a token.
        roots: Topic roots of shadows.
    """

    broker: str
    broker_kind: str
    database: str
    http: str
    store: str
    token: bool
    roots: tuple[str, ...]
    schema: str = "org.edge-sdk.fleet-serve/1"


async def serve(
    config: FleetConfig, stop: asyncio.Event, started: Callable[[Serving], None]
) -> None:
    """Serves a fleet until it is told to stop.

    Args:
        config: What to serve, and where.
        stop: Set when it shall end.
        started: Told where it is reached, once it is; the broker may be away still.

    Raises:
        ConfigError: A value does not work on this machine.
        FleetError: The broker or the database does not start, or another server serves it.
    """
    async with AsyncExitStack() as stack:
        database = stack.enter_context(closing(Database(config.database_url)))
        listener = stack.enter_context(listen(*config.listen))
        broker = await stack.enter_async_context(_broker(config))
        roots = [one for one in config.shadow.roots if broker.dollars or one[0] != "$"]
        serving = Serving(
            broker=str(broker.address),
            broker_kind=broker.name,
            database=database.shown,
            http=_url(listener),
            store=str(config.store_folder),
            token=config.http.token is not None,
            roots=tuple(roots),
        )
        bus = FleetBus(broker.address, config.broker.client_id)
        shadows = ShadowService(
            database, bus, roots=roots, limits=config.limits, in_flight=config.shadow.in_flight
        )
        control = Control(config, database, shadows, bus)
        await control.load()
        blobs = MqttBlobs(bus, config.store_folder, ROOTS[0])
        health = Route("/health", _health(bus, database))
        bundles = blob_endpoint.routes(
            config.store_folder, Door(config.http.token, config.http.public)
        )
        app = Starlette(routes=[health, *control.routes, *bundles])
        await together(
            _until(stop, bus, lambda: started(serving)),
            database.keep(),
            bus.run(),
            shadows.run(),
            control.run(),
            blobs.run(),
            _http(app, listener),
        )


async def _until(stop: asyncio.Event, bus: FleetBus, started: Callable[[], None]) -> None:
    # A broker that is away ends no server, and keeps it from no other work.
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(bus.wait_connected(), _CONNECT_S)
    started()
    await stop.wait()


@asynccontextmanager
async def _broker(config: FleetConfig) -> AsyncIterator[Broker]:
    address = config.broker_address
    if address is not None:
        yield Broker(address, "")
    else:
        async with own_broker(config.folder / "broker", config.broker.port) as own:
            yield own


def _health(bus: FleetBus, database: Database) -> Callable[[Request], Awaitable[Response]]:
    async def health(_: Request) -> Response:
        answers = await database.answers()
        good = answers and bus.connected
        return JSONResponse(
            {"healthy": good, "broker": bus.connected, "database": answers},
            status_code=200 if good else 503,
        )

    return health


async def _http(app: Starlette, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the process, which has more to end than HTTP."""
        yield


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
