"""One connection to a broker with a paho client of its own, served by the thread that asks."""

from __future__ import annotations

import logging
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_sdk.errors import ConfigError
from edge_sdk.transport.link import Handler, Message
from edge_sdk.transport.topic_filter import matches

if TYPE_CHECKING:
    from edge_sdk.transport.address import BrokerAddress

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
FAREWELL_SECONDS = 2.0
FILTERS_AT_ONCE = 8  # AWS IoT Core takes no more in one SUBSCRIBE
QUEUED = 1000  # messages that paho holds unacknowledged; beyond, it takes no more
TICK_SECONDS = 1.0  # how often paho looks whether a ping is due


@dataclass(frozen=True)
class Subscription:
    """A filter and who gets what matches it."""

    topic_filter: str
    handler: Handler
    qos: int


class PahoConnection:
    """One attempt to connect, and the connection that comes of it.

    Attributes:
        accepted: Whether the broker has let us in.
        ready: Whether it has also taken the subscriptions.
        unanswered: Whether it was reached but did not answer in the version that we spoke.
        problem: Why there is no connection.

    Args:
        address: The broker.
        client_id: Who we are.
        keepalive: Seconds of silence before the broker is asked whether it is there.
        modern: Whether MQTT 5 is spoken, else 3.1.1.
        will: What the broker publishes when the connection breaks off.
        subscriptions: The link's, as they are when the broker has let us in.
        on_ready: Told once the broker has taken the subscriptions.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        *,
        keepalive: int,
        modern: bool,
        will: Message | None,
        subscriptions: Callable[[], Sequence[Subscription]],
        on_ready: Callable[[], None],
    ) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        self.ready = False
        self.accepted = False
        self.unanswered = False
        self.problem = ""
        self._address = address
        self._keepalive = keepalive
        self._subscriptions = subscriptions
        self._on_ready = on_ready
        self._awaited: set[int] = set()
        self._complained = False
        self._end_by = float("inf")
        self._awake, self._wake = socket.socketpair()
        self._awake.setblocking(False)
        self._wake.setblocking(False)
        self._client = client = Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if modern else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_SECONDS
        client.max_queued_messages_set(QUEUED)
        if address.user is not None:
            client.username_pw_set(address.user, address.password)
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.on_socket_open = _without_delay
        client.on_socket_register_write = self._have_written
        client.on_connect = self._connected
        client.on_subscribe = self._subscribed
        client.on_message = self._received
        client.on_publish = self._published
        client.on_disconnect = self._disconnected

    def run(self) -> None:
        """Connects and serves the connection until it ends; ``problem`` then says why."""
        try:
            # Read anew every time: certificates are renewed while an agent runs.
            tls = self._address.ssl_context()
            if tls is not None:
                self._client.tls_set_context(tls)
            self._client.connect(self._address.host, self._address.port, self._keepalive)
            self.unanswered = True
            self._serve()
        except ConfigError as error:
            self.problem = str(error)
        except ssl.SSLCertVerificationError as error:
            self.problem = f"its certificate is not trusted: {error.verify_message}"
        except OSError as error:
            self.problem = error.strerror or str(error)
        except Exception as error:  # noqa: BLE001 -- paho's parser, on what is not MQTT
            self.problem = f"it sent what cannot be read: {error!r}"
        finally:
            self.ready = self.accepted = False
            for end in (self._client.socket(), self._awake, self._wake):
                if end is not None:
                    end.close()

    def publish(self, message: Message, seconds: float = 0.0) -> bool:
        """Hands a message to paho and waits so long for the broker's answer."""
        info = self._client.publish(message.topic, message.payload, message.qos, message.retain)
        if info.rc != 0:
            return False
        if seconds:
            info.wait_for_publish(seconds)
        return True

    def subscribe(self, subscriptions: Sequence[Subscription], *, wait: bool = False) -> None:
        """Asks the broker for what matches; it is ready only with the answer if we wait."""
        for start in range(0, len(subscriptions), FILTERS_AT_ONCE):
            some = subscriptions[start : start + FILTERS_AT_ONCE]
            _, packet = self._client.subscribe([(one.topic_filter, one.qos) for one in some])
            if wait and packet is not None:
                self._awaited.add(packet)

    def end(self) -> None:
        """Disconnects in good order, so that no will is published; soon, whatever happens."""
        self._end_by = time.monotonic() + FAREWELL_SECONDS
        self._client.disconnect()

    def _serve(self) -> None:
        """Runs the network loop of paho, on a thread whose exceptions are ours to report."""
        client, poll = self._client, select.poll()
        answer_by = time.monotonic() + CONNECT_SECONDS
        poll.register(self._awake, select.POLLIN)
        while (connection := client.socket()) is not None and time.monotonic() < self._end_by:
            interest = select.POLLIN | (select.POLLOUT if client.want_write() else 0)
            poll.register(connection, interest)
            decrypted = isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
            events = dict(poll.poll(0 if decrypted else TICK_SECONDS * 1e3))
            if self._awake.fileno() in events:
                self._awake.recv(4096)
            happened = events.get(connection.fileno(), 0)
            if decrypted or happened & ~select.POLLOUT:
                client.loop_read()
            if happened & select.POLLOUT:
                client.loop_write()
            client.loop_misc()
            if self.unanswered and time.monotonic() > answer_by:
                self.problem = self.problem or f"no answer within {CONNECT_SECONDS:.0f} seconds"
                return

    def _have_written(self, *_: object) -> None:
        with suppress(OSError):  # it has been woken often enough, or has ended
            self._wake.send(b"\0")

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.problem = f"it refused: {reason}"
            # A broker that does not know MQTT 5 says so in the words of the version it knows.
            self.unanswered = reason == "Unsupported protocol version"
            return
        self.unanswered = False
        self.accepted = True
        self.subscribe(self._subscriptions(), wait=True)
        self._check_ready()

    def _subscribed(
        self, client: Any, data: Any, packet: int, reasons: Any, properties: Any
    ) -> None:
        for reason in reasons:
            if reason.is_failure:
                log.warning("%s: a subscription was refused: %s", self._address, reason)
        self._awaited.discard(packet)
        self._check_ready()

    def _check_ready(self) -> None:
        if not self.ready and not self._awaited:
            self.ready = True
            self._on_ready()

    def _received(self, client: Any, data: Any, received: Any) -> None:
        message = Message(received.topic, received.payload, received.qos, received.retain)
        for subscription in self._subscriptions():
            if matches(subscription.topic_filter, message.topic):
                try:
                    subscription.handler(message)
                except Exception:
                    log.exception("a handler of %s failed", subscription.topic_filter)

    def _published(self, client: Any, data: Any, packet: int, reason: Any, properties: Any) -> None:
        if reason.is_failure and not self._complained:
            self._complained = True  # once in a connection, for the log's sake
            log.warning("%s: a message was refused: %s", self._address, reason)

    def _disconnected(
        self, client: Any, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        how = "closed the connection before letting us in" if self.unanswered else "broke off"
        self.problem = self.problem or f"it {how}: {reason}"


def _without_delay(client: Any, data: Any, connection: Any) -> None:
    """Sends small packets at once: else each waits for the answer to the last, up to 44 ms."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
