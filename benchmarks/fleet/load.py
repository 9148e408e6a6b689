"""Devices that update their shadows as fast as they are answered: a process of its own.

``python -m benchmarks.fleet.load SETTINGS`` prints an :class:`Answered` as JSON.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque

import msgspec

from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt import Client

WARM_SECONDS = 1.0


class Settings(msgspec.Struct, frozen=True):
    """What the devices do.

    Attributes:
        broker: URL of the broker.
        root: Topics before the thing's name.
        devices: How many there are, each with a connection of its own.
        in_flight: Updates that a device sends before it is answered.
        seconds: How long answers are counted, after a second of running in.
    """

    broker: str
    root: str
    devices: int
    in_flight: int
    seconds: float


class Answered(msgspec.Struct, frozen=True):
    """How the devices were answered.

    Attributes:
        per_second: Answers of all devices together.
        p50_ms: Median time from an update to its answer.
        p99_ms: 99th percentile of the same.
        rejected: Answers that were no.
    """

    per_second: float
    p50_ms: float
    p99_ms: float
    rejected: int


class Device:
    """One thing with a shadow.

    Attributes:
        times: Milliseconds that each counted answer took.
        rejected: Answers that were no.
    """

    def __init__(self, settings: Settings, number: int) -> None:
        self.times: list[float] = []
        self.rejected = 0
        self._settings = settings
        self._topic = f"{settings.root}/device-{number}/shadow/name/bench/update"
        self._client = Client(BrokerAddress.parse(settings.broker), f"device-{number}")
        self._sent: deque[float] = deque()  # answers to one thing come in order
        self._updates = 0

    async def run(self, ready: asyncio.Semaphore, go: asyncio.Event) -> None:
        """Connects, waits for the others, and updates until time is up."""
        async with self._client as client:
            await client.subscribe([f"{self._topic}/accepted", f"{self._topic}/rejected"])
            await client.wait_connected()
            ready.release()
            await go.wait()
            begin = time.perf_counter() + WARM_SECONDS
            end = begin + self._settings.seconds
            await self._update(self._settings.in_flight)
            async for batch in client.batches():
                client.acknowledge(batch)
                now = time.perf_counter()
                for received in batch:
                    taken = now - self._sent.popleft()
                    self.rejected += received.topic.endswith("/rejected")
                    if begin < now < end:
                        self.times.append(taken * 1e3)
                if now > end:
                    return
                await self._update(len(batch))

    async def _update(self, count: int) -> None:
        messages = []
        for _ in range(count):
            self._updates += 1
            state = {"temperature": 20 + self._updates % 100 / 10, "count": self._updates}
            update = {"state": {"reported": state}, "clientToken": f"update-{self._updates}"}
            messages.append(Message(self._topic, msgspec.json.encode(update), qos=1))
            self._sent.append(time.perf_counter())
        await self._client.publish(messages)


async def run(settings: Settings) -> Answered:
    """All devices at once."""
    devices = [Device(settings, number) for number in range(settings.devices)]
    ready, go = asyncio.Semaphore(0), asyncio.Event()
    running = [asyncio.create_task(device.run(ready, go)) for device in devices]
    for _ in devices:
        await ready.acquire()
    go.set()
    await asyncio.gather(*running)
    times = sorted(taken for device in devices for taken in device.times)
    return Answered(
        per_second=len(times) / settings.seconds,
        p50_ms=times[len(times) // 2],
        p99_ms=times[len(times) * 99 // 100],
        rejected=sum(device.rejected for device in devices),
    )


def main() -> None:
    """Reads the settings from the command line."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    print(msgspec.json.encode(asyncio.run(run(settings))).decode())


if __name__ == "__main__":
    main()
