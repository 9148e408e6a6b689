"""The rules of AWS IoT's Device Shadow service, one by one."""

from __future__ import annotations

import json

import pytest

from edge_sdk.shadow import algebra, requests
from edge_sdk.shadow.document import TOMBSTONE_S
from edge_sdk.shadow.requests import Limits, Request
from edge_sdk.shadow.topics import Address
from tests.shadow.cloud import Cloud


def nested(levels: int) -> dict:
    """An object of so many levels."""
    value: dict = {}
    for _ in range(levels - 1):
        value = {"x": value}
    return value


def test_update_creates_and_each_accepted_update_raises_the_version_by_one():
    cloud = Cloud()
    versions = [cloud.update({"reported": {"a": 1}})["accepted"]["version"] for _ in range(3)]
    assert versions == [1, 2, 3]  # the last two change nothing


def test_stale_version_is_a_conflict_and_the_current_one_is_accepted():
    cloud = Cloud()
    cloud.update({"desired": {"a": 1}})
    cloud.update({"desired": {"a": 2}})
    for stale in (0, 1, 3, 10**30):
        body = {"state": {"desired": {"a": 3}}, "version": stale}
        assert cloud.refused("update", body) == (409, "Version conflict")
    assert cloud.update({"desired": {"a": 3}}, version=2)["accepted"]["version"] == 3


@pytest.mark.parametrize("version", [None, 0])
def test_missing_shadow_is_created_at_version_zero_or_without_one(version: int | None):
    assert Cloud().update({"desired": {"a": 1}}, version=version)["accepted"]["version"] == 1


def test_missing_shadow_has_no_other_version():
    body = {"state": {}, "version": 1}
    assert Cloud().refused("update", body) == (409, "Version conflict")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({}, 400, "Missing required node: state"),
        ({"clientToken": "t"}, 400, "Missing required node: state"),
        ({"state": 1}, 400, "State node must be an object"),
        ({"state": []}, 400, "State node must be an object"),
        ({"state": {"desired": "on"}}, 400, "Desired node must be an object"),
        ({"state": {"desired": {}, "reported": [1]}}, 400, "Reported node must be an object"),
        ({"state": {"delta": {}}}, 400, "State contains an invalid node"),
        ({"state": {"desired": {"a": [1, None]}}}, 400, "State contains an invalid node"),
        ({"state": {"desired": {"a": [{"b": None}]}}}, 400, "State contains an invalid node"),
        ({"state": {}, "version": "1"}, 400, "Invalid version"),
        ({"state": {}, "version": -1}, 400, "Invalid version"),
        ({"state": {}, "version": 1.0}, 400, "Invalid version"),
        ({"state": {}, "version": True}, 400, "Invalid version"),
        ({"state": {}, "clientToken": 7}, 400, "Invalid clientToken"),
        ({"state": {}, "clientToken": "t" * 65}, 400, "Invalid clientToken"),
        ({"state": {}, "clientToken": "ü" * 33}, 400, "Invalid clientToken"),
        (b"", 400, "Invalid JSON"),
        (b"{", 400, "Invalid JSON"),
        (b"[]", 400, "Invalid JSON"),
        (b"null", 400, "Invalid JSON"),
        (b'{"state": {"desired": {"a": NaN}}}', 400, "Invalid JSON"),
        (b'{"state": {"desired": {"a": 1e999}}}', 400, "Invalid JSON"),
        (b'{"state": {"desired": {"a": "\\ud800"}}}', 400, "Invalid JSON"),
        (b'{"state": {"desired": {"a": ' + b"9" * 5000 + b"}}}", 400, "Invalid JSON"),
        (
            b'{"state": {"desired": {"a": "\xff"}}}',
            415,
            "Unsupported documented encoding; supported encoding is UTF-8",
        ),
        (
            '{"state": {}}'.encode("utf-16"),
            415,
            "Unsupported documented encoding; supported encoding is UTF-8",
        ),
        (
            {"state": {"desired": nested(7)}},
            400,
            "JSON contains too many levels of nesting; maximum is 6",
        ),
        (
            {"state": {"reported": {"a": [[[[[[]]]]]]}}},
            400,
            "JSON contains too many levels of nesting; maximum is 6",
        ),
        (b"[" * 100_000, 400, "JSON contains too many levels of nesting; maximum is 6"),
        (
            {"state": {"desired": {"a": "x" * 8200}}},
            413,
            "The payload exceeds the maximum size allowed",
        ),
    ],
)
def test_wrong_update_is_refused_by_its_message(body: object, code: int, message: str):
    fresh, grown = Cloud(), Cloud()
    grown.update({"desired": {"a": {"b": 1}}, "reported": {"a": [1]}})
    for cloud in (fresh, grown):
        assert cloud.refused("update", body) == (code, message)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (Address("edge/things", "t" * 129), "Invalid thingName"),
        (Address("edge/things", "a b"), "Invalid thingName"),
        (Address("edge/things", ".."), "Invalid thingName"),
        (Address("edge/things", "gw", "s" * 65), "Invalid shadowName"),
        (Address("edge/things", "gw", "a,b"), "Invalid shadowName"),
    ],
)
def test_wrong_name_is_refused(address: Address, message: str):
    assert Cloud(address=address).refused("update", {"state": {}}) == (400, message)


