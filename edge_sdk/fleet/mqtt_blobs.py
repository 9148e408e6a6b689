"""Blobs over MQTT, the server's side: answers questions from its own store, in turn.

Every device has a short queue of questions and gets one message at a time, device after
device, so that none waits for another's blob and control messages of the server itself
wait for one piece at most.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from edge_sdk.errors import BundleError
from edge_sdk.fleet.bus import Handler
from edge_sdk.fleet.shelf import Shelf
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt.codec import Received
from edge_sdk.transport.mqtt_blobs import Data, Get, data_topic, get_topic, ranges
from edge_sdk.transport.packing import PACKED_UP_TO, pack

QUESTIONS = 32
"""Questions of one device that may wait; it repeats those that are dropped."""
LARGEST_QUESTION = 1024


class Bus(Protocol):
    """What is needed of :class:`~edge_sdk.fleet.bus.FleetBus`."""

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Hands over every message that matches."""

    async def publish(self, messages: list[Message]) -> None:
        """Hands messages to the broker."""


class MqttBlobs:
    """Serves a store to devices that reach nothing but the broker.

    Args:
        bus: The server's connection; subscribed to at once.
        store: Folder of the store.
        root: Topics before the thing's name.
    """

    def __init__(self, bus: Bus, store: Path, root: str) -> None:
        self._bus = bus
        self._shelf = Shelf(store)
        self._root = root
        self._waiting: dict[str, deque[Get]] = {}
        self._turns: deque[tuple[str, Iterator[Data]]] = deque()
        self._asked = asyncio.Event()
        bus.subscribe(get_topic(root, "+"), self._on_get)

    @property
    def busy(self) -> bool:
        """Whether a device waits for an answer."""
        return bool(self._waiting)

    async def run(self) -> None:
        """Answers until it is cancelled."""
        while True:
            await self._asked.wait()
            if not self._turns:
                self._asked.clear()
                continue
            thing, answers = self._turns.popleft()
            data = await asyncio.to_thread(next, answers, None)
            if data is None:
                self._next_question(thing)
                continue
            self._turns.append((thing, answers))
            payload = msgspec.msgpack.encode(data)
            await self._bus.publish([Message(data_topic(self._root, thing), payload, qos=0)])

    async def _on_get(self, received: Received) -> None:
        try:
            get = msgspec.msgpack.decode(received.payload[:LARGEST_QUESTION], type=Get)
        except msgspec.MsgspecError:
            return  # whoever asks like this would not understand the answer
        thing = received.topic[len(self._root) + 1 :].partition("/")[0]
        waiting = self._waiting.get(thing)
        if waiting is None:
            self._waiting[thing] = deque()
            self._turns.append((thing, self._answers(get)))
            self._asked.set()
        elif len(waiting) < QUESTIONS:
            waiting.append(get)

    def _next_question(self, thing: str) -> None:
        """Goes on with a device's next question, or forgets the device."""
        waiting = self._waiting[thing]
        if waiting:
            self._turns.append((thing, self._answers(waiting.popleft())))
        else:
            del self._waiting[thing]

    def _answers(self, get: Get) -> Iterator[Data]:
        """Reads what was asked for, piece by piece, as it is wanted."""
        try:
            for data in self._document(get) if get.document else self._blob(get):
                packs = get.packs and data.size <= PACKED_UP_TO
                yield _packed(data) if packs else data
        except (BundleError, OSError) as error:
            yield Data(get.stream, get.offset, error=f"the server's store is damaged: {error}")

    def _document(self, get: Get) -> Iterator[Data]:
        found = self._shelf.document(get.repository, get.name)
        if found is None:
            yield self._unknown(get)
            return
        about = found.descriptor
        for offset, length in ranges(get, len(found.data)):
            piece = found.data[offset : offset + length]
            yield Data(get.stream, offset, piece, about.size, about.digest, about.media_type)

    def _blob(self, get: Get) -> Iterator[Data]:
        blob = self._shelf.blob(get.repository, get.name)
        if blob is None:
            yield self._unknown(get)
            return
        with self._shelf.store.blobs.open(blob) as file:
            for offset, length in ranges(get, blob.size):
                piece = os.pread(file.fileno(), length, offset)
                yield Data(get.stream, offset, piece, blob.size, blob.digest)

    def _unknown(self, get: Get) -> Data:
        """Passing: it may be in another registry that is only away, or be installed soon."""
        error = f"the fleet's server has no {get.repository} {get.name}"
        return Data(get.stream, get.offset, error=error, passing=True)


def _packed(data: Data) -> Data:
    packed = pack(data.data)
    return data if packed is None else msgspec.structs.replace(data, data=packed, packed=True)
