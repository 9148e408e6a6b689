"""Everything of the server that decides: devices, rollouts, audit, webhooks, and their API."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy.exc import SQLAlchemyError
from starlette.routing import Route

from edge_sdk.fleet import audit
from edge_sdk.fleet.api import Api
from edge_sdk.fleet.bus import FleetBus
from edge_sdk.fleet.config import FleetConfig
from edge_sdk.fleet.database.engine import Database, cause
from edge_sdk.fleet.device_events import DeviceEvents
from edge_sdk.fleet.devices import PRESENCE, Devices
from edge_sdk.fleet.door import Door
from edge_sdk.fleet.rollout_engine import RolloutEngine
from edge_sdk.fleet.shadow_service import Change, ShadowService
from edge_sdk.fleet.tasks import together
from edge_sdk.fleet.webhooks import Webhooks

_LOG = logging.getLogger(__name__)
_FORGET_EVERY_S = 3600


class Control:
    """Puts the parts together.

    Args:
        config: Of the server.
        database: Where everything is kept.
        shadows: The shadow service.
        bus: The connection to the broker, not running yet.
        clock: Seconds since 1970.

    Raises:
        ConfigError: A webhook's secret is none.
    """

    def __init__(
        self,
        config: FleetConfig,
        database: Database,
        shadows: ShadowService,
        bus: FleetBus,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._database = database
        self._clock = clock
        self._remember_s = config.audit.days * 86_400
        self._devices = Devices(database, clock)
        self._webhooks = Webhooks(config.webhooks, database, clock)
        self._engine = RolloutEngine(database, shadows, self._devices, self._webhooks, clock)
        self._api = Api(
            database,
            self._devices,
            bus,
            self._engine,
            shadows,
            store=config.store_folder,
            door=Door(config.http.token, config.http.public),
        )
        bus.subscribe(PRESENCE, self._devices.receive)
        self._events = DeviceEvents(bus, database, self._webhooks, clock)
        shadows.watch(self._changed)

    @property
    def routes(self) -> list[Route]:
        """What the API serves."""
        return self._api.routes()

    async def load(self) -> None:
        """Reads what the server knew when it ended; to be called before anything runs."""
        await self._devices.load()
        await self._engine.load()

    async def run(self) -> None:
        """Decides until it is cancelled, then writes down what devices were last heard of."""
        try:
            await together(
                self._engine.run(lambda: self._bus.connected),
                self._webhooks.run(),
                self._forget(),
            )
        finally:
            await self._devices.save(at_once=True)

    async def _forget(self) -> None:
        """Drops what has been in the audit for long enough, now and then."""
        while True:
            before = self._clock() - self._remember_s
            try:
                await self._database.write(partial(audit.forget, before=before))
            except SQLAlchemyError as error:
                _LOG.error("old entries of the audit could not be dropped: %s", cause(error))
            await asyncio.sleep(_FORGET_EVERY_S)

    def _changed(self, change: Change) -> None:
        if self._devices.changed(change):
            self._engine.wake()
