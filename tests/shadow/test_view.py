from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.shadow.requests import Rejection
from edge_sdk.shadow.topics import OPERATIONS
from edge_sdk.shadow.view import Intake, View, take
from tests.shadow.cloud import Cloud
from tests.shadow.test_properties import anything, patches


def say(view: View, operation: Any, suffix: Any, **body: Any) -> Intake:
    return take(view, operation, suffix, json.dumps(body).encode())


def test_answer_to_get_is_taken_whole():
    state = {"desired": {"a": 1}, "reported": {"b": 2}, "delta": {"a": 1}}
    intake = say(View(), "get", "accepted", version=7, state=state, clientToken="t")
    assert intake == Intake(View(7, {"a": 1}, {"b": 2}, True), token="t")


def test_accepted_updates_of_others_are_followed_with_their_deletions():
    view = View(7, {"a": 1, "b": {"c": 1, "d": 2}}, {"x": 1}, True)
    state = {"desired": {"a": None, "b": {"c": 5}}}
    view = say(view, "update", "accepted", version=8, state=state).view
    assert view == View(8, {"b": {"c": 5, "d": 2}}, {"x": 1}, True)
    view = say(view, "update", "accepted", version=9, state={"reported": None}).view
    assert view == View(9, {"b": {"c": 5, "d": 2}}, {}, True)
    view = say(view, "update", "accepted", version=10, state=None).view
    assert view == View(10, {}, {}, True)


@pytest.mark.parametrize("suffix", ["accepted", "delta"])
@pytest.mark.parametrize("version", [3, 7])
def test_lower_and_equal_versions_are_dropped(suffix: str, version: int):
    view = View(7, {"a": 1}, {}, True)
    state = {"desired": {"a": 9}} if suffix == "accepted" else {"a": 9}
    assert say(view, "update", suffix, version=version, state=state).view == view


@pytest.mark.parametrize("suffix", ["accepted", "delta"])
def test_a_gap_asks_for_get_once(suffix: str):
    view = View(7, {"a": 1}, {}, True)
    intake = say(view, "update", suffix, version=9, state={})
    assert intake.ask
    assert intake.view == View(9, {"a": 1}, {}, False)
    again = say(intake.view, "update", suffix, version=10, state={})
    assert not again.ask
    # An answer from before the last update heard of is too old; the next one will do.
    late = say(again.view, "get", "accepted", version=9, state={"desired": {"a": 2}})
    assert late == Intake(View(0, {"a": 1}, {}, False), ask=True)
    done = say(late.view, "get", "accepted", version=10, state={"desired": {"a": 3}})
    assert done == Intake(View(10, {"a": 3}, {}, True))


def test_delta_without_a_base_waits_for_the_answer_to_get():
    intake = say(View(), "update", "delta", version=4, state={"a": 1})
    assert intake.view == View(4, {}, {}, False)
    assert say(intake.view, "get", "accepted", version=4, state={}).view.current


def test_delta_ahead_of_accepted_already_counts():
    view = View(7, {"a": 1}, {}, True)
    view = say(view, "update", "delta", version=8, state={"b": {"c": 2}}).view
    assert view == View(7, {"a": 1, "b": {"c": 2}}, {}, True)
    state = {"desired": {"a": None, "b": {"c": 2}}}
    assert say(view, "update", "accepted", version=8, state=state).view == View(
        8, {"b": {"c": 2}}, {}, True
    )


def test_reconnected_view_keeps_its_content_and_takes_a_lower_version():
    view = View(70, {"a": 1}, {"b": 2}, True).reconnected()
    assert (view.desired, view.reported, view.current) == ({"a": 1}, {"b": 2}, False)
    restored = say(view, "get", "accepted", version=3, state={"desired": {"a": 0}})
    assert restored.view == View(3, {"a": 0}, {}, True)


def test_no_shadow_is_an_empty_one():
    view = View(5, {"a": 1}, {}, True).reconnected()
    intake = say(view, "get", "rejected", code=404, message="none", clientToken="t")
    assert intake == Intake(View(current=True), token="t")
    # Its first update may be a late one of a shadow that was deleted.
    assert say(intake.view, "update", "accepted", version=1, state={"desired": {"a": 2}}).ask


