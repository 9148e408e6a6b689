"""A service that answers every update with its own bytes: what the broker could carry.

``python -m benchmarks.fleet.echo BROKER`` prints a line when it listens.
"""

from __future__ import annotations

import asyncio
import sys

from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt import Client

ROOT = "echo/things"


async def run(broker: str) -> None:
    """Answers until it is ended."""
    async with Client(BrokerAddress.parse(broker), "echo") as client:
        await client.subscribe([f"{ROOT}/+/shadow/name/bench/update"])
        await client.wait_connected()
        print("ready", flush=True)
        async for batch in client.batches():
            await client.publish(
                Message(f"{received.topic}/accepted", received.payload) for received in batch
            )
            client.acknowledge(batch)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1]))