def test_longest_names_are_accepted():
    cloud = Cloud(address=Address("$aws/things", "t" * 128, "$" + "s" * 63))
    assert "accepted" in cloud.update({"desired": {"a": 1}})


def test_depth_and_size_are_settings_and_exact():
    cloud = Cloud(limits=Limits(state_bytes=40, levels=2))
    assert "accepted" in cloud.update({"desired": nested(2)})
    cloud.refused("update", {"state": {"desired": nested(3)}})
    cloud = Cloud(limits=Limits(state_bytes=40))
    # {"a":"…"} twice: 8 bytes each around the text.
    cloud.update({"desired": {"a": "x" * 12}})
    assert "accepted" in cloud.update({"reported": {"a": "x" * 12}})
    assert cloud.refused("update", {"state": {"reported": {"a": "x" * 13}}})[0] == 413
    # What is too large can still be made smaller.
    assert "accepted" in cloud.update({"desired": {"a": None}})


def test_six_levels_are_accepted():
    assert "accepted" in Cloud().update({"desired": nested(6), "reported": nested(6)})


def test_merge_touches_named_fields_only_and_replaces_arrays_and_scalars():
    cloud = Cloud()
    cloud.update({"desired": {"a": {"b": 1, "c": [1, 2]}, "d": 5, "e": {"f": 1}}})
    cloud.update({"desired": {"a": {"c": [3]}, "d": {"x": 1}, "e": 7, "g": {}}})
    desired = cloud.get()["state"]["desired"]
    assert desired == {"a": {"b": 1, "c": [3]}, "d": {"x": 1}, "e": 7, "g": {}}


def test_null_deletes_and_an_empty_section_disappears():
    cloud = Cloud()
    cloud.update({"desired": {"a": 1, "b": 2}, "reported": {"a": 1}})
    cloud.update({"desired": {"a": None, "none": None, "c": {"d": None, "e": 1}}})
    assert cloud.get()["state"]["desired"] == {"b": 2, "c": {"e": 1}}
    cloud.update({"desired": {"b": None, "c": None}})
    document = cloud.get()
    assert document["state"] == {"reported": {"a": 1}}
    assert list(document["metadata"]) == ["reported"]


def test_null_section_is_removed():
    cloud = Cloud()
    cloud.update({"desired": {"a": 1}, "reported": {"a": 2}})
    replies = cloud.update({"desired": None})
    assert replies["accepted"]["state"] == {"desired": None}
    assert "delta" not in replies
    assert cloud.get()["state"] == {"reported": {"a": 2}}


def test_null_state_clears_both_sections():
    cloud = Cloud()
    cloud.update({"desired": {"a": 1}, "reported": {"a": 2}})
    accepted = cloud.update(None)["accepted"]
    assert accepted["state"] is None
    assert accepted["version"] == 2
    document = cloud.get()
    assert (document["state"], document["metadata"], document["version"]) == ({}, {}, 2)


