"""The server's one connection to the broker, shared by everything that speaks on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt.client import Client, Received

_LOG = logging.getLogger(__name__)
_WAITING_BATCHES = 64

Handler = Callable[[Received], Awaitable[None]]
BatchHandler = Callable[[list[Received]], Awaitable[None]]


class FleetBus:
    """Hands what the broker delivers to whoever subscribed, and publishes.

    Every subscription has a queue of its own, so a slow one does not hold up the others until
    its queue is full. A message is acknowledged once it has been handled: what a server had
    not finished when it was killed, the broker delivers again.

    Args:
        address: The broker.
        client_id: Names the session that the broker keeps while the server is away; one
            server per broker may have it.
    """

    def __init__(self, address: BrokerAddress, client_id: str) -> None:
        self._client = Client(address, client_id)
        self._subscriptions: list[_Subscription] = []
        self.connected = asyncio.Event()

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Hands over messages one after another; to be called before ``run``."""

        async def each(batch: list[Received]) -> None:
            for received in batch:
                await handler(received)
            self.acknowledge(batch)

        self.subscribe_batches((topic_filter,), each)

    def subscribe_batches(self, topic_filters: Sequence[str], handler: BatchHandler) -> None:
        """Hands over all messages of one read at once; the handler sees to acknowledging them."""
        self._subscriptions.append(_Subscription(tuple(topic_filters), handler))

    def acknowledge(self, batch: Sequence[Received]) -> None:
        """Tells the broker that these are dealt with."""
        self._client.acknowledge(batch)

    async def publish(self, messages: Sequence[Message]) -> None:
        """Hands messages to the broker; those that meet no connection are dropped."""
        await self._client.publish(messages)
