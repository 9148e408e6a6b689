"""A client of the shadow service, and the service itself, in one event loop with the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from edge_sdk.fleet.bus import FleetBus
from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.shadow_service import ShadowService
from edge_sdk.fleet.tasks import together
from edge_sdk.shadow import topics
from edge_sdk.shadow.topics import ROOTS, Address, Operation
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt.client import Client

PATIENCE = 20.0
PING = f"{ROOTS[0]}/ping/shadow/get/accepted"
Test = Callable[[], Coroutine[Any, Any, None]]


def run(test: Test) -> None:
    """Runs a test's coroutine, and fails where it hangs."""
    asyncio.run(asyncio.wait_for(test(), 3 * PATIENCE))


@asynccontextmanager
async def service(
    broker_url: str, database: Database, **options: Any
) -> AsyncIterator[ShadowService]:
    """A shadow service that is connected."""
    bus = FleetBus(BrokerAddress.parse(broker_url), "service")
    shadows = ShadowService(database, bus, **options)
    running = asyncio.ensure_future(together(bus.run(), shadows.run()))
    try:
        await until(lambda: bus.connected or running.done())
        yield shadows
    finally:
        running.cancel()
        await asyncio.wait([running])
    if not running.cancelled():
        running.result()


@asynccontextmanager
async def held(database: Database) -> AsyncIterator[None]:
    """Nothing can be written meanwhile."""
    release = threading.Event()
    busy = asyncio.ensure_future(database.on_writer(release.wait))
    try:
        yield
    finally:
        release.set()
        await busy


async def until(condition: Callable[[], object]) -> None:
    """Returns as soon as it holds."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


class Speaker:
    """Speaks for things, and hears all that a service says of them.

    Attributes:
        heard: Messages so far, oldest first: topic and decoded payload.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.heard: list[tuple[str, Any]] = []
        self._tokens = 0
        self._answers: dict[str, tuple[str, Any]] = {}

    async def send(
        self, thing: str, operation: Operation, body: Any = None, root: str = ROOTS[0],
        shadow: str = "",
    ) -> str:  # fmt: skip
        """Sends a request, and gives its client token."""
        self._tokens += 1
        token = f"token-{self._tokens}"
        content = {**(body or {}), "clientToken": token}
        topic = topics.request(Address(root, thing, shadow), operation)
        await self.client.publish([Message(topic, msgspec.json.encode(content))])
        return token

    async def ask(self, *arguments: Any, **options: Any) -> tuple[str, Any]:
        """Sends a request; gives the suffix and the content of its answer."""
        return await self.answer(await self.send(*arguments, **options))

    async def answer(self, token: str) -> tuple[str, Any]:
        """Waits for ``accepted`` or ``rejected`` of a request."""

        await until(lambda: token in self._answers)
        return self._answers[token]

    async def on(self, topic: str, count: int = 1) -> list[Any]:
        """Waits for so many messages on a topic; gives what they say."""

        def found() -> list[Any]:
            return [content for heard, content in self.heard if heard == topic]

        await until(lambda: len(found()) >= count)
        return found()

    async def round_trip(self) -> None:
        """Returns when the broker has passed on all that it was given before."""
        await self.client.publish([Message(PING, b"{}")])
        await self.on(PING)

    async def listen(self) -> None:
        """Collects what comes until it is cancelled."""
        async for batch in self.client.batches():
            for one in batch:
                content = msgspec.json.decode(one.payload)
                self.heard.append((one.topic, content))
                suffix = one.topic.rpartition("/")[2]
                if suffix in ("accepted", "rejected"):
                    self._answers[content.get("clientToken", "")] = suffix, content
            self.client.acknowledge(batch)


@asynccontextmanager
async def speaker(broker_url: str, roots: Sequence[str] = ROOTS) -> AsyncIterator[Speaker]:
    """A client that is connected and listens."""
    async with Client(BrokerAddress.parse(broker_url), "speaker", session_seconds=60) as client:
        replies = ("accepted", "rejected", "delta", "documents")
        shadows = [f"{root}/+/shadow{name}/+" for root in roots for name in ("", "/name/+")]
        await client.subscribe([f"{shadow}/{reply}" for shadow in shadows for reply in replies])
        await client.wait_connected()
        made = Speaker(client)
        listening = asyncio.ensure_future(made.listen())
        try:
            yield made
        finally:
            listening.cancel()
