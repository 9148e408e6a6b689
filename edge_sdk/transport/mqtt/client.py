"""An MQTT client for services: batches in, batches out, and back by itself after outages."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType

from edge_sdk.errors import ConfigError, TransferError
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt import codec
from edge_sdk.transport.mqtt.codec import Received
from edge_sdk.transport.mqtt.connection import Connection
from edge_sdk.transport.mqtt.reasons import FAILURE, reason_text
from edge_sdk.transport.mqtt.window import Window
from edge_sdk.transport.topic_filter import check

log = logging.getLogger(__name__)

ANSWER_SECONDS = 10.0  # within which a broker lets us in, and answers subscriptions
FAREWELL_SECONDS = 2.0  # within which it takes what is still to be written
AT_ONCE = 500  # messages that are encoded before others have their turn
WAITING = 50_000
"""Messages that wait for :meth:`Client.batches`; beyond, those at QoS 0 are dropped.

Those at QoS 1 are bounded by ``receive_maximum``."""


class Client:
    """A connection to a broker that comes back by itself; MQTT 5, else 3.1.1.

    Use as an asynchronous context manager; it connects in the background. Messages that were
    published at QoS 1 and not acknowledged before the connection broke off are sent again on
    the next one, and so are messages that came and were not acknowledged by us, if the broker
    remembers us (``session_seconds``).

    Args:
        address: The broker.
        client_id: Unique among its clients: one that comes pushes the other out.
        will: Makes the message that the broker publishes when the connection breaks off;
            asked before every connection.
        keepalive: Seconds of silence after which the connection is given up.
        backoff: Delays between attempts.
        session_seconds: How long the broker shall keep subscriptions and messages for us
            while we are away; 0 for not at all.
        receive_maximum: Messages at QoS 1 that may wait for our acknowledgement; with MQTT
            3.1.1 the broker decides.
        on_change: Told every change of :attr:`connected`.

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
        session_seconds: int = 0,
        receive_maximum: int = 10_000,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        address.ssl_context()  # what is wrong with its files is said at once
        self._address = address
        self._client_id = client_id
        self._will = will
        self._keepalive = keepalive
        self._backoff = backoff or Backoff()
        self._session_seconds = session_seconds
        self._receive_maximum = receive_maximum
        self._on_change = on_change
        self._version: codec.Version = 5
        self._filters: dict[str, int] = {}
        self._waiting: list[Received] = []
        self._arrived = asyncio.Event()
        self._ready = asyncio.Event()
        self._window = Window()
        self._order = asyncio.Lock()
        self._connection: Connection | None = None
        self._connections = 0
        self._problem: str | None = None
        self._dropping = False
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the broker is reached now, and has taken our subscriptions."""
        return self._ready.is_set() and not self._closed

    @property
    def problem(self) -> str | None:
        """Why there is no connection; ``None`` while there is one, or before it was tried."""
        return self._problem

    async def wait_connected(self) -> None:
        """Returns as soon as it is connected."""
        await self._ready.wait()

    async def __aenter__(self) -> Client:
        self._task = asyncio.create_task(self._run(), name="mqtt-client")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self, farewell: Message | None = None) -> None:
        """Says the farewell in place of the will and disconnects; ends :meth:`batches`."""
        if self._closed:
            return
        connection = self._connection
        if farewell is not None and connection is not None and self.connected:
            connection.send([farewell])
        self._closed = True
        while self._task is not None and not self._task.done():
            # Once may not do: wait_for() of Python 3.11 and older can swallow it.
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.1)
        if connection is not None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(connection.gone.wait(), FAREWELL_SECONDS)
        self._ready.set()
        self._arrived.set()

    async def subscribe(self, filters: Sequence[str], qos: int = 1) -> None:
        """Asks for messages that match, now and after reconnects.

        Raises:
            ConfigError: One is no filter.
            TransferError: The broker refuses one.
        """
        for topic_filter in filters:
            self._filters[check(topic_filter)] = qos
        if self.connected and self._connection is not None:
            await self._subscribe(self._connection, filters, qos)

    async def batches(self, largest: int = 1000) -> AsyncIterator[list[Received]]:
        """Messages, as many together as came since the last batch; ends with the client.

        Args:
            largest: How many messages at most.
        """
        while True:
            await self._arrived.wait()
            if self._closed:
                return
            batch, self._waiting = self._waiting[:largest], self._waiting[largest:]
            if not self._waiting:
                self._arrived.clear()
            if batch:
                yield batch

    def acknowledge(self, batch: Iterable[Received]) -> None:
        """Tells the broker that these need not come again.

        Those of an earlier connection are passed over: the broker will deliver them again.
        """
        connection = self._connection
        if connection is not None:
            number = connection.number
            connection.acknowledge(
                one.packet_id for one in batch if one.qos and one.connection == number
            )

    async def publish(self, messages: Iterable[Message]) -> None:
        """Sends messages in order, as far as the broker's window has room.

        It waits for room, and for the connection to come back; use ``asyncio.wait_for``
        where that is not wanted. It returns when they are sent, not when they are
        acknowledged; those at QoS 1 are sent again if need be. One that is larger than the
        broker takes is logged and not sent.

        Raises:
            TransferError: The client is closed.
        """
        rest = list(messages)
        async with self._order:
            while rest:
                await self._ready.wait()
                connection = self._connection
                if self._closed or connection is None:
                    raise TransferError("the client is closed", where=str(self._address))
                await connection.room.wait()
                if connection.alive:
                    del rest[: connection.send(rest[:AT_ONCE])]
                else:
                    await asyncio.sleep(0)  # lets _run notice

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                problem = await self._connect_once()
                self._backoff.succeeded(loop.time() - began)
            except (ConfigError, TransferError) as error:
                problem = error.message
            except asyncio.TimeoutError:
                problem = f"no answer within {ANSWER_SECONDS:.0f} seconds"
            except ssl.SSLCertVerificationError as error:
                problem = f"its certificate is not trusted: {error.verify_message}"
            except OSError as error:
                problem = os.strerror(error.errno) if error.errno else str(error)
            except Exception:
                log.exception("%s: the connection failed", self._address)
                problem = "an error of ours, see the log"
            if problem != self._problem:
                log.warning("%s: not connected: %s", self._address, problem)
            self._problem = problem
            await asyncio.sleep(self._backoff.delay())

    async def _connect_once(self) -> str:
        """Connects, stays for as long as that lasts, and says why it ended."""
        connection = await self._open()
        self._connection = connection
        try:
            accepted = await self._accepted(connection)
            connection.begin(accepted, self._keepalive)
            if accepted.session_present:
                self._forget_what_comes_again(connection.number)
            await connection.resend(self._window.unacknowledged(), again=accepted.session_present)
            done: dict[str, int] = {}
            while missing := dict(self._filters.items() - done.items()):
                done |= missing
                for qos in set(missing.values()):
                    filters = [one for one, wanted in missing.items() if wanted == qos]
                    await self._subscribe(connection, filters, qos)
            self._change(True)
            return await asyncio.shield(connection.lost)
        finally:
            connection.end("closed", politely=True)
            self._change(False)

    async def _open(self) -> Connection:
        self._connections += 1
        address = self._address
        hello = codec.connect(
            self._version,
            self._client_id,
            user=address.user,
            password=address.password,
            will=self._will() if self._will else None,
            keepalive=self._keepalive,
            clean=not self._session_seconds,
            session_seconds=self._session_seconds,
            receive_maximum=self._receive_maximum,
        )
        _, connection = await asyncio.wait_for(
            asyncio.get_running_loop().create_connection(
                lambda: Connection(
                    self._version, hello, self._connections, self._window, self._received
                ),
                address.host,
                address.port,
                ssl=address.ssl_context(),  # read anew: certificates are renewed
            ),
            ANSWER_SECONDS,
        )
        return connection

    async def _accepted(self, connection: Connection) -> codec.Accepted:
        """The broker's consent; else the other version is tried next, if that may be why."""
        try:
            accepted = await asyncio.wait_for(connection.accepted, ANSWER_SECONDS)
        except (TransferError, asyncio.TimeoutError):
            self._version = 4 if self._version == 5 else 5
            raise
        if accepted.reason == codec.UNSUPPORTED_VERSION:
            self._version = 4 if self._version == 5 else 5
        if accepted.reason:
            raise TransferError(f"it refused: {reason_text(accepted.reason)}")
        return accepted

    async def _subscribe(self, connection: Connection, filters: Sequence[str], qos: int) -> None:
        reasons = await asyncio.wait_for(connection.subscribe(filters, qos), ANSWER_SECONDS)
        for topic_filter, reason in zip(filters, reasons, strict=False):
            if reason >= FAILURE:
                raise TransferError(
                    f"it refused the subscription to {topic_filter}: {reason_text(reason)}",
                    where=str(self._address),
                    passing=False,
                )

    def _forget_what_comes_again(self, number: int) -> None:
        """What waits unread and was not acknowledged, the broker delivers again."""
        self._waiting = [one for one in self._waiting if not one.qos or one.connection == number]

    def _received(self, messages: list[Received]) -> None:
        full = len(self._waiting) >= WAITING
        if full:
            messages = [message for message in messages if message.qos]
        if full and not self._dropping:
            log.warning("messages come faster than they are read; those at QoS 0 are dropped")
        self._dropping = full
        self._waiting += messages
        self._arrived.set()

    def _change(self, connected: bool) -> None:
        if connected == self._ready.is_set():
            return
        if connected:
            self._ready.set()
            self._problem = None
            log.info("%s: connected", self._address)
        else:
            self._ready.clear()
            self._connection = None
        if self._on_change is not None:
            self._on_change(connected)
