"""The agent's link against a real broker that comes, goes, and asks for credentials."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_sdk.errors import ConfigError
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.link import Message
from edge_sdk.transport.paho_link import PahoLink
from tests.brokers import Certificates, Mosquitto, free_port
from tests.transport.old_broker import OldBroker
from tests.transport.waiting import until

START = Callable[..., Mosquitto]
WILL = Message("edge/things/pump-7/presence", b"gone", 1, retain=True)


class Seen:
    """What a link was told."""

    def __init__(self) -> None:
        self.changes: list[bool] = []
        self.messages: list[Message] = []

    def topics(self) -> list[str]:
        return [message.topic for message in self.messages]

    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]


class Links:
    """Makes links and closes them."""

    def __init__(self) -> None:
        self.made: list[PahoLink] = []

    def __call__(
        self, address: str | BrokerAddress, *filters: str, name: str = "", **options: object
    ) -> tuple[PahoLink, Seen]:
        if isinstance(address, str):
            address = BrokerAddress.parse(address)
        options = {"backoff": Backoff(0.01, 0.02), **options}
        link = PahoLink(address, name or f"test-{len(self.made)}", **options)  # type: ignore[arg-type]
        self.made.append(link)
        seen = Seen()
        for topic_filter in filters:
            link.subscribe(topic_filter, seen.messages.append)
        link.open(seen.changes.append)
        return link, seen


@pytest.fixture
def links() -> Iterator[Links]:
    made = Links()
    yield made
    for link in made.made:
        link.close()


def test_a_message_arrives_where_a_filter_matches(mosquitto: Mosquitto, links: Links) -> None:
    link, seen = links(mosquitto.url, "edge/things/+/shadow/#")
    other, _ = links(mosquitto.url)
    until(lambda: link.connected and other.connected)
    assert other.publish(Message("edge/things/pump-7/presence", b"no"))
    assert other.publish(Message("edge/things/pump-7/shadow/get", b"yes", qos=1))
    until(lambda: seen.messages)
    assert seen.messages == [Message("edge/things/pump-7/shadow/get", b"yes", 1)]
    assert seen.changes == [True]


def test_opening_does_not_wait_for_a_broker_that_is_away(
    start_mosquitto: START, links: Links
) -> None:
    port = free_port()
    link, seen = links(f"mqtt://127.0.0.1:{port}", "a")
    until(lambda: link.problem)
    assert link.problem == "Connection refused"
    assert not link.connected
    assert not link.publish(Message("a"))
    start_mosquitto(port=port)
    until(lambda: link.connected)
    assert link.problem is None
    assert link.publish(Message("a", b"1"))
    until(lambda: seen.payloads() == [b"1"])


def test_subscriptions_outlive_a_broker_that_forgets_everything(
    mosquitto: Mosquitto, links: Links
) -> None:
    link, seen = links(mosquitto.url, *(f"early/{number}" for number in range(20)))
    until(lambda: link.connected)
    link.subscribe("late", seen.messages.append)
    mosquitto.kill()
    until(lambda: not link.connected)
    assert not link.publish(Message("late", b"lost"))
    (mosquitto.folder / "mosquitto.db").unlink(missing_ok=True)
    mosquitto.start()
    until(lambda: link.connected)
    for topic in (*(f"early/{number}" for number in range(20)), "late"):
        assert link.publish(Message(topic))
    until(lambda: len(seen.messages) >= 21)
    assert seen.topics() == [*(f"early/{number}" for number in range(20)), "late"]
    assert seen.changes == [True, False, True]


def test_the_will_is_made_for_every_connection_and_comes_when_one_breaks(
    mosquitto: Mosquitto, links: Links, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Message] = []

    def will() -> Message:
        made.append(Message("will", str(len(made)).encode(), 1, retain=True))
        return made[-1]

    watcher, seen = links(mosquitto.url, "will")
    link, _ = links(mosquitto.url, name="pump-7", will=will)
    until(lambda: watcher.connected and link.connected)
    # A client of the same name pushes the first one out, which comes back and does the same.
    with socket.create_connection(("127.0.0.1", mosquitto.port)) as intruder:
        intruder.sendall(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x3c\x00\x06pump-7")
        until(lambda: len(made) == 2 and link.connected)
        until(lambda: seen.payloads() == [b"0"])
    assert "does another client call itself 'pump-7'?" in caplog.text
    _, kept = links(mosquitto.url, "will")
    until(lambda: kept.messages == [Message("will", b"0", 1, retain=True)])


def test_a_farewell_comes_in_place_of_the_will(mosquitto: Mosquitto, links: Links) -> None:
    watcher, seen = links(mosquitto.url, "#")
    link, changes = links(mosquitto.url, will=lambda: WILL)
    until(lambda: watcher.connected and link.connected)
    link.close(Message(WILL.topic, b"bye", 1))
    assert changes.changes == [True, False]
    other, _ = links(mosquitto.url)
    until(lambda: other.connected)
    other.publish(Message("end"))
    until(lambda: "end" in seen.topics())
    assert seen.payloads() == [b"bye", b""]


def test_closing_is_quick_while_the_broker_is_away(links: Links) -> None:
    link, _ = links(f"mqtt://127.0.0.1:{free_port()}", backoff=Backoff(60, 60))
    until(lambda: link.problem)
    began = time.monotonic()
    link.close(WILL)
    assert time.monotonic() - began < 5


def test_a_handler_that_fails_is_logged_and_does_not_end_the_link(
    mosquitto: Mosquitto, links: Links, caplog: pytest.LogCaptureFixture
) -> None:
    link, seen = links(mosquitto.url)
    link.subscribe("bad", lambda message: 1 / 0)  # type: ignore[arg-type, return-value]
    link.subscribe("good", seen.messages.append)
    until(lambda: link.connected)
    link.publish(Message("bad"))
    link.publish(Message("good"))
    until(lambda: seen.messages)
    assert "a handler of bad failed" in caplog.text


def test_a_handler_may_publish(mosquitto: Mosquitto, links: Links) -> None:
    link, seen = links(mosquitto.url, "answer")
    link.subscribe("question", lambda message: link.publish(Message("answer", message.payload)))  # type: ignore[arg-type, return-value]
    until(lambda: link.connected)
    link.publish(Message("question", b"42"))
    until(lambda: seen.payloads() == [b"42"])


def test_many_threads_publish_at_once(mosquitto: Mosquitto, links: Links) -> None:
    watcher, seen = links(mosquitto.url, "load/#")
    link, _ = links(mosquitto.url)
    until(lambda: watcher.connected and link.connected)

    def load(thread: int) -> None:
        for number in range(100):
            assert link.publish(Message(f"load/{thread}", f"{thread}-{number}".encode() * 300))

    threads = [threading.Thread(target=load, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(seen.messages) == 800)
    wanted = {f"{thread}-{number}".encode() * 300 for thread in range(8) for number in range(100)}
    assert set(seen.payloads()) == wanted


def test_a_large_message_arrives_whole(mosquitto: Mosquitto, links: Links) -> None:
    link, seen = links(mosquitto.url, "large")
    until(lambda: link.connected)
    payload = bytes(range(256)) * 20_000
    link.publish(Message("large", payload))
    until(lambda: seen.messages)
    assert seen.payloads() == [payload]


def test_a_wrong_password_is_a_problem_that_is_named(start_mosquitto: START, links: Links) -> None:
    broker = start_mosquitto(user=("pump-7", "se:cr/et@"))
    good, _ = links(f"mqtt://pump-7:se%3Acr%2Fet%40@127.0.0.1:{broker.port}")
    bad, _ = links(f"mqtt://pump-7:guess@127.0.0.1:{broker.port}")
    until(lambda: good.connected and bad.problem)
    assert bad.problem == "it refused: Not authorized"


def test_mutual_tls(start_mosquitto: START, certificates: Certificates, links: Links) -> None:
    broker = start_mosquitto(certificates=certificates, lines=("use_identity_as_username true",))
    certificate, key = certificates.client("pump-7")
    url = f"mqtts://localhost:{broker.port}"
    address = BrokerAddress.parse(url, ca=certificates.ca, certificate=certificate, key=key)
    link, seen = links(address, "large")
    until(lambda: link.connected)
    payload = bytes(100_000)  # more than a TLS record: what is decrypted already must be read
    for _ in range(20):
        assert link.publish(Message("large", payload))
    until(lambda: len(seen.messages) == 20)
    assert seen.payloads() == [payload] * 20


def test_what_is_refused_is_logged_once(
    start_mosquitto: START, links: Links, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = tmp_path / "rules"
    rules.write_text("topic read allowed\ntopic write allowed\n")
    broker = start_mosquitto(lines=(f"acl_file {rules}",))
    link, seen = links(broker.url, "allowed")
    until(lambda: link.connected)
    for topic in ("forbidden", "forbidden", "allowed"):
        assert link.publish(Message(topic))
    until(lambda: seen.messages)
    assert caplog.text.count("a message was refused: Not authorized") == 1


def test_a_renewed_certificate_is_used_without_a_restart(
    start_mosquitto: START, certificates: Certificates, links: Links, tmp_path: Path
) -> None:
    broker = start_mosquitto(certificates=certificates)
    mine, key = (tmp_path / name for name in ("mine.crt", "mine.key"))
    first, second = certificates.client("other"), certificates.client("pump-7")
    mine.write_bytes(first[0].read_bytes())
    key.write_bytes(first[1].read_bytes())
    url = f"mqtts://localhost:{broker.port}"
    address = BrokerAddress.parse(url, ca=certificates.ca, certificate=mine, key=key)
    link, _ = links(address)
    until(lambda: link.connected)
    mine.write_text("in the middle of being written")
    broker.kill()
    broker.start()
    until(lambda: "does not hold a certificate" in str(link.problem))
    mine.write_bytes(second[0].read_bytes())
    key.write_bytes(second[1].read_bytes())
    until(lambda: link.connected)


# paho leaves the socket of a handshake that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_certificate_or_an_untrusted_broker_are_problems_that_are_named(
    start_mosquitto: START, certificates: Certificates, links: Links
) -> None:
    broker = start_mosquitto(certificates=certificates)
    url = f"mqtts://localhost:{broker.port}"
    naked, _ = links(BrokerAddress.parse(url, ca=certificates.ca))
    distrustful, _ = links(url)
    until(lambda: naked.problem and distrustful.problem)
    assert "closed the connection before letting us in" in (naked.problem or "")
    assert "its certificate is not trusted" in (distrustful.problem or "")


def test_a_broker_that_falls_silent_is_given_up(mosquitto: Mosquitto, links: Links) -> None:
    """Half-open: the connection is there and nothing comes through."""
    link, _ = links(mosquitto.url, keepalive=1)
    until(lambda: link.connected)
    mosquitto.signal(signal.SIGSTOP)
    until(lambda: not link.connected)
    mosquitto.signal(signal.SIGCONT)
    until(lambda: link.connected)


@pytest.mark.parametrize("answer", [b"\x20\x02\x00\x01", b"", None])
def test_an_old_broker_is_spoken_to_in_its_version(
    links: Links, answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_sdk.transport.paho_connection.CONNECT_SECONDS", 0.2)
    versions: list[int] = []
    with OldBroker(versions, answer) as port:
        link, _ = links(f"mqtt://127.0.0.1:{port}")
        until(lambda: link.connected)
    assert versions[:2] == [5, 4]


def test_what_is_not_mqtt_is_a_problem_that_is_named(links: Links) -> None:
    versions: list[int] = []
    with OldBroker(versions, b"\x20\xff\xff\xff\xff\xff", every=True) as port:
        link, _ = links(f"mqtt://127.0.0.1:{port}")
        until(lambda: len(versions) > 3)
        assert not link.connected
        assert link.problem


def test_files_that_cannot_be_read_are_said_before_connecting(
    certificates: Certificates,
) -> None:
    other = certificates.client("other")[1]
    mine = certificates.client("pump-7")[0]
    address = BrokerAddress.parse("mqtts://localhost", certificate=mine, key=other)
    with pytest.raises(ConfigError, match=r"pump-7\.crt: does not hold a certificate for"):
        PahoLink(address, "pump-7")