def test_accepted_echoes_the_request_with_its_metadata():
    cloud = Cloud()
    cloud.update({"desired": {"a": 1, "b": 2}})
    accepted = cloud.update({"reported": {"a": 1, "gone": None, "l": [1]}}, clientToken="t-1")[
        "accepted"
    ]
    now = {"timestamp": cloud.now}
    assert accepted == {
        "state": {"reported": {"a": 1, "gone": None, "l": [1]}},
        "metadata": {"reported": {"a": now, "gone": now, "l": [now]}},
        "version": 2,
        "timestamp": cloud.now,
        "clientToken": "t-1",
    }


def test_delta_carries_all_that_differs_at_the_version_of_the_document():
    cloud = Cloud()
    cloud.update({"desired": {"a": 1, "b": {"c": 2}}})
    set_at = {"timestamp": cloud.now}
    delta = cloud.update({"reported": {"b": {"c": 3, "d": 4}}}, clientToken="t")["delta"]
    assert delta == {
        "state": {"a": 1, "b": {"c": 2}},
        "metadata": {"a": set_at, "b": {"c": set_at}},
        "version": 2,
        "timestamp": cloud.now,
        "clientToken": "t",
    }
    assert cloud.get()["state"]["delta"] == delta["state"]
    assert "delta" not in cloud.update({"reported": {"a": 1, "b": {"c": 2}}})
    assert "delta" not in cloud.get()["state"]


def test_documents_hold_both_versions_and_no_delta():
    cloud = Cloud()
    cloud.update({"desired": {"a": 1}})
    first = {"timestamp": cloud.now}
    documents = cloud.update({"reported": {"b": 2}}, clientToken="t")["documents"]
    second = {"timestamp": cloud.now}
    assert documents == {
        "previous": {
            "state": {"desired": {"a": 1}},
            "metadata": {"desired": {"a": first}},
            "version": 1,
        },
        "current": {
            "state": {"desired": {"a": 1}, "reported": {"b": 2}},
            "metadata": {"desired": {"a": first}, "reported": {"b": second}},
            "version": 2,
        },
        "timestamp": cloud.now,
        "clientToken": "t",
    }


def test_get_answers_with_the_document_and_the_token():
    cloud = Cloud()
    cloud.update({"desired": {"a": 1}, "reported": {"b": 2}})
    now = {"timestamp": cloud.now}
    document = cloud.ask("get", {"clientToken": "t"})["accepted"]
    assert document == {
        "state": {"desired": {"a": 1}, "reported": {"b": 2}, "delta": {"a": 1}},
        "metadata": {"desired": {"a": now}, "reported": {"b": now}},
        "version": 1,
        "timestamp": cloud.now,
        "clientToken": "t",
    }
    assert "clientToken" not in cloud.get()


@pytest.mark.parametrize("operation", ["get", "delete"])
@pytest.mark.parametrize(("shadow", "name"), [("", "gw-1"), ("models", "models")])
def test_nothing_can_be_read_or_deleted_where_nothing_is(operation, shadow, name):
    cloud = Cloud(address=Address("$aws/things", "gw-1", shadow))
    missing = (404, f"No shadow exists with name: '{name}'")
    assert cloud.refused(operation) == missing
    cloud.update({"desired": {"a": 1}})
    cloud.ask("delete")
    assert cloud.refused(operation) == missing


def test_deleted_shadow_continues_its_version_within_48_hours():
    cloud = Cloud()
    cloud.update({"desired": {"a": 1}})
    cloud.update({"desired": {"a": 2}})
    deleted = cloud.ask("delete", {"clientToken": "t"})
    assert deleted == {"accepted": {"version": 2, "timestamp": cloud.now, "clientToken": "t"}}
    gone = cloud.shadow
    cloud.now += TOMBSTONE_S - 10
    assert cloud.refused("update", {"state": {}, "version": 2}) == (409, "Version conflict")
    accepted = cloud.update({"desired": {"b": 1}}, version=0)["accepted"]
    assert accepted["version"] == 3
    assert cloud.get()["state"]["desired"] == {"b": 1}
    cloud.shadow = gone
    cloud.now += 10
    assert cloud.update({"desired": {"b": 1}})["accepted"]["version"] == 1


