"""A cloud, a shelf of bundles and devices in one process, under a clock that is set by hand.

All of it is the product's own code but the shelf, which reads bundles from a folder, and the
clock.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_sdk.agent.agent import Agent
from edge_sdk.agent.assembly import Surroundings, assemble
from edge_sdk.agent.config import AgentConfig, BrokerConfig, HttpConfig
from edge_sdk.agent.delivery import Delivery
from edge_sdk.agent.health_gate import Gate
from edge_sdk.agent.plan import Step
from edge_sdk.bundle import oci
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.reader import Bundle
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import TransferError
from edge_sdk.serving.router import Router
from edge_sdk.shadow import topics
from edge_sdk.shadow.algebra import apply
from edge_sdk.shadow.document import Shadow
from edge_sdk.shadow.events import Accepted, Batch, DeviceEvent, accepted_topic, events_topic
from edge_sdk.shadow.models import SHADOW, DesiredModel, Presence, Reported
from edge_sdk.shadow.requests import Request
from edge_sdk.transport.link import Message
from edge_sdk.transport.memory import MemoryBroker, MemoryLink
from edge_sdk.transport.source import Piece, Reference
from edge_sdk.transport.transfer import Retry

ROOT = topics.ROOTS[0]
BEGIN = 1_700_000_000.0


class Clock:
    """Seconds, set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Shelf:
    """Reads bundles from folders, as a registry would give them; counts what it gives.

    Attributes:
        open: Whether it is reached.
        bytes: Bytes of blobs and documents given.
        break_after: Bytes of a blob after which it breaks off; ``None`` for never.
    """

    def __init__(self) -> None:
        self.open = True
        self.bytes = 0
        self.break_after: int | None = None
        self._bundles: dict[str, Bundle] = {}

    def put(self, bundle: Bundle) -> None:
        self._bundles[bundle.descriptor.digest] = bundle

    def resolve(self, reference: Reference) -> Descriptor:
        self._check()
        if reference.digest not in self._bundles:
            raise TransferError("no such bundle", where=str(reference), passing=False)
        return self._bundles[reference.digest].descriptor

    def document(self, reference: Reference, descriptor: Descriptor) -> Piece:
        self._check()
        data = self._blobs(reference).read(descriptor.blob, oci.MANIFEST_LIMIT)
        self.bytes += len(data)
        return Piece(data, len(data))

    def read(self, reference: Reference, blob: Blob, offset: int = 0) -> Iterator[Piece]:
        data = self._blobs(reference).path(blob.digest).read_bytes()[offset:]
        for begin in range(0, len(data), 65536):
            self._check()
            if self.break_after is not None and offset + begin >= self.break_after:
                raise TransferError("the shelf breaks off")
            piece = data[begin : begin + 65536]
            self.bytes += len(piece)
            yield Piece(piece, len(piece))

    def close(self) -> None:
        pass

    def _blobs(self, reference: Reference) -> BlobStore:
        return BlobStore(self._bundles[reference.digest or ""].path)

    def _check(self) -> None:
        if not self.open:
            raise TransferError("the shelf is not reached")


