"""Devices that speak MQTT as an agent does, and install nothing: what they are asked for runs.

Each has a connection, a will and heartbeats of its own, so going offline is real.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from edge_sdk.shadow.models import SHADOW, Presence
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.link import Message
from edge_sdk.transport.paho_link import PahoLink

INTERVAL = 0.5
Object = dict[str, Any]
# What a device reports of a model once it is asked for a version.
Behaviour = Callable[[Object], Object]


def obeys(wanted: Object) -> Object:
    return {
        "version": wanted["version"], "digest": wanted["digest"], "wanted": wanted["digest"],
        "generation": wanted.get("generation", 0), "status": "running", "error": None,
        "canary": _canary(wanted, "running"), "health": {"requests": 100, "p95_ms": 10.0},
    }  # fmt: skip


def refuses(version: str) -> Behaviour:
    """Fails the self-test of one version, and keeps what it had."""

    def behave(wanted: Object) -> Object:
        if wanted["version"] != version:
            return obeys(wanted)
        return {
            "status": "failed", "wanted": wanted["digest"], "error": "self-test: logits differ",
            "generation": wanted.get("generation", 0), "canary": None,
        }  # fmt: skip

    return behave


def _canary(wanted: Object, status: str) -> Object | None:
    trial = wanted.get("canary")
    return trial and {"version": trial["version"], "digest": trial["digest"], "status": status}


class Gateway:
    """One device.

    Attributes:
        thing: Its name.
        asked: Versions that it was asked for, oldest first.
    """

    def __init__(
        self, broker: str, thing: str, behaviour: Behaviour = obeys, **labels: str
    ) -> None:
        self.thing = thing
        self.asked: list[str] = []
        self._behaviour = behaviour
        self._labels = labels
        self._base = f"edge/things/{thing}"
        self._shadow = f"{self._base}/shadow/name/{SHADOW}"
        self._stopping = threading.Event()
        self._again = threading.Event()
        self._link = PahoLink(
            BrokerAddress.parse(broker), f"gateway-{thing}", will=lambda: self._presence(False),
            backoff=Backoff(shortest=0.05, longest=0.2),
        )  # fmt: skip
        self._link.subscribe(f"{self._shadow}/update/delta", self._take)
        self._link.subscribe(f"{self._shadow}/get/accepted", self._take)
        self._thread = threading.Thread(target=self._live)
        self._link.subscribe(f"{self._shadow}/update/rejected", lambda _: self._again.set())
        self._link.open(self._changed)
        self._thread.start()

    def stop(self) -> None:
        """Leaves with a farewell."""
        self._stopping.set()
        self._thread.join()
        self._link.close(self._presence(False))

    def report(self, model: str, **fields: Any) -> None:
        """Reports something of a model."""
        self._update({"models": {model: fields}})

    def _live(self) -> None:
        while not self._stopping.wait(INTERVAL):
            self._link.publish(self._presence(True))
            if self._again.is_set():
                self._again.clear()
                self._link.publish(Message(f"{self._shadow}/get", b"{}"))

    def _changed(self, connected: bool) -> None:
        if connected:
            self._link.publish(self._presence(True))
            self._update({"agent": {"version": "1", "profile": "x86-64", "labels": self._labels}})
            self._link.publish(Message(f"{self._shadow}/get", b"{}"))

    def _take(self, message: Message) -> None:
        state = json.loads(message.payload)["state"]
        if message.topic.endswith("accepted"):
            state = state.get("desired", {})
        elif state.get("models"):
            # A delta has only what differs.
            self._link.publish(Message(f"{self._shadow}/get", b"{}"))
            return
        for model, wanted in state.get("models", {}).items():
            if wanted["version"] not in self.asked[-1:]:
                self.asked.append(wanted["version"])
            self.report(model, **self._behaviour(wanted))

    def _update(self, reported: Object) -> None:
        body = json.dumps({"state": {"reported": reported}}).encode()
        self._link.publish(Message(f"{self._shadow}/update", body))

    def _presence(self, online: bool) -> Message:
        said = Presence(online=online, session=self.thing, interval=INTERVAL)
        return Message(f"{self._base}/presence", msgspec.json.encode(said), retain=True)


@contextmanager
def gateways() -> Iterator[Callable[..., Gateway]]:
    """Makes devices that leave with the test."""
    made: list[Gateway] = []

    def make(*arguments: Any, **labels: str) -> Gateway:
        made.append(Gateway(*arguments, **labels))
        return made[-1]

    try:
        yield make
    finally:
        for gateway in made:
            gateway.stop()
