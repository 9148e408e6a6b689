"""AWS's own client against our shadow service, through a real broker."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3

from edge_sdk.agent.shadow_client import ShadowClient
from edge_sdk.fleet.config import BrokerConfig, FleetConfig, HttpConfig
from edge_sdk.fleet.serve import Serving, serve
from edge_sdk.shadow.topics import Address
from edge_sdk.transport.address import BrokerAddress
from edge_sdk.transport.paho_link import PahoLink
from tests.brokers import PATIENCE, Certificates, Mosquitto
from tests.fleet.aws_client import AwsClient, connected, refusal
from tests.transport.waiting import until


@contextmanager
def serving(broker: Mosquitto, folder: Path) -> Iterator[Serving]:
    """The fleet's server on a broker, in a thread, once it answers."""
    certificate = key = None
    if broker.certificates:
        certificate, key = map(str, broker.certificates.client("fleet"))
    config = FleetConfig(
        data=str(folder / "fleet"),
        broker=BrokerConfig(
            url=broker.url,
            ca=str(broker.certificates.ca) if broker.certificates else None,
            certificate=certificate,
            key=key,
        ),
        http=HttpConfig(listen="127.0.0.1:0"),
    )
    loops: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    started: Future[Serving] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        loops.set_result((asyncio.get_running_loop(), stop))
        await serve(config, stop, started.set_result)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    server = started.result(PATIENCE)
    until(lambda: urllib3.request("GET", f"{server.http}/health").status == 200)
    yield server
    loop, stop = loops.result()
    loop.call_soon_threadsafe(stop.set)
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.fixture(params=["plain", "mutual-tls"])
def broker(
    request: pytest.FixtureRequest,
    start_mosquitto: Callable[..., Mosquitto],
    certificates: Certificates,
    tmp_path: Path,
) -> Iterator[Mosquitto]:
    """A broker with our service on it."""
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


def test_our_agent_and_awss_client_speak_of_one_thing(
    start_mosquitto: Callable[..., Mosquitto], tmp_path: Path
):
    broker = start_mosquitto()
    link = PahoLink(BrokerAddress.parse(broker.url), "gw-1")
    agent = ShadowClient(
        link,
        Address("edge/things", "gw-1", "models"),
        clock=time.monotonic,
        source=random.Random(7),
        wake=lambda: None,
    )
    with serving(broker, tmp_path), connected(broker, 5) as client:
        aws = AwsClient(client, "gw-1", "models")
        wanted = {"chat": {"ref": "h/r:1", "digest": "sha256:1", "version": "1.0.0"}}
        aws.update(desired={"models": wanted})
        link.open(agent.connection_changed)
        try:
            found = []
            until(lambda: found.append(agent.take()) or agent.attend() or found[-1])
            assert found[-1].models["chat"].digest == "sha256:1"
            until(lambda: agent.take() or agent.report({"models": {"chat": {"version": "1.0.0"}}}))
            assert aws.get().state.reported == {"models": {"chat": {"version": "1.0.0"}}}
            aws.update(desired={"models": {"chat": {"version": "2.0.0"}}})
            until(lambda: found.append(agent.take()) or found[-1])
            assert found[-1].models["chat"].version == "2.0.0"
            aws.update(desired={"models": {"chat": None}})
            until(lambda: found.append(agent.take()) or found[-1])
            assert found[-1].models == {}
        finally:
            link.close()
