"""The brokers that tests run are really there."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

import pytest

from tests.brokers import Certificates, Mosquitto


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_broker_is_there_until_it_is_stopped_and_comes_back(mosquitto: Mosquitto) -> None:
    assert listens(mosquitto.port)
    mosquitto.stop()
    assert not listens(mosquitto.port)
    mosquitto.start()
    assert listens(mosquitto.port)
    mosquitto.kill()
    assert not listens(mosquitto.port)


def test_mutual_tls_asks_for_a_certificate(
    start_mosquitto: Callable[..., Mosquitto], certificates: Certificates
) -> None:
    broker = start_mosquitto(certificates=certificates)
    context = ssl.create_default_context(cafile=str(certificates.ca))
    context.load_cert_chain(*certificates.client("pump-7"))
    with (
        socket.create_connection(("127.0.0.1", broker.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert secure.version() == "TLSv1.3"


def test_a_password_is_in_the_url(start_mosquitto: Callable[..., Mosquitto]) -> None:
    broker = start_mosquitto(user=("pump-7", "secret"))
    assert broker.url == f"mqtt://pump-7:secret@127.0.0.1:{broker.port}"


def test_a_broker_that_does_not_start_fails_the_test_with_its_log(
    start_mosquitto: Callable[..., Mosquitto],
) -> None:
    with pytest.raises(pytest.fail.Exception, match="no_such_option"):
        start_mosquitto(lines=("no_such_option 1",))
