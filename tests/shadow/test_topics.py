from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.shadow import topics
from edge_sdk.shadow.topics import OPERATIONS, ROOTS, Address

CLASSIC = Address("$aws/things", "gw-1")
NAMED = Address("edge/things", "gw-1", "models")


def test_topics_are_those_of_aws_iot():
    assert topics.request(CLASSIC, "get") == "$aws/things/gw-1/shadow/get"
    assert topics.request(NAMED, "update") == "edge/things/gw-1/shadow/name/models/update"
    assert topics.reply(CLASSIC, "update", "delta") == "$aws/things/gw-1/shadow/update/delta"
    assert (
        topics.reply(NAMED, "delete", "accepted")
        == "edge/things/gw-1/shadow/name/models/delete/accepted"
    )


@pytest.mark.parametrize("address", [CLASSIC, NAMED, Address("a/b/c", "name", "name")])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_request_is_read_back_from_its_topic(address, operation):
    topic = topics.request(address, operation)
    assert topics.parse(topic, (*ROOTS, "a/b/c")) == (address, operation)


@pytest.mark.parametrize(
    "topic",
    [
        "edge/things/gw-1/shadow/update/accepted",
        "edge/things/gw-1/shadow/name/models/get/rejected",
        "edge/things/gw-1/shadow/name/get",
        "edge/things/gw-1/shadow/name//get",
        "edge/things//shadow/get",
        "edge/things/gw-1/shadow",
        "edge/things/gw-1/shadow/list",
        "edge/things/gw-1/presence",
        "edge/thingsgw-1/shadow/get",
        "edge/things",
        "elsewhere/things/gw-1/shadow/get",
        f"edge/things/{'x' * 65_000}/shadow/get",
        "",
    ],
)
def test_other_topics_are_no_requests(topic: str):
    assert topics.parse(topic) is None


@given(st.lists(st.sampled_from(["edge", "$aws", "things", "shadow", "name", "get", "", "x"])))
def test_parse_never_raises_and_only_takes_what_it_would_write(levels):
    topic = "/".join(levels)
    if parsed := topics.parse(topic):
        assert topics.request(*parsed) == topic


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT 3.1.1, section 4.7, for filters without ``#``."""
    wanted, given_levels = topic_filter.split("/"), topic.split("/")
    return len(wanted) == len(given_levels) and all(
        want in ("+", level) for want, level in zip(wanted, given_levels, strict=True)
    )


@pytest.mark.parametrize("address", [CLASSIC, NAMED])
def test_service_hears_every_request_once_and_no_reply(address):
    filters = topics.requests(address.root)
    for operation in OPERATIONS:
        topic = topics.request(address, operation)
        assert sum(matches(each, topic) for each in filters) == 1
        for suffix in ("accepted", "rejected", "delta", "documents"):
            reply = topics.reply(address, operation, suffix)
            assert not any(matches(each, reply) for each in filters)


def test_device_follows_its_own_shadow():
    followed = topics.for_thing(NAMED)
    assert followed["edge/things/gw-1/shadow/name/models/update/delta"] == ("update", "delta")
    assert all(topics.reply(NAMED, *what) == topic for topic, what in followed.items())
    assert ("get", "accepted") in followed.values()
    # Twice the state and its metadata, of which the device has all but the last change.
    assert ("update", "documents") not in followed.values()


@pytest.mark.parametrize("name", ["gw-1", "Gw_1", "a:b", "host.site", "x" * 128])
def test_names_of_things(name: str):
    assert topics.valid_thing(name)


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a+", "#", "ü", "a b", "x" * 129])
def test_names_that_no_thing_may_have(name: str):
    assert not topics.valid_thing(name)


def test_names_of_shadows():
    assert topics.valid_shadow("")
    assert topics.valid_shadow("$package")
    assert topics.valid_shadow("x" * 64)
    assert not topics.valid_shadow("x" * 65)
    assert not topics.valid_shadow("..")
    assert not topics.valid_shadow("a\n")
