"""The broker in memory behaves as a real one does, outages and wills included."""

from __future__ import annotations

import pytest

from edge_sdk.transport.link import Link, Message
from edge_sdk.transport.memory import MemoryBroker, MemoryLink


class Client:
    """A link, and what it was told."""

    def __init__(self, broker: MemoryBroker, *filters: str, will: Message | None = None) -> None:
        self.messages: list[Message] = []
        self.changes: list[bool] = []
        self.link = MemoryLink(broker, will=(lambda: will) if will else None)
        for topic_filter in filters:
            self.link.subscribe(topic_filter, self.messages.append)
        self.link.open(self.changes.append)

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(record=True)


def test_it_is_a_link(broker: MemoryBroker) -> None:
    link: Link = MemoryLink(broker)
    assert not link.connected
    assert not link.publish(Message("a"))


def test_messages_go_to_every_filter_that_matches(broker: MemoryBroker) -> None:
    one, two, other = Client(broker, "a/+", "#"), Client(broker, "a/b"), Client(broker, "c")
    assert one.link.publish(Message("a/b", b"x"))
    assert one.payloads == [b"x", b"x"]
    assert two.payloads == [b"x"]
    assert other.payloads == []
    assert broker.published == [Message("a/b", b"x")]


def test_retained_messages_wait_for_subscribers(broker: MemoryBroker) -> None:
    one = Client(broker)
    one.link.publish(Message("a/1", b"old", retain=True))
    one.link.publish(Message("a/1", b"new", retain=True))
    one.link.publish(Message("a/2", b"gone", retain=True))
    one.link.publish(Message("a/2", b"", retain=True))
    late = Client(broker, "a/#")
    assert late.messages == [Message("a/1", b"new", retain=True)]
    later = Client(broker)
    later.link.subscribe("a/1", later.messages.append)
    assert later.payloads == [b"new"]


def test_a_message_from_a_handler_comes_after_the_one_it_answers(broker: MemoryBroker) -> None:
    echo, watcher = Client(broker), Client(broker, "#")

    def answer(message: Message) -> None:
        assert echo.link.publish(Message("pong"))

    echo.link.subscribe("ping", answer)
    watcher.link.publish(Message("ping"))
    assert [message.topic for message in watcher.messages] == ["ping", "pong"]


def test_a_cut_link_leaves_its_will_and_comes_back(broker: MemoryBroker) -> None:
    watcher = Client(broker, "will")
    client = Client(broker, "a", will=Message("will", b"dead", retain=True))
    client.link.drop()
    assert watcher.payloads == [b"dead"]
    assert not client.link.publish(Message("a", b"lost"))
    watcher.link.publish(Message("a", b"missed"))
    client.link.restore()
    watcher.link.publish(Message("a", b"seen"))
    assert client.payloads == [b"seen"]
    assert client.changes == [True, False, True]


def test_every_connection_has_a_will_of_its_own(broker: MemoryBroker) -> None:
    watcher = Client(broker, "will")
    numbers = iter("12")
    link = MemoryLink(broker, will=lambda: Message("will", next(numbers).encode()))
    link.open(lambda connected: None)
    for _ in range(2):
        link.drop()
        if not watcher.payloads[1:]:
            link.restore()
    assert watcher.payloads == [b"1", b"2"]


def test_a_farewell_comes_in_place_of_the_will(broker: MemoryBroker) -> None:
    watcher = Client(broker, "#")
    client = Client(broker, will=Message("will", b"dead"))
    client.link.close(Message("will", b"bye"))
    assert watcher.payloads == [b"bye"]
    assert client.changes == [True, False]
    broker.stop()
    broker.start()
    assert not client.link.connected


def test_an_outage_cuts_all_without_wills_and_keeps_what_is_retained(broker: MemoryBroker) -> None:
    client = Client(broker, "#", will=Message("will", b"dead"))
    client.link.publish(Message("kept", b"1", retain=True))
    broker.stop()
    assert client.changes == [True, False]
    client.link.restore()
    late = Client(broker, "#")
    assert not client.link.connected
    assert late.changes == []
    broker.start()
    assert client.changes == [True, False, True]
    assert late.payloads == [b"1"]
    assert client.payloads == [b"1", b"1"]


def test_a_mute_link_seems_connected_and_lets_nothing_through(broker: MemoryBroker) -> None:
    client, other = Client(broker, "a"), Client(broker, "b")
    client.link.mute()
    assert client.link.connected
    assert client.link.publish(Message("b", b"lost"))
    other.link.publish(Message("a", b"lost"))
    assert client.payloads == other.payloads == []
    client.link.drop()
    client.link.restore()
    other.link.publish(Message("a", b"seen"))
    assert client.payloads == [b"seen"]


def test_a_handler_that_fails_fails_the_one_who_publishes(broker: MemoryBroker) -> None:
    client = Client(broker)
    client.link.subscribe("bad", lambda message: 1 / 0)  # type: ignore[arg-type, return-value]
    with pytest.raises(ZeroDivisionError):
        client.link.publish(Message("bad"))
    seen = Client(broker, "good")
    client.link.publish(Message("good", b"1"))
    assert seen.payloads == [b"1"]
