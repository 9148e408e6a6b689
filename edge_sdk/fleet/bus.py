"""The server's one connection to the broker, shared by everything that speaks on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

from edge_sdk.fleet.tasks import together
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt.client import Client
from edge_sdk.transport.mqtt.codec import Received
from edge_sdk.transport.topic_filter import matches

_LOG = logging.getLogger(__name__)
_SESSION_S = 3600  # for so long the broker keeps what comes while the server is away
_WAITING_BATCHES = 64
_REMEMBERED_TOPICS = 16_384

Handler = Callable[[Received], Awaitable[None]]
BatchHandler = Callable[[list[Received]], Awaitable[None]]


class FleetBus:
    """Hands what the broker delivers to whoever subscribed, and publishes.

    Every subscription has a queue of its own, so that a slow one holds up the others only once
    its queue is full. A message is acknowledged when it has been dealt with: what a server had
    not finished when it died, the broker delivers again.

    Args:
        address: The broker.
        client_id: Names the session that the broker keeps while the server is away; only one
            server per broker may have it.
    """

    def __init__(self, address: BrokerAddress, client_id: str) -> None:
        # One server is no crowd, and a whole fleet waits for it.
        backoff = Backoff(shortest=0.5, longest=10.0)
        self._client = Client(address, client_id, session_seconds=_SESSION_S, backoff=backoff)
        self._subscriptions: list[_Subscription] = []
        self._wanting = lru_cache(_REMEMBERED_TOPICS)(self._find)

    @property
    def connected(self) -> bool:
        """Whether the broker is reached now."""
        return self._client.connected

    async def wait_connected(self) -> None:
        """Returns as soon as the broker is reached; ``run`` must be under way."""
        await self._client.wait_connected()

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Hands over messages one after another; to be called before ``run``."""

        async def each(batch: list[Received]) -> None:
            for received in batch:
                await _try(handler, received)
            self.acknowledge(batch)

        self.subscribe_batches((topic_filter,), each)

    def subscribe_batches(self, topic_filters: Sequence[str], handler: BatchHandler) -> None:
        """Hands over all messages of one read at once; the handler has them acknowledged."""
        self._subscriptions.append(_Subscription(tuple(topic_filters), handler))

    def acknowledge(self, batch: Sequence[Received]) -> None:
        """Tells the broker that these have been dealt with."""
        self._client.acknowledge(batch)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Hands messages to the broker; waits for it where it is away."""
        await self._client.publish(messages)

    async def run(self) -> None:
        """Serves the subscriptions until it is cancelled; connects again when it must."""
        await together(self._read(), *(one.work() for one in self._subscriptions))

    async def _read(self) -> None:
        filters = [one for subscription in self._subscriptions for one in subscription.filters]
        async with self._client as client:
            await client.subscribe(filters)
            async for batch in client.batches():
                await self._hand_out(batch)

    async def _hand_out(self, batch: list[Received]) -> None:
        shares: dict[_Subscription, list[Received]] = {}
        strangers = []
        for received in batch:
            subscription = self._wanting(received.topic)
            if subscription:
                shares.setdefault(subscription, []).append(received)
            else:
                strangers.append(received)  # of an earlier server with the same session
        if strangers:
            self.acknowledge(strangers)
        for subscription, share in shares.items():
            await subscription.queue.put(share)

    def _find(self, topic: str) -> _Subscription | None:
        return next((one for one in self._subscriptions if one.wants(topic)), None)


class _Subscription:
    def __init__(self, filters: tuple[str, ...], handler: BatchHandler) -> None:
        self.filters = filters
        self.queue: asyncio.Queue[list[Received]] = asyncio.Queue(_WAITING_BATCHES)
        self._handler = handler

    def wants(self, topic: str) -> bool:
        return any(matches(one, topic) for one in self.filters)

    async def work(self) -> None:
        while True:
            await self._handler(await self.queue.get())


async def _try(handler: Handler, received: Received) -> None:
    try:
        await handler(received)
    except Exception:  # noqa: BLE001 - one message must not end the server
        _LOG.exception("a message on %s could not be handled", received.topic)
