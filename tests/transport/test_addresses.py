"""Addresses of brokers, topic filters, and how long to wait before trying again."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import ConfigError
from edge_sdk.transport import topic_filter
from edge_sdk.transport.address import BrokerAddress, TlsFiles
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.topic_filter import matches
from tests.brokers import Certificates


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mqtt://localhost", BrokerAddress("localhost", 1883)),
        ("mqtts://broker.example.com", BrokerAddress("broker.example.com", 8883, tls=TlsFiles())),
        ("mqtt://10.0.0.1:21883/", BrokerAddress("10.0.0.1", 21883)),
        ("mqtt://[fe80::1]:1884", BrokerAddress("fe80::1", 1884)),
        ("mqtt://pump@h", BrokerAddress("h", 1883, "pump")),
        ("mqtt://pump:@h", BrokerAddress("h", 1883, "pump", "")),
        ("mqtt://p%40x:s%3Ae%2F%25@h:1", BrokerAddress("h", 1, "p@x", "s:e/%")),
    ],
)
def test_addresses(text: str, address: BrokerAddress) -> None:
    assert BrokerAddress.parse(text) == address
    shown = str(address)
    assert BrokerAddress.parse(shown).host == address.host
    assert BrokerAddress.parse(shown).user == address.user


@pytest.mark.parametrize(
    "text",
    [
        "", "localhost", "localhost:1883", "http://localhost", "mqtt://", "mqtt://h:0",
        "mqtt://h:65536", "mqtt://h:x", "mqtt://h/path", "mqtt://:secret@h", "mqtt://a..b",
        "mqtt://h h", "MQTT://h", "mqtt://u:se@cret@h",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a broker") as caught:
        BrokerAddress.parse(text)
    assert "mqtt://host:1883" in str(caught.value)


def test_a_password_is_never_shown() -> None:
    address = BrokerAddress.parse("mqtt://pump:secret@h")
    assert "secret" not in f"{address} {address!r}"
    for wrong in ("mqtt://pump:secret@h:0", "mqtt://pump:secret@"):
        with pytest.raises(ConfigError) as caught:
            BrokerAddress.parse(wrong)
        assert "secret" not in str(caught.value)


def test_files_must_go_with_the_address(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    with pytest.raises(ConfigError, match="without TLS"):
        BrokerAddress.parse("mqtt://h", ca=there)
    with pytest.raises(ConfigError, match="the key is missing"):
        BrokerAddress.parse("mqtts://h", certificate=there)
    with pytest.raises(ConfigError, match="the certificate is missing"):
        BrokerAddress.parse("mqtts://h", key=there)
    with pytest.raises(ConfigError, match="no such file") as caught:
        BrokerAddress.parse("mqtts://h", ca=tmp_path / "missing")
    assert caught.value.where == str(tmp_path / "missing")


def test_files_that_are_something_else_are_named(
    tmp_path: Path, certificates: Certificates
) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("not a certificate")
    with pytest.raises(ConfigError, match=r"wrong\.pem: does not hold certificates"):
        BrokerAddress.parse("mqtts://h", ca=wrong).ssl_context()
    _, key = certificates.client("pump-7")
    with pytest.raises(ConfigError, match=r"wrong\.pem: does not hold a certificate for"):
        BrokerAddress.parse("mqtts://h", certificate=wrong, key=key).ssl_context()


def test_only_the_named_authority_is_trusted(certificates: Certificates) -> None:
    context = BrokerAddress.parse("mqtts://h", ca=certificates.ca).ssl_context()
    assert context is not None
    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname
    assert BrokerAddress.parse("mqtt://h").ssl_context() is None


@pytest.mark.parametrize(
    ("wanted", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/b/d", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("#", "a/b", True),
        ("#", "$aws/things", False),
        ("+/things", "$aws/things", False),
        ("+/things", "x/things", True),
        ("$aws/#", "$aws/things/x", True),
        ("$aws/+/x", "$aws/things/x", True),
        ("+", "", True),
        ("a//b", "a//b", True),
        ("a/+/b", "a//b", True),
    ],
)
def test_filters_match_as_in_the_standard(wanted: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter.check(wanted), topic) is expected


@pytest.mark.parametrize("wrong", ["", "a/#/b", "a#", "a/b#", "a/+b", "a+/b", "a\0", "a" * 65_536])
def test_what_is_no_filter(wrong: str) -> None:
    with pytest.raises(ConfigError, match="is no filter"):
        topic_filter.check(wrong)


LEVELS = st.lists(st.sampled_from(["a", "b", "", "+", "#", "$x"]), min_size=1, max_size=5)


@given(LEVELS, st.lists(st.sampled_from(["a", "b", "", "$x"]), min_size=1, max_size=5))
def test_filters_match_as_a_regular_expression_does(wanted: list[str], levels: list[str]) -> None:
    if "#" in wanted[:-1]:
        return
    pattern = "/".join("[^/]*" if level == "+" else re.escape(level) for level in wanted)
    pattern = re.sub(r"(?:^|/)\\#$", "(?:/.*)?" if len(wanted) > 1 else ".*", pattern)
    topic = "/".join(levels)
    expected = bool(re.fullmatch(pattern, topic)) and not (
        topic.startswith("$") and wanted[0] in ("+", "#")
    )
    assert matches("/".join(wanted), topic) is expected


@given(st.integers(0, 2**32), st.floats(0.01, 10), st.floats(10, 200))
def test_delays_stay_within_their_bounds(seed: int, shortest: float, longest: float) -> None:
    backoff = Backoff(shortest, longest, random.Random(seed))
    assert all(shortest <= backoff.delay() <= longest for _ in range(30))


def test_delays_differ_between_clients_and_grow() -> None:
    crowd = [Backoff(source=random.Random(seed)) for seed in range(1000)]
    first = [backoff.delay() for backoff in crowd]
    assert min(first) < 1.05 < 2.9 < max(first) <= 3
    for _ in range(20):
        late = [backoff.delay() for backoff in crowd]
    assert sum(late) / len(late) > 40
    assert max(late) == 120


def test_delays_begin_anew_only_after_a_success_that_lasted() -> None:
    backoff = Backoff(source=random.Random(0))
    for _ in range(20):
        last = backoff.delay()
    backoff.succeeded(last / 2)
    assert backoff.delay() > 3
    backoff.succeeded(1000)
    assert backoff.delay() <= 3
