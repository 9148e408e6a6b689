from __future__ import annotations

import socket
import subprocess
import sys
import threading

import msgspec
import pytest

from benchmarks.fleet import echo, swap
from benchmarks.fleet.load import Answered, Settings
from benchmarks.fleet.swap import Answer
from benchmarks.fleet.wire import Counter
from tests.brokers import Mosquitto

pytestmark = pytest.mark.converts


def test_devices_are_answered_by_an_echo(mosquitto: Mosquitto):
    service = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fleet.echo", mosquitto.url], stdout=subprocess.PIPE
    )
    assert service.stdout is not None
    try:
        assert service.stdout.readline() == b"ready\n"
        settings = Settings(mosquitto.url, echo.ROOT, devices=3, in_flight=2, seconds=0.5)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.fleet.load", msgspec.json.encode(settings).decode()],
            stdout=subprocess.PIPE, check=True, timeout=60,
        )  # fmt: skip
    finally:
        service.terminate()
        service.communicate()
    answered = msgspec.json.decode(done.stdout, type=Answered)
    assert answered.per_second > 0 and answered.rejected == 0
    assert 0 < answered.p50_ms <= answered.p99_ms


def test_what_a_server_sends_is_counted():
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener.accept()[0] as connection:
            connection.recv(100)
            connection.sendall(b"x" * 1000)

    server = threading.Thread(target=serve)
    server.start()
    counter = Counter(listener.getsockname())
    with socket.create_connection(("127.0.0.1", counter.port)) as client:
        client.sendall(b"question")
        got = b""
        while data := client.recv(4096):
            got += data
    assert (len(got), counter.received) == (1000, 1000)
    server.join()
    counter.close()
    listener.close()


def test_requests_count_as_during_a_swap_if_they_touch_it():
    answers = [
        Answer(0.0, 0.001, True),
        Answer(0.9, 1.1, True),
        Answer(1.2, 1.21, False),
        Answer(2.5, 2.501, True),
    ]
    figures = swap._outcome(answers, [(1.0, 2.0)]).figures
    assert (figures["requests"], figures["failed"], figures["swaps"]) == (4, 1, 1)
    assert figures["longest_ms"] == 200.0
    assert figures["p99_ms"] == 1.0