@pytest.mark.parametrize("operation", ["get", "delete", "update"])
def test_rejection_echoes_the_token(operation):
    rejected = Cloud().ask(operation, {"clientToken": "mine", "version": 3, "state": {}})
    assert rejected["rejected"]["clientToken"] == "mine"
    # One that is too long is known to its client all the same.
    rejected = Cloud().ask(operation, {"clientToken": "m" * 65, "state": {}})
    assert rejected["rejected"]["code"] == 400
    assert rejected["rejected"]["clientToken"] == "m" * 65


def test_service_can_refuse_for_reasons_of_its_own():
    request = Request(Address("$aws/things", "gw"), "get", b'{"clientToken": "t"}')
    reply = algebra.reject(request, requests.INTERNAL_FAILURE, 5)
    assert reply.suffix == "rejected"
    assert json.loads(reply.payload) == {
        "code": 500,
        "message": "Internal service failure",
        "timestamp": 5,
        "clientToken": "t",
    }
    broken = Request(request.address, "update", b"\xff")
    assert json.loads(algebra.reject(broken, requests.TOO_MANY_REQUESTS, 5).payload)["code"] == 429


@pytest.mark.parametrize(
    ("operation", "body", "everyone"),
    [
        ("update", {"state": {"desired": {"a": None}}}, ["accepted", "delta", "documents"]),
        ("update", {"state": None}, ["accepted", "documents"]),
        ("update", {"state": {"reported": {"b": 1}}}, ["delta", "documents"]),
        ("update", {"state": 1}, []),
        ("get", {}, []),
        ("delete", {}, ["accepted"]),
    ],
)
def test_what_a_device_must_hear_of_is_for_everyone(operation, body, everyone):
    cloud = Cloud()
    cloud.update({"desired": {"a": 1, "b": 2}})
    request = Request(cloud.address, operation, json.dumps(body).encode())
    replies = algebra.apply(cloud.shadow, request, 1).replies
    assert [reply.suffix for reply in replies if reply.everyone] == everyone


def test_metadata_restamps_touched_leaves_only():
    cloud = Cloud()
    cloud.update({"desired": {"a": {"b": 1, "c": [1, [2]]}, "e": {}}})
    first = {"timestamp": cloud.now}
    cloud.update({"desired": {"a": {"b": 1}, "n": {"x": {"y": 1, "z": None}}}})
    second = {"timestamp": cloud.now}
    assert cloud.get()["metadata"]["desired"] == {
        "a": {"b": second, "c": [first, [first]]},
        "e": {},
        "n": {"x": {"y": second}},
    }


def test_field_named_timestamp_is_a_field():
    cloud = Cloud()
    cloud.update({"reported": {"timestamp": 5}})
    cloud.update({"reported": {"timestamp": {"timestamp": 6}}})
    stamps = cloud.get()["metadata"]["reported"]
    assert stamps == {"timestamp": {"timestamp": {"timestamp": 1002}}}


def test_other_top_level_keys_are_ignored():
    cloud = Cloud()
    accepted = cloud.update({"desired": {"a": 1}}, timestamp=0, metadata={"x": 1}, foo=None)
    assert set(accepted["accepted"]) == {"state", "metadata", "version", "timestamp"}
    assert set(cloud.get()) == {"state", "metadata", "version", "timestamp"}


def test_update_leaves_the_document_before_as_it_was():
    cloud = Cloud()
    cloud.update({"desired": {"a": {"b": 1, "c": 2}}, "reported": {"x": {"y": 1}}})
    before = cloud.shadow
    assert before
    text = repr(before)
    cloud.update({"desired": {"a": {"b": None, "d": 1}}, "reported": {"x": 2}})
    assert repr(before) == text
    # What is not touched is shared, not copied.
    assert cloud.shadow
    shared = cloud.shadow
    cloud.update({"reported": {"n": 1}})
    assert cloud.shadow.desired is shared.desired
