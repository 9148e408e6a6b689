"""AWS's own client against our shadow service, through a real broker."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from edge_sdk.agent.shadow_client import ShadowClient
from edge_sdk.shadow.models import Desired, ReportedModel
from edge_sdk.shadow.topics import ROOTS, Address
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.paho_link import PahoLink
from tests.brokers import PATIENCE, Certificates, Mosquitto
from tests.fleet.aws_client import AwsClient, connected, refusal
from tests.fleet.server import servers
from tests.transport.waiting import until


@contextmanager
def serving(broker: Mosquitto, folder: Path) -> Iterator[None]:
    """The fleet's server on a broker, once it answers."""
    options = ["--broker", broker.url]
    if broker.certificates:
        certificate, key = broker.certificates.client("fleet")
        options += ["--ca", str(broker.certificates.ca)]
        options += ["--certificate", str(certificate), "--key", str(key)]
    with servers() as start:
        server = start(folder / "fleet", *options)
        until(lambda: server.health()[0] == 200)
        yield


@pytest.fixture(params=["plain", "mutual-tls"])
def broker(
    request: pytest.FixtureRequest,
    start_mosquitto: Callable[..., Mosquitto],
    certificates: Certificates,
    tmp_path: Path,
) -> Iterator[Mosquitto]:
    """A broker with our server on it."""
    secure = request.param == "mutual-tls"
    started = start_mosquitto(certificates=certificates if secure else None)
    with serving(started, tmp_path):
        yield started


@pytest.mark.parametrize("version", [311, 5])
@pytest.mark.parametrize("shadow", ["", "models"])
def test_every_operation_and_event(broker: Mosquitto, version: int, shadow: str):
    with connected(broker, version) as client:
        aws = AwsClient(client, "gw-1", shadow)
        aws.listen()
        missing = (404, f"No shadow exists with name: '{shadow or 'gw-1'}'")
        assert refusal(aws.get) == missing
        assert refusal(aws.delete) == missing

        begun = int(time.time())
        first = aws.update(desired={"a": 1, "b": {"c": [1, 2]}})
        assert first.version == 1
        assert first.state.desired == {"a": 1, "b": {"c": [1, 2]}}
        assert set(first.metadata.desired["a"]) == {"timestamp"}
        assert begun <= first.timestamp.timestamp() <= time.time()
        delta = aws.deltas.get(timeout=PATIENCE)
        assert (delta.version, delta.state) == (1, {"a": 1, "b": {"c": [1, 2]}})
        documents = aws.documents.get(timeout=PATIENCE)
        assert documents.current.state.desired == {"a": 1, "b": {"c": [1, 2]}}

        second = aws.update(reported={"a": 1, "x": True}, version=1)
        assert (second.version, second.state.reported) == (2, {"a": 1, "x": True})
        document = aws.get()
        assert document.version == 2
        assert document.state.delta == {"b": {"c": [1, 2]}}
        assert document.state.reported == {"a": 1, "x": True}
        assert aws.deltas.get(timeout=PATIENCE).state == {"b": {"c": [1, 2]}}
        documents = aws.documents.get(timeout=PATIENCE)
        assert documents.previous.version == 1
        assert documents.previous.state.reported is None

        assert refusal(lambda: aws.update(desired={"a": 2}, version=1)) == (409, "Version conflict")
        assert refusal(lambda: aws.update(desired=["a"])) == (400, "Desired node must be an object")

        assert aws.update(desired=None).version == 3
        cleared = aws.get()
        assert cleared.state.desired is None
        assert cleared.state.delta is None
        assert aws.delete().version == 3
        assert refusal(aws.get) == missing
        assert aws.update(reported={"back": 1}).version == 4


@pytest.mark.parametrize("version", [311, 5])
def test_many_requests_at_once_get_their_own_answers(broker: Mosquitto, version: int):
    with connected(broker, version) as client:
        threads, versions = [], []
        shadows = [AwsClient(client, "gw-1", f"s{number}") for number in range(3)]
        for aws in shadows:
            work = lambda aws=aws: versions.extend(  # noqa: E731
                (aws.shadow, aws.update(reported={"n": n}).version) for n in range(20)
            )
            threads.append(threading.Thread(target=work))
            threads[-1].start()
        for thread in threads:
            thread.join(2 * PATIENCE)
        assert sorted(versions) == [(aws.shadow, n + 1) for aws in shadows for n in range(20)]


@pytest.mark.parametrize("root", ROOTS)
def test_our_agent_and_awss_client_speak_of_one_thing(
    root: str, start_mosquitto: Callable[..., Mosquitto], tmp_path: Path
):
    broker = start_mosquitto()
    link = PahoLink(BrokerAddress.parse(broker.url), "gw-1")
    agent = ShadowClient(
        link,
        Address(root, "gw-1", "models"),
        clock=time.monotonic,
        source=random.Random(7),
        wake=lambda: None,
    )
    found: list[Desired] = []

    def hears(version: str | None) -> bool:
        if (desired := agent.take()) is not None:
            found.append(msgspec.convert(desired, Desired))
        agent.attend()
        return bool(found) and _version(found[-1]) == version

    chat = ReportedModel(version="1.0.0", digest="sha256:1", ref="h/r:1", status="running")
    with serving(broker, tmp_path), connected(broker, 5) as client:
        aws = AwsClient(client, "gw-1", "models")
        wanted = {"chat": {"ref": "h/r:1", "digest": "sha256:1", "version": "1.0.0"}}
        aws.update(desired={"models": wanted})
        link.open(agent.connection_changed)
        try:
            until(lambda: hears("1.0.0"))
            reported = msgspec.to_builtins({"models": {"chat": chat}})
            until(lambda: agent.take() or agent.report(reported))
            document = aws.get()
            assert document.state.reported == reported
            assert document.state.delta is None
            aws.update(desired={"models": {"chat": {"version": "2.0.0"}}})
            until(lambda: hears("2.0.0"))
            aws.update(desired={"models": {"chat": None}})
            until(lambda: hears(None))
        finally:
            link.close()


def _version(desired: Desired) -> str | None:
    chat = desired.models.get("chat")
    return chat.version if chat else None
