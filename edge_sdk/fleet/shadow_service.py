"""Answers shadow requests that come over the broker, and those of the server itself.

::

    broker -> receive -> waiting -> (one thread: apply, commit) -> replies -> acknowledgement

While one batch is committed the next one gathers, so batches grow with the load. Nothing is
replied before it is durable, and nothing is acknowledged to the broker before it is replied:
what a server had not finished when it died, it is asked again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_sdk.fleet.bus import FleetBus
from edge_sdk.fleet.database.engine import Database
from edge_sdk.fleet.shadow_store import Key, KeyedRequest, ShadowStore
from edge_sdk.shadow import algebra, topics
from edge_sdk.shadow.algebra import Limits, Outcome, Reply
from edge_sdk.shadow.document import Shadow
from edge_sdk.shadow.requests import Request
from edge_sdk.shadow.topics import ROOTS, Address, Operation
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt.client import Received

_LOG = logging.getLogger(__name__)
_MOST_PER_COMMIT = 1000
_FORGET_EVERY_S = 3600
_TO_EVERYONE = ("delta", "documents")


@dataclass(frozen=True)
class Change:
    """A shadow as it is since a commit."""

    thing: str
    name: str
    shadow: Shadow


@dataclass(frozen=True)
class _Work:
    """A request with whoever waits for the replies: a client of the broker or a coroutine."""

    keyed: KeyedRequest
    address: Address | None = None
    received: Received | None = None
    answer: asyncio.Future[list[Reply]] | None = None


class ShadowService:
    """The shadows of a fleet.

    A thing is one set of shadows whatever root it speaks on: replies go to the root that a
    request came from, deltas and documents to every root.

    Args:
        database: Where shadows are kept.
        bus: The connection to the broker, not running yet.
        roots: Topic roots that are served.
        limits: Of documents.
        in_flight: Requests of one thing that may wait for their replies at once.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        database: Database,
        bus: FleetBus,
        *,
        roots: Sequence[str] = ROOTS,
        limits: Limits | None = None,
        in_flight: int = 10,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._store = ShadowStore(database.engine, limits)
        self._bus = bus
        self._roots = tuple(roots)
        self._most_in_flight = in_flight
        self._clock = clock
        self._waiting: list[_Work] = []
        self._in_flight: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._watchers: list[Callable[[Change], None]] = []
        filters = [one for root in roots for one in topics.requests(root)]
        bus.subscribe_batches(filters, self._receive)

    async def submit(
        self, thing: str, shadow: str, operation: Operation, payload: bytes
    ) -> list[Reply]:
        """A request of the server's own, in the same batches as all others.

        Returns:
            The replies, the first one ``accepted`` or ``rejected``; once this returns they are
            durable and on their way to the thing.
        """
        answer: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        keyed = KeyedRequest(Key(thing, shadow), Request(operation, payload))
        self._enqueue(_Work(keyed, answer=answer))
        return await answer

    def watch(self, watcher: Callable[[Change], None]) -> None:
        """Tells of every change after its commit; the watcher must not block."""
        self._watchers.append(watcher)

    async def run(self) -> None:
        """Answers until it is cancelled."""
        forget = asyncio.create_task(self._forget())
        try:
            while True:
                await self._wake.wait()
                batch, self._waiting = (
                    self._waiting[:_MOST_PER_COMMIT],
                    self._waiting[_MOST_PER_COMMIT:],
                )
                if not self._waiting:
                    self._wake.clear()
                await self._answer(batch)
        finally:
            forget.cancel()

    async def _receive(self, batch: list[Received]) -> None:
        done: list[Received] = []
        refusals: list[Message] = []
        for received in batch:
            parsed = topics.parse(received.topic, self._roots)
            if parsed is None:
                done.append(received)
                continue
            address, operation = parsed
            request = Request(operation, received.payload)
            if self._in_flight[address.thing] < self._most_in_flight:
                keyed = KeyedRequest(Key(address.thing, address.shadow), request)
                self._enqueue(_Work(keyed, address, received))
            else:
                reply = algebra.reject(request, 429, int(self._clock()))
                refusals.append(
                    Message(topics.reply(address, operation, reply.suffix), reply.payload)
                )
                done.append(received)
        if done:
            await self._bus.publish(refusals)
            self._bus.acknowledge(done)

    def _enqueue(self, work: _Work) -> None:
        if work.address:
            self._in_flight[work.address.thing] += 1
        self._waiting.append(work)
        self._wake.set()

    async def _answer(self, batch: list[_Work]) -> None:
        now = int(self._clock())
        requests = [work.keyed for work in batch]
        outcomes = await self._database.on_writer(lambda: self._apply(requests, now))
        messages: list[Message] = []
        for work, outcome in zip(batch, outcomes, strict=True):
            messages += self._messages(work, outcome.replies)
        await self._bus.publish(messages)
        self._bus.acknowledge([work.received for work in batch if work.received])
        for work, outcome in zip(batch, outcomes, strict=True):
            self._finish(work, outcome)

    def _apply(self, requests: list[KeyedRequest], now: int) -> list[Outcome]:
        """The outcomes; where nothing can be stored, reads are answered and writes are not."""
        try:
            return self._store.apply(requests, now)
        except Exception:  # at the edge: one batch must not end the service
            _LOG.exception("%d shadow requests could not be stored", len(requests))
        reads = [one for one in requests if one.request.operation == "get"]
        try:
            answers = iter(self._store.apply(reads, now))
        except Exception:
            answers, reads = iter(()), []
        return [
            next(answers)
            if reads and one.request.operation == "get"
            else Outcome(None, (algebra.reject(one.request, 500, now),))
            for one in requests
        ]

    def _messages(self, work: _Work, replies: Sequence[Reply]) -> list[Message]:
        key, request = work.keyed
        messages = []
        for reply in replies:
            if reply.suffix in _TO_EVERYONE:
                addresses = [Address(root, key.thing, key.name) for root in self._roots]
            else:
                addresses = [work.address] if work.address else []
            messages += [
                Message(topics.reply(address, request.operation, reply.suffix), reply.payload)
                for address in addresses
            ]
        return messages

    def _finish(self, work: _Work, outcome: Outcome) -> None:
        key, request = work.keyed
        if work.address:
            self._in_flight[key.thing] -= 1
            if not self._in_flight[key.thing]:
                del self._in_flight[key.thing]
        if work.answer and not work.answer.done():
            work.answer.set_result(list(outcome.replies))
        changed = request.operation != "get" and outcome.replies[0].suffix == "accepted"
        if changed and outcome.shadow is not None:
            for watcher in self._watchers:
                watcher(Change(key.thing, key.name, outcome.shadow))

    async def _forget(self) -> None:
        while True:
            try:
                now = int(self._clock())
                await self._database.on_writer(lambda: self._store.forget(now))
            except SQLAlchemyError:
                _LOG.exception("deleted shadows could not be dropped")
            await asyncio.sleep(_FORGET_EVERY_S)