class Cloud:
    """The shadow service, over a broker in memory.

    Attributes:
        broker: The broker.
        updates: Reports that came, oldest first.
        requests: Number of requests that came.
        answers: Whether they are answered.
        events: Thing -> what it told, each event once.
        batches: Messages of events that came.
    """

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.updates: list[dict[str, Any]] = []
        self.requests = 0
        self.answers = True
        self.events: dict[str, list[DeviceEvent]] = {}
        self.batches: list[Batch] = []
        self._reached: dict[tuple[str, str], int] = {}
        self._shadows: dict[topics.Address, Shadow | None] = {}
        self._link = MemoryLink(self.broker)
        self._link.open(lambda connected: None)
        for root in topics.ROOTS:
            for topic_filter in topics.requests(root):
                self._link.subscribe(topic_filter, self._handle)
        self._link.subscribe(events_topic("+"), self._hear)

    def desire(self, thing: str, models: dict[str, DesiredModel | None], root: str = ROOT) -> None:
        """Writes desired models; ``None`` takes one away."""
        patch = {"state": {"desired": {"models": msgspec.to_builtins(models)}}}
        self.request(topics.Address(root, thing, SHADOW), "update", patch)

    def request(self, address: topics.Address, operation: topics.Operation, body: Any) -> None:
        message = Message(topics.request(address, operation), msgspec.json.encode(body))
        self.broker.publish(message)

    def shadow(self, thing: str, root: str = ROOT, name: str = SHADOW) -> Shadow | None:
        return self._shadows.get(topics.Address(root, thing, name))

    def reported(self, thing: str, root: str = ROOT) -> Reported:
        shadow = self.shadow(thing, root)
        assert shadow is not None, "nothing was reported"
        return msgspec.convert(shadow.reported.state, Reported)

    def presence(self, thing: str) -> Presence:
        message = self.broker.retained[f"{ROOT}/{thing}/presence"]
        return msgspec.json.decode(message.payload, type=Presence)

    def _handle(self, message: Message) -> None:
        self.requests += 1
        if not self.answers:
            return
        found = topics.parse(message.topic)
        assert found is not None
        address, operation = found
        request = Request(address, operation, message.payload)
        outcome = apply(self._shadows.get(address), request, now=1)
        self._shadows[address] = outcome.shadow
        state = msgspec.json.decode(message.payload).get("state") or {}
        if "reported" in state:
            self.updates.append(state["reported"])
        for reply in outcome.replies:
            topic = topics.reply(address, operation, reply.suffix)
            self.broker.publish(Message(topic, reply.payload))

    def told(self, thing: str) -> list[tuple[str, str]]:
        """Kind and version of the events of a device."""
        return [(event.kind, event.version) for event in self.events.get(thing, ())]

    def _hear(self, message: Message) -> None:
        """Takes events as the fleet's server does."""
        thing = message.topic.split("/")[-2]
        batch = msgspec.json.decode(message.payload, type=Batch)
        self.batches.append(batch)
        if not self.answers:
            return
        last = self._reached.get((thing, batch.epoch), -1)
        self.events.setdefault(thing, []).extend(e for e in batch.events if e.seq > last)
        self._reached[thing, batch.epoch] = max(last, batch.events[-1].seq)
        accepted = Accepted(epoch=batch.epoch, seq=batch.events[-1].seq)
        self.broker.publish(Message(accepted_topic(thing), msgspec.json.encode(accepted)))


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Device:
    """An agent in this process.

    Attributes:
        clock: The time.
        begin: The date at its beginning, in seconds since 1970, by the device.
        die_at: A step and its moment that the agent does not survive.
        on_death: Called just before.
        steps: (Step's name, moment) of all steps so far.
    """

    def __init__(
        self, cloud: Cloud, shelf: Shelf, store: Path, thing: str = "gate-7", **fields: Any
    ) -> None:
        self.cloud, self.shelf = cloud, shelf
        self.clock = Clock()
        self.begin = BEGIN
        self.steps: list[tuple[str, str]] = []
        self.die_at: tuple[str, str] | None = None
        self.on_death: Callable[[], None] = lambda: None
        settings: dict[str, Any] = {
            "broker": BrokerConfig(url="mqtt://nowhere.test"),
            "profile": "x86-64",
            "http": HttpConfig(listen=""),
            "gate": Gate(seconds=60, min_requests=5, max_error_rate=0.2),
        }
        self.config = AgentConfig(thing=thing, store=str(store), **(settings | fields))
        self.start()

    def start(self) -> None:
        """Starts the agent; it connects if the broker runs."""
        self.router = Router()
        around = Surroundings(
            open_link=self._open_link,
            open_delivery=lambda link: Delivery(self.config, [self.shelf], Retry(attempts=1)),
            profile="x86-64",
            clock=self.clock,
            random=random.Random(7),
            perform=lambda work: work(),
            wake=lambda: None,
            observer=self._observe,
            time=lambda: self.begin + self.clock(),
        )
        self.agent: Agent = assemble(self.config, around, self.router)
        self.agent.open()

    def restart(self) -> None:
        """Ends the agent in good order, and starts it again."""
        self.agent.stop()
        self.close()
        self.start()

    def kill(self) -> None:
        """Forgets everything that is not on the disk, and starts the agent again."""
        self.link.drop()
        self.cloud.broker.leave(self.link)
        self.router.close()
        self.start()

    def close(self) -> None:
        self.agent.close()
        self.router.close()

    def settle(self, most: int = 200) -> None:
        """Lets the agent do all that can be done without waiting for long."""
        for _ in range(most):
            pause = self.agent.tick()
            if self.agent.settled or (self.agent.idle and not self.link.connected):
                return
            self.clock.now += 1.0 if pause is None else min(pause, 1.0)
        raise AssertionError(f"does not settle: {self.steps[-10:]}")

    def live(self, seconds: float) -> int:
        """Lets time pass; the number of turns of the loop that it took."""
        end, turns = self.clock.now + seconds, 0
        while self.clock.now < end:
            pause = self.agent.tick()
            turns += 1
            left = end - self.clock.now
            self.clock.now += left if pause is None else min(left, max(pause, 0.001))
        return turns

    def ask(self, row: int = 3, name: str = "lookup", version: str | None = None) -> float:
        """A local application's request."""
        with self.router.use(name, version) as served:
            return float(served.run({"x": np.array([row])})["y"][0])

    @property
    def config_folder(self) -> Path:
        return Path(self.config.store) / "agent"

    @property
    def report(self) -> Reported:
        return self.cloud.reported(self.config.thing)

    def done(self, name: str) -> int:
        """How often a step of that name has been done."""
        return self.steps.count((name, "done"))

    def _open_link(self, will: Any) -> MemoryLink:
        self.link = MemoryLink(self.cloud.broker, will=will)
        return self.link

    def _observe(self, step: Step, moment: str) -> None:
        self.steps.append((type(step).__name__, moment))
        if self.steps[-1] == self.die_at:
            self.on_death()
            raise Killed
