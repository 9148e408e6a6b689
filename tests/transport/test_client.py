"""The service's MQTT client against a real broker: batches, acknowledgements, outages."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_sdk.errors import ConfigError, TransferError
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.link import Message
from edge_sdk.transport.mqtt import Client, Received
from tests.brokers import Certificates, Mosquitto, free_port
from tests.transport.old_broker import OldBroker

START = Callable[..., Mosquitto]
PATIENCE = 10.0


def client(address: str | BrokerAddress, name: str = "service", **options: object) -> Client:
    if isinstance(address, str):
        address = BrokerAddress.parse(address)
    return Client(address, name, backoff=Backoff(0.01, 0.02), **options)  # type: ignore[arg-type]


@asynccontextmanager
async def connected(*clients: Client) -> AsyncIterator[None]:
    """All of them, and all connected."""
    if not clients:
        yield
        return
    async with clients[0]:
        await soon(clients[0].wait_connected())
        async with connected(*clients[1:]):
            yield


async def soon(work: Awaitable[object]) -> None:
    await asyncio.wait_for(asyncio.ensure_future(work), PATIENCE)  # type: ignore[arg-type]


async def until(condition: Callable[[], object]) -> None:
    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.002)

    await soon(wait())


async def take(one: Client, count: int, *, acknowledge: bool = True) -> list[Received]:
    """The next messages, so many."""
    taken: list[Received] = []

    async def read() -> None:
        async for batch in one.batches(count):
            taken.extend(batch)
            if acknowledge:
                one.acknowledge(batch)
            if len(taken) >= count:
                return

    await soon(read())
    return taken


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]


def numbered(count: int, start: int = 0) -> list[Message]:
    return [Message("load", str(number).encode()) for number in range(start, start + count)]


def payloads(messages: list[Received]) -> list[bytes]:
    return [message.payload for message in messages]


def test_messages_come_in_order_and_in_batches(mosquitto: Mosquitto) -> None:
    async def test() -> None:
        service, device = client(mosquitto.url), client(mosquitto.url, "device")
        async with connected(service, device):
            await service.subscribe(["load", "other/#"])
            await device.publish(numbered(5000))
            sizes = []
            got: list[Received] = []
            async for batch in service.batches(1000):
                sizes.append(len(batch))
                got += batch
                service.acknowledge(batch)
                if len(got) == 5000:
                    break
            assert payloads(got) == [str(number).encode() for number in range(5000)]
            assert max(sizes) <= 1000
            assert len(sizes) < 5000
            await device.publish([Message("other/a/b", b"0", qos=0, retain=True)])
            assert await take(service, 1) == [Received("other/a/b", b"0", connection=1)]

    run(test)


def test_a_window_of_one_still_sends_all(start_mosquitto: START) -> None:
    broker = start_mosquitto(lines=("max_inflight_messages 1",))

    async def test() -> None:
        service, device = client(broker.url), client(broker.url, "device")
        async with connected(service, device):
            await service.subscribe(["load"])
            await asyncio.gather(
                device.publish(numbered(100)), device.publish(numbered(100, start=100))
            )
            # Messages of one call stay together.
            assert payloads(await take(service, 200)) == [str(n).encode() for n in range(200)]

    run(test)


def test_what_was_not_acknowledged_comes_again(mosquitto: Mosquitto) -> None:
    async def test() -> None:
        options = {"session_seconds": 60}
        device = client(mosquitto.url, "device")
        async with connected(device):
            service = client(mosquitto.url, **options)
            async with connected(service):
                await service.subscribe(["load"])
                await device.publish(numbered(3))
                first = await take(service, 3, acknowledge=False)
                service.acknowledge(first[:1])
                await device.publish([Message("load", b"3")])
                await take(service, 1, acknowledge=False)
            await device.publish([Message("load", b"while away")])
            service = client(mosquitto.url, **options)
            async with connected(service):
                again = await take(service, 4)
                assert payloads(again) == [b"1", b"2", b"3", b"while away"]
                assert all(one.duplicate for one in again[:3])

    run(test)


def test_an_acknowledgement_of_an_earlier_connection_is_not_taken_for_a_later_message(
    mosquitto: Mosquitto,
) -> None:
    async def test() -> None:
        service = client(mosquitto.url, session_seconds=60)
        device = client(mosquitto.url, "device")
        async with connected(service, device):
            await service.subscribe(["load"])
            await device.publish(numbered(1))
            stale = await take(service, 1, acknowledge=False)
            await intrude(mosquitto.port, "service")
            again = await take(service, 1, acknowledge=False)
            service.acknowledge(stale)
            await intrude(mosquitto.port, "service")
            once_more = await take(service, 1)
            assert payloads(stale) == payloads(again) == payloads(once_more) == [b"0"]
            assert [one[0].connection for one in (stale, again, once_more)] == [1, 2, 3]

    run(test)


def test_what_waits_unread_does_not_come_twice_after_a_reconnect(mosquitto: Mosquitto) -> None:
    async def test() -> None:
        service = client(mosquitto.url, session_seconds=60)
        device = client(mosquitto.url, "device")
        async with connected(service, device):
            await service.subscribe(["load"])
            await device.publish(numbered(3))
            await until(lambda: len(service._waiting) == 3)
            await intrude(mosquitto.port, "service")
            await until(lambda: [one.connection for one in service._waiting] == [2, 2, 2])
            assert payloads(await take(service, 3)) == [b"0", b"1", b"2"]

    run(test)


def test_messages_at_qos_0_are_dropped_rather_than_kept_without_end(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_sdk.transport.mqtt.client.WAITING", 10)

    async def test() -> None:
        service, device = client(mosquitto.url), client(mosquitto.url, "device")
        async with connected(service, device):
            await service.subscribe(["load"])
            for _ in range(3):
                await device.publish(numbered(10))
                await device.publish([Message("load", b"dropped", qos=0)])
            await until(lambda: len(service._waiting) >= 30)
            await device.publish([Message("load", b"dropped", qos=0)])
            await device.publish([Message("load", b"end")])
            await until(lambda: service._waiting[-1].payload == b"end")
            got = payloads(service._waiting)
            assert len(got) - got.count(b"dropped") == 31
            assert got[-2] != b"dropped"  # what came first may have been read at once

    run(test)
    assert "those at QoS 0 are dropped" in caplog.text


def test_messages_are_not_lost_while_the_broker_is_away(mosquitto: Mosquitto) -> None:
    kept = [Message(f"load/{number}", b"x", retain=True) for number in range(10)]

    async def test() -> None:
        changes: list[bool] = []
        device = client(mosquitto.url, "device", on_change=changes.append)
        async with connected(device):
            mosquitto.kill()
            await until(lambda: not device.connected)
            sending = asyncio.create_task(device.publish(kept))
            await until(lambda: device.problem == "Connection refused")
            assert not sending.done()
            await asyncio.to_thread(mosquitto.start)
            await soon(sending)
            assert changes == [True, False, True]
            assert device.problem is None
            await device.subscribe(["load/#"])
            assert {one.topic for one in await take(device, 10)} == {one.topic for one in kept}

    run(test)


def test_what_the_broker_did_not_acknowledge_is_sent_again(mosquitto: Mosquitto) -> None:
    """A proxy swallows what the broker answers, then cuts the connection."""

    async def test() -> None:
        service = client(mosquitto.url)
        async with connected(service), Proxy(mosquitto.port) as proxy:
            await service.subscribe(["load"])
            device = client(f"mqtt://127.0.0.1:{proxy.port}", "device")
            async with connected(device):
                proxy.deaf = True
                await device.publish(numbered(5))
                assert payloads(await take(service, 5)) == [b"0", b"1", b"2", b"3", b"4"]
                proxy.cut()
                # At least once: they come again.
                assert payloads(await take(service, 5)) == [b"0", b"1", b"2", b"3", b"4"]
                await device.publish(numbered(1, start=5))
                assert payloads(await take(service, 1)) == [b"5"]
                assert proxy.cuts == 1

    run(test)


def test_many_unacknowledged_messages_fit_a_smaller_window(start_mosquitto: START) -> None:
    wide = start_mosquitto(lines=("max_inflight_messages 0",))

    async def test() -> None:
        async with Proxy(wide.port) as proxy:
            device = client(f"mqtt://127.0.0.1:{proxy.port}", "device")
            async with connected(device):
                proxy.deaf = True
                await device.publish(numbered(100))
                narrow = await asyncio.to_thread(
                    start_mosquitto, lines=("max_inflight_messages 3",)
                )
                service = client(narrow.url)
                async with connected(service):
                    await service.subscribe(["load"])
                    proxy.upstream = narrow.port
                    proxy.cut()
                    assert payloads(await take(service, 100)) == [
                        str(number).encode() for number in range(100)
                    ]

    run(test)


def test_opening_does_not_wait_for_a_broker_that_is_away(start_mosquitto: START) -> None:
    port = free_port()

    async def test() -> None:
        async with client(f"mqtt://127.0.0.1:{port}") as service:
            await service.subscribe(["load"])  # remembered
            await until(lambda: service.problem == "Connection refused")
            assert not service.connected
            await asyncio.to_thread(start_mosquitto, port=port)
            await soon(service.wait_connected())
            await service.publish(numbered(1))
            assert payloads(await take(service, 1)) == [b"0"]

    run(test)


def test_the_will_comes_when_the_connection_breaks_and_a_farewell_in_its_place(
    mosquitto: Mosquitto,
) -> None:
    async def test() -> None:
        watcher = client(mosquitto.url, "watcher")
        async with connected(watcher):
            await watcher.subscribe(["will"])
            service = client(mosquitto.url, will=lambda: Message("will", b"dead"))
            async with connected(service):
                await intrude(mosquitto.port, "service")
                assert payloads(await take(watcher, 1)) == [b"dead"]
                await soon(service.wait_connected())
                await service.close(Message("will", b"bye"))
            await watcher.publish([Message("will", b"end")])
            assert payloads(await take(watcher, 2)) == [b"bye", b"end"]

    run(test)


def test_closing_ends_batches_and_publishing(mosquitto: Mosquitto) -> None:
    async def test() -> None:
        service = client(mosquitto.url)
        async with connected(service):

            async def read() -> int:
                return sum([len(batch) async for batch in service.batches()])

            reading = asyncio.create_task(read())
            mosquitto.kill()
            await until(lambda: not service.connected)
            sending = asyncio.create_task(service.publish(numbered(1)))
            await asyncio.sleep(0)
            await service.close()
            assert await reading == 0
            with pytest.raises(TransferError, match="the client is closed"):
                await sending
            with pytest.raises(TransferError, match="the client is closed"):
                await service.publish(numbered(1))

    run(test)


def test_mutual_tls(start_mosquitto: START, certificates: Certificates) -> None:
    broker = start_mosquitto(certificates=certificates)
    certificate, key = certificates.client("service")
    url = f"mqtts://localhost:{broker.port}"

    async def test() -> None:
        address = BrokerAddress.parse(url, ca=certificates.ca, certificate=certificate, key=key)
        service, distrustful = client(address), client(url, "distrustful")
        async with connected(service), distrustful:
            await service.subscribe(["load"])
            await service.publish([Message("load", bytes(1_000_000))])
            assert payloads(await take(service, 1)) == [bytes(1_000_000)]
            await until(lambda: distrustful.problem)
            assert distrustful.problem is not None
            assert "its certificate is not trusted" in distrustful.problem

    run(test)


def test_a_wrong_password_is_named(start_mosquitto: START) -> None:
    async def test() -> None:
        broker = start_mosquitto(user=("service", "secret"))
        mine, guess = client(broker.url), client(broker.url.replace("secret", "x"), "guess")
        async with connected(mine), guess:
            await until(lambda: guess.problem)
            assert guess.problem == "it refused: not authorized"

    run(test)


def test_a_renewed_certificate_is_used_without_a_restart(
    start_mosquitto: START, certificates: Certificates, tmp_path: Path
) -> None:
    broker = start_mosquitto(certificates=certificates)
    stranger = Certificates(tmp_path / "strangers")
    stranger.folder.mkdir()
    stranger.authority()
    mine, key = tmp_path / "mine.crt", tmp_path / "mine.key"

    def install(pair: tuple[Path, Path]) -> None:
        for source, target in zip(pair, (mine, key), strict=True):
            target.write_bytes(source.read_bytes())

    install(stranger.client("service"))

    async def test() -> None:
        url = f"mqtts://localhost:{broker.port}"
        service = client(BrokerAddress.parse(url, ca=certificates.ca, certificate=mine, key=key))
        async with service:
            await until(lambda: service.problem)
            mine.write_text("in the middle of being written")
            await until(lambda: "does not hold a certificate" in str(service.problem))
            install(certificates.client("service"))
            await soon(service.wait_connected())

    run(test)


def test_messages_that_are_refused_are_logged_once(
    start_mosquitto: START, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = tmp_path / "rules"
    rules.write_text("topic read #\ntopic write allowed\n")
    broker = start_mosquitto(lines=(f"acl_file {rules}",))

    async def test() -> None:
        service = client(broker.url)
        async with connected(service):
            await service.subscribe(["allowed"])
            await service.publish([Message("forbidden")] * 3 + [Message("allowed", b"1")])
            assert payloads(await take(service, 1)) == [b"1"]

    run(test)
    assert caplog.text.count("message to forbidden was refused: not authorized") == 1


def test_a_message_that_the_broker_may_not_take_is_logged(
    start_mosquitto: START, caplog: pytest.LogCaptureFixture
) -> None:
    broker = start_mosquitto(lines=("max_packet_size 2000",))

    async def test() -> None:
        service = client(broker.url)
        async with connected(service):
            await service.subscribe(["load"])
            await service.publish([Message("load", bytes(3000)), Message("load", b"small")])
            assert payloads(await take(service, 1)) == [b"small"]

    run(test)
    assert "load: 3000 bytes, more than the broker takes" in caplog.text


def test_what_is_no_filter_is_said(mosquitto: Mosquitto) -> None:
    async def test() -> None:
        with pytest.raises(ConfigError, match="is no filter"):
            await client(mosquitto.url).subscribe(["a/#/b"])

    run(test)


def test_a_broker_that_falls_silent_is_given_up(mosquitto: Mosquitto) -> None:
    async def test() -> None:
        service = client(mosquitto.url, keepalive=1)
        async with connected(service):
            mosquitto.signal(signal.SIGSTOP)
            await until(lambda: not service.connected)
            assert service.problem in (None, "it fell silent")
            mosquitto.signal(signal.SIGCONT)
            await soon(service.wait_connected())

    run(test)


def test_pings_keep_an_idle_connection(mosquitto: Mosquitto) -> None:
    async def test() -> None:
        changes: list[bool] = []
        service = client(mosquitto.url, keepalive=1, on_change=changes.append)
        async with connected(service):
            await asyncio.sleep(2.5)  # the broker gives up after one and a half
            assert changes == [True]

    run(test)
    assert "exceeded timeout" not in mosquitto.log


@pytest.mark.parametrize("answer", [b"\x20\x02\x00\x01", b"", None])
def test_an_old_broker_is_spoken_to_in_its_version(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_sdk.transport.mqtt.client.ANSWER_SECONDS", 0.2)
    versions: list[int] = []

    async def test() -> None:
        with OldBroker(versions, answer) as port:
            async with connected(client(f"mqtt://127.0.0.1:{port}")):
                pass

    run(test)
    assert versions[:2] == [5, 4]


def test_what_is_not_mqtt_is_named() -> None:
    async def test() -> None:
        with OldBroker([], b"HTTP/1.1 400 Bad Request\r\n\r\n", every=True) as port:
            async with client(f"mqtt://127.0.0.1:{port}") as service:
                await until(lambda: service.problem)
                assert service.problem == "what answers there is no MQTT broker"

    run(test)


async def intrude(port: int, name: str) -> None:
    """Another client of the same name, which the broker lets push the first one out."""
    encoded = name.encode()
    body = b"\x00\x04MQTT\x04\x00\x00\x3c" + len(encoded).to_bytes(2, "big") + encoded
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x10" + bytes((len(body),)) + body)
    await soon(reader.readexactly(4))
    writer.transport.abort()


class Proxy:
    """Between client and broker; may swallow the broker's words and cut connections.

    Attributes:
        upstream: The broker's port.
        deaf: Whether clients hear nothing.
        cuts: How many connections were cut.
    """

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.deaf = False
        self.cuts = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def cut(self) -> None:
        self.deaf = False
        self.cuts += 1
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.upstream)
        self._writers += [writer, back]
        await asyncio.gather(
            self._pump(reader, back, hearing=True), self._pump(there, writer, hearing=False)
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, hearing: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                if hearing or not self.deaf:
                    writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()
