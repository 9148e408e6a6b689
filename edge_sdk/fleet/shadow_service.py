"""Answers shadow requests that come over the broker, and those of the server itself.

::

    broker -> waiting -> (the database's thread: apply, commit) -> outbox -> broker

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
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from edge_sdk.fleet.bus import FleetBus
from edge_sdk.fleet.database.engine import Database, cause
from edge_sdk.fleet.shadow_store import ShadowStore
from edge_sdk.fleet.tasks import together
from edge_sdk.shadow import algebra, topics
from edge_sdk.shadow.algebra import Outcome, Reply
from edge_sdk.shadow.document import Shadow
from edge_sdk.shadow.requests import INTERNAL_FAILURE, TOO_MANY_REQUESTS, Limits, Request
from edge_sdk.shadow.topics import ROOTS, Address, Operation
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt.codec import Received

_LOG = logging.getLogger(__name__)
_MOST_PER_COMMIT = 1000
_FORGET_EVERY_S = 3600


@dataclass(frozen=True)
class Change:
    """A shadow as it is since a commit."""

    thing: str
    name: str
    shadow: Shadow


@dataclass(frozen=True)
class _Work:
    """A request, and who waits for the replies: a client of the broker or a coroutine."""

    request: Request
    received: Received | None = None
    answer: asyncio.Future[list[Reply]] | None = None


_Answered = tuple[_Work, Outcome]


class ShadowService:
    """The shadows of a fleet.

    A thing is one set of shadows whatever root it speaks on: what a device must hear of goes
    to every root, other replies go to the root that the request came from.

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
        self._outbox: asyncio.Queue[list[_Answered]] = asyncio.Queue()
        self._watchers: list[Callable[[Change], None]] = []
        filters = [one for root in roots for one in topics.requests(root)]
        bus.subscribe_batches(filters, self._receive)

    async def submit(
        self, thing: str, shadow: str, operation: Operation, payload: bytes
    ) -> list[Reply]:
        """A request of the server's own, in the same batches as all others.

        Returns:
            The replies, the first one ``accepted`` or ``rejected``; what they say is durable
            and on its way to the thing. A server that dies before that must submit it again,
            as nobody else will: else a thing would not hear of what is stored.
        """
        answer: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        request = Request(Address("", thing, shadow), operation, payload)
        self._enqueue(_Work(request, answer=answer))
        return await answer

    def watch(self, watcher: Callable[[Change], None]) -> None:
        """Tells of every change after its commit; the watcher must not block."""
        self._watchers.append(watcher)

    async def run(self) -> None:
        """Answers until it is cancelled."""
        await together(self._answer_all(), self._deliver_all(), self._forget())

    async def _answer_all(self) -> None:
        while True:
            await self._wake.wait()
            batch = self._waiting[:_MOST_PER_COMMIT]
            del self._waiting[:_MOST_PER_COMMIT]
            if not self._waiting:
                self._wake.clear()
            await self._answer(batch)

    async def _deliver_all(self) -> None:
        """Sends what was committed, in order; while the broker is away it gathers here."""
        while True:
            answered = await self._outbox.get()
            await self._bus.publish(
                [
                    message
                    for work, outcome in answered
                    for message in self._messages(work.request, outcome.replies)
                ]
            )
            self._bus.acknowledge([work.received for work, _ in answered if work.received])
            for work, outcome in answered:
                self._release(work)
                if work.answer and not work.answer.done():
                    work.answer.set_result(list(outcome.replies))

    async def _receive(self, batch: list[Received]) -> None:
        done: list[Received] = []
        refusals: list[Message] = []
        for received in batch:
            parsed = topics.parse(received.topic, self._roots)
            # What the broker retains was asked once; it comes again at each subscription.
            if parsed is None or received.retain:
                done.append(received)
                continue
            request = Request(*parsed, received.payload)
            # What is delivered again, after an outage of the broker, was let in before.
            busy = self._in_flight[request.address.thing] >= self._most_in_flight
            if received.duplicate or not busy:
                self._enqueue(_Work(request, received))
            else:
                refusal = algebra.reject(request, TOO_MANY_REQUESTS, int(self._clock()))
                refusals += self._messages(request, [refusal])
                done.append(received)
        if done:
            await self._bus.publish(refusals)
            self._bus.acknowledge(done)

    def _enqueue(self, work: _Work) -> None:
        if work.received:
            self._in_flight[work.request.address.thing] += 1
        self._waiting.append(work)
        self._wake.set()

    async def _answer(self, batch: list[_Work]) -> None:
        now = int(self._clock())
        requests = [work.request for work in batch]
        outcomes = await self._database.on_writer(lambda: self._apply(requests, now))
        answered = list(zip(batch, outcomes, strict=True))
        for work, outcome in answered:
            self._tell_watchers(work.request, outcome)
        self._outbox.put_nowait(answered)

    def _apply(self, requests: list[Request], now: int) -> list[Outcome]:
        """The outcomes; where nothing can be stored, reads are answered and the rest is not."""
        stored = self._try(requests, now)
        if stored:
            return stored
        reads = [request for request in requests if request.operation == "get"]
        answers = iter(self._try(reads, now) or [_refused(request, now) for request in reads])
        return [
            next(answers) if request.operation == "get" else _refused(request, now)
            for request in requests
        ]

    def _try(self, requests: list[Request], now: int) -> list[Outcome]:
        try:
            return self._store.apply(requests, now)
        except SQLAlchemyError as error:
            _LOG.error("%d shadow requests could not be stored: %s", len(requests), cause(error))
        except Exception:  # noqa: BLE001 - one batch must not end the service
            _LOG.exception("%d shadow requests could not be answered", len(requests))
        return []

    def _messages(self, request: Request, replies: Sequence[Reply]) -> list[Message]:
        address = request.address
        messages = []
        for reply in replies:
            roots = self._roots if reply.everyone else (address.root,)
            for root in filter(None, roots):  # the server's own requests come by none
                to = Address(root, address.thing, address.shadow)
                topic = topics.reply(to, request.operation, reply.suffix)
                messages.append(Message(topic, reply.payload, qos=_qos(reply)))
        return messages

    def _tell_watchers(self, request: Request, outcome: Outcome) -> None:
        accepted = outcome.replies[0].suffix == "accepted"
        if accepted and request.operation != "get" and outcome.shadow:
            for watcher in self._watchers:
                watcher(Change(request.address.thing, request.address.shadow, outcome.shadow))

    def _release(self, work: _Work) -> None:
        if work.received:
            thing = work.request.address.thing
            self._in_flight[thing] -= 1
            if not self._in_flight[thing]:
                del self._in_flight[thing]

    async def _forget(self) -> None:
        while True:
            now = int(self._clock())
            try:
                await self._database.on_writer(partial(self._store.forget, now))
            except SQLAlchemyError as error:
                _LOG.error("deleted shadows could not be dropped: %s", cause(error))
            await asyncio.sleep(_FORGET_EVERY_S)


def _qos(reply: Reply) -> int:
    # Documents are for those who watch: without their acknowledgements a service does 15 % more.
    # The broker has them for certain all the same: they go before the request's own
    # acknowledgement, on the same connection.
    return 0 if reply.suffix == "documents" else 1


def _refused(request: Request, now: int) -> Outcome:
    return Outcome(None, (algebra.reject(request, INTERNAL_FAILURE, now),))
