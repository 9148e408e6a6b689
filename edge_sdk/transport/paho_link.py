"""A :class:`~edge_sdk.transport.link.Link` over paho-mqtt: what an agent talks to a broker with.

One thread makes connections and waits between them. Every connection has a paho client of
its own, so that nothing that was under way on a broken one is sent on the next.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.link import Handler, Message
from edge_sdk.transport.paho_connection import (
    FAREWELL_SECONDS,
    PahoConnection,
    Subscription,
)
from edge_sdk.transport.topic_filter import check

log = logging.getLogger(__name__)


class PahoLink:
    """A connection to a broker that comes back by itself; MQTT 5, else 3.1.1.

    Args:
        address: The broker.
        client_id: Unique among its clients: one that comes pushes the other out.
        will: Makes the message that the broker publishes when the connection breaks off;
            asked before every connection, so that each may have its own.
        keepalive: Seconds of silence after which the broker is asked whether it is there;
            after as many more the connection is given up.
        backoff: Delays between attempts.

    Raises:
        ConfigError: Files of the address cannot be read.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        *,
        will: Callable[[], Message] | None = None,
        keepalive: int = 30,
        backoff: Backoff | None = None,
    ) -> None:
        address.ssl_context()  # what is wrong with its files is said at once
        self._address = address
        self._client_id = client_id
        self._will = will
        self._keepalive = keepalive
        self._backoff = backoff or Backoff()
        self._subscriptions: list[Subscription] = []
        self._connection: PahoConnection | None = None
        self._modern = True
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._on_change: Callable[[bool], None] = lambda connected: None
        self._problem: str | None = None

    @property
    def connected(self) -> bool:
        """Whether the broker is reached now, and has taken our subscriptions."""
        connection = self._connection
        return connection is not None and connection.ready

    @property
    def problem(self) -> str | None:
        """Why there is no connection; ``None`` while there is one, or before it was tried."""
        return self._problem

    def open(self, on_change: Callable[[bool], None]) -> None:
        """Connects in the background; tells every change of ``connected``."""
        self._on_change = on_change
        self._thread = threading.Thread(target=self._run, name="mqtt-link", daemon=True)
        self._thread.start()

    def subscribe(self, topic_filter: str, handler: Handler, qos: int = 1) -> None:
        """Hands every message that matches to the handler, now and after reconnects.

        Raises:
            ConfigError: It is no filter.
        """
        subscription = Subscription(check(topic_filter), handler, qos)
        with self._lock:
            self._subscriptions.append(subscription)
            connection = self._connection
        if connection is not None and connection.accepted:
            connection.subscribe([subscription])

    def publish(self, message: Message) -> bool:
        """Hands a message to the broker.

        Returns:
            Whether there is a connection that takes it.
        """
        connection = self._connection
        return connection is not None and connection.ready and connection.publish(message)

    def close(self, farewell: Message | None = None) -> None:
        """Says the farewell in place of the will and disconnects; not to be called by handlers."""
        self._closing.set()
        connection = self._connection
        if connection is not None:
            if farewell is not None and connection.ready:
                connection.publish(farewell, FAREWELL_SECONDS)
            connection.end()
        if self._thread is not None:
            self._thread.join(FAREWELL_SECONDS * 2)

    def _run(self) -> None:
        while not self._closing.is_set():
            began = time.monotonic()
            if self._connect_once():
                self._backoff.succeeded(time.monotonic() - began)
            self._closing.wait(self._backoff.delay())

    def _connect_once(self) -> bool:
        """Connects and stays for as long as that lasts; whether the broker ever let us in."""
        ready_at: float | None = None

        def ready() -> None:
            nonlocal ready_at
            ready_at = time.monotonic()
            self._problem = None
            log.info("%s: connected", self._address)
            self._on_change(True)

        connection = self._connection = PahoConnection(
            self._address,
            self._client_id,
            keepalive=self._keepalive,
            modern=self._modern,
            will=self._will() if self._will else None,
            subscriptions=self._snapshot,
            on_ready=ready,
        )
        if not self._closing.is_set():
            connection.run()
        self._connection = None
        if connection.unanswered:
            self._modern = not self._modern
        if not self._closing.is_set() and connection.problem != self._problem:
            self._problem = connection.problem
            hint = self._hint(ready_at)
            log.warning("%s: not connected: %s%s", self._address, connection.problem, hint)
        if ready_at is not None:
            self._on_change(False)
        return ready_at is not None

    def _hint(self, ready_at: float | None) -> str:
        """What to look at where the broker ended a connection soon; few brokers say why."""
        if ready_at is None or time.monotonic() - ready_at > self._keepalive:
            return ""
        return f"; does another client call itself {self._client_id!r}?"

    def _snapshot(self) -> list[Subscription]:
        with self._lock:
            return list(self._subscriptions)
