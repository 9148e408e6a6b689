"""amqtt as a broker within the server's own process, for machines without Mosquitto."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker

from edge_sdk.transport.address import BrokerAddress

_LISTENER = "default"
_MQTT_5 = 5
_UNSUPPORTED_VERSION = bytes((0x20, 3, 0, 0x84, 0))  # CONNACK of MQTT 5


@asynccontextmanager
async def embedded_broker(address: BrokerAddress) -> AsyncIterator[None]:
    """Runs the broker.

    It speaks MQTT 3.1.1 only, and would misread the CONNECT of MQTT 5 and wait for the rest
    for ever; so that is looked at here, and refused as the standard says.

    Raises:
        OSError: The address cannot be listened on.
    """
    for library in ("amqtt", "transitions"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    broker = Broker(
        {
            "listeners": {_LISTENER: {"type": "external"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {}},
        }
    )

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, asyncio.CancelledError):
            head = await _until_version(reader)
            if head[-1] == _MQTT_5:
                writer.write(_UNSUPPORTED_VERSION)
                await writer.drain()
            else:
                adapters = _Reader(head, reader), StreamWriterAdapter(writer)
                await broker.external_connected(*adapters, _LISTENER)
        writer.close()

    await broker.start()
    server = await asyncio.start_server(connected, address.host, address.port)
    try:
        yield
    finally:
        server.close()
        await broker.shutdown()


async def _until_version(reader: asyncio.StreamReader) -> bytes:
    """A CONNECT packet up to its protocol level (MQTT 3.1.1, sections 2.2 and 3.1)."""
    head = await reader.readexactly(2)
    while head[-1] & 0x80:  # the length goes on
        head += await reader.readexactly(1)
    return head + await reader.readexactly(7)


class _Reader(StreamReaderAdapter):  # type: ignore[misc]  # amqtt has no types
    """Gives once more what was looked at."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._head = head

    async def read(self, n: int = -1) -> bytes:
        """Reads ``n`` bytes, or to the end."""
        if not self._head:
            return cast(bytes, await super().read(n))
        given, self._head = self._head[:n], self._head[n:]
        return given + cast(bytes, await super().read(n - len(given)))