def test_answer_older_than_what_was_heard_of_is_asked_for_once_more():
    view = say(View(), "update", "accepted", version=9, state={"desired": {"a": 1}}).view
    intake = say(view, "get", "rejected", code=404, message="none")
    assert intake.ask
    assert not intake.view.current
    # It is so: the service was restored from a backup.
    intake = say(intake.view, "get", "accepted", version=3, state={"desired": {"a": 0}})
    assert intake == Intake(View(3, {"a": 0}, {}, True))


def test_deletion_asks_what_is_there_now():
    view = View(7, {"a": 1}, {}, True)
    intake = say(view, "delete", "accepted", version=7)
    assert intake == Intake(View(0, {"a": 1}, {}, False), ask=True)
    assert say(intake.view, "get", "rejected", code=404).view == View(current=True)


def test_rejection_is_told_and_changes_nothing():
    view = View(7, {"a": 1}, {}, True)
    intake = say(view, "update", "rejected", code=429, message="slow", clientToken="t")
    assert intake == Intake(view, token="t", rejection=Rejection(429, "slow"))
    # Of somebody else's request: this client has the shadow.
    assert say(view, "get", "rejected", code=404, message="none").view == view


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b"[" * 9999, b'{"version": 8}x'])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_cannot_be_read_is_a_gap(operation: Any, payload: bytes):
    view = View(7, {"a": 1}, {}, True)
    intake = take(view, operation, "accepted", payload)
    assert intake == Intake(View(7, {"a": 1}, {}, False), ask=True)


@given(
    st.sampled_from(OPERATIONS),
    st.sampled_from(["accepted", "rejected", "delta", "documents"]),
    st.fixed_dictionaries(
        {},
        optional={
            "state": anything
            | st.fixed_dictionaries({}, optional={"desired": anything, "reported": anything}),
            "version": st.integers(-1, 9) | anything,
            "clientToken": anything,
            "code": st.sampled_from([404, 500]) | anything,
        },
    )
    | anything,
    st.booleans(),
)
def test_no_message_raises_or_loses_the_content(operation, suffix, body, current):
    view = View(5, {"a": 1}, {"b": 2}, current)
    intake = take(view, operation, suffix, json.dumps(body).encode())
    assert isinstance(intake.view.desired, dict)
    assert isinstance(intake.view.reported, dict)
    if not intake.view.current:
        assert intake.view.desired == {"a": 1}


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from(["desired", "reported"]), patches)
        | st.sampled_from(["delete", "lose", "reconnect", "answer", "deliver", "shuffle"]),
        max_size=16,
    ),
    st.randoms(use_true_random=False),
)
def test_view_becomes_the_document_whatever_is_lost_or_late(steps: Any, chance: random.Random):
    cloud, client = Cloud(), Client()
    for step in steps:
        if isinstance(step, tuple):
            client.post("update", cloud.update({step[0]: step[1]}))
        elif step == "delete":
            client.post("delete", cloud.ask("delete"))
        elif step == "lose":
            # A lost deletion shows only at the next connection, if the shadow is made again.
            client.mail = [message for message in client.mail if message[0] == "delete"]
        elif step == "reconnect":
            client.reconnect()
        elif step == "answer":
            client.answer(cloud)
        else:
            if step == "shuffle":
                chance.shuffle(client.mail)
            client.deliver()
    # One more update shows what was lost.
    client.deliver()
    client.post("update", cloud.update({"reported": {"last": True}}))
    client.deliver()
    for _ in range(3):
        client.asks |= not client.view.current  # an answer that got lost is asked for in time
        client.answer(cloud)
        client.deliver()
    document = cloud.get()
    state = document["state"]
    assert client.view == View(
        document["version"], state.get("desired", {}), state.get("reported", {}), True
    )


class Client:
    """A view and the messages on their way to it."""

    def __init__(self) -> None:
        self.view = View()
        self.asks = True
        self.mail: list[tuple[Any, Any, bytes]] = []

    def post(self, operation: Any, replies: dict[str, Any]) -> None:
        for suffix, body in replies.items():
            self.mail.append((operation, suffix, json.dumps(body).encode()))

    def deliver(self) -> None:
        for message in self.mail:
            intake = take(self.view, *message)
            self.view, self.asks = intake.view, self.asks or intake.ask
        self.mail.clear()

    def answer(self, cloud: Cloud) -> None:
        """Asks for the document, where the client would."""
        if self.asks:
            self.asks = False
            self.post("get", cloud.ask("get"))

    def reconnect(self) -> None:
        self.mail.clear()
        self.view, self.asks = self.view.reconnected(), True
