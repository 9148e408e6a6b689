"""Server and agents of the demo: processes of their own that never outlive it."""

from __future__ import annotations

import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec
import urllib3

from edge_sdk.bundle.files import writing
from edge_sdk.errors import FleetError
from edge_sdk.fleet.broker import end_with_parent
from edge_sdk.fleet.serve import Serving

PATIENCE = 300.0
"""Seconds for anything to happen; a slow machine takes some."""
_POLL_S = 0.1
_GRACE_S = 15.0
_TAIL = 3
_PORTS = range(20_000, 32_000)
T = TypeVar("T")


class Child:
    """One ``edge-sdk`` command that runs until it is ended.

    Args:
        folder: Where it runs, and its log is.
        name: Of the log.
        words: The command's arguments.

    Attributes:
        log: What it says.
        command: How a user would call it, in that folder.
    """

    def __init__(self, folder: Path, name: str, words: Sequence[str]) -> None:
        self.log = folder / f"{name}.log"
        self.command = shlex.join(("edge-sdk", *words))
        self._output = folder / f"{name}.out"
        self._ended_by_us = False
        with writing(folder), self.log.open("ab") as log, self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edge_sdk.cli.main", *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends it
                preexec_fn=end_with_parent,
            )

    @property
    def output(self) -> bytes:
        """What it has printed."""
        return self._output.read_bytes()

    def check(self) -> None:
        """Looks whether it still runs.

        Raises:
            FleetError: It ended by itself.
        """
        code = self._process.poll()
        if code is None or self._ended_by_us:
            return
        lines = self.log.read_text(errors="replace").splitlines()
        raise FleetError(
            "\n".join((f"{self.command} ended with exit code {code}", *lines[-_TAIL:])),
            where=str(self.log),
            remedy="its log says why",
        )

    def kill(self) -> None:
        """Ends it at once, as a power cut would."""
        self._ended_by_us = True
        self._process.kill()
        self._process.wait()

    def ask_to_end(self) -> None:
        """SIGTERM."""
        self._ended_by_us = True
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Ends it; by force after some seconds."""
        self.ask_to_end()
        try:
            self._process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()


class Children:
    """All of them, ended together when the block is left, however it is left.

    Args:
        folder: Where they run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: list[Child] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        # The server was the first to start and is the last to end, so that farewells are heard.
        for children in (self._all[1:], self._all[:1]):
            for child in children:
                child.ask_to_end()
            for child in children:
                child.end()

    def start(self, name: str, *words: str) -> Child:
        """Starts one."""
        self._all.append(Child(self._folder, name, words))
        return self._all[-1]

    def wait(self, what: str, found: Callable[[], T | None]) -> T:
        """Waits until something is there.

        Args:
            what: It, for a message.
            found: Gives it, or ``None`` while it is not there.

        Raises:
            FleetError: It did not come, or one of the processes ended.
        """
        deadline = time.monotonic() + PATIENCE
        while (value := found()) is None:
            for child in self._all:
                child.check()
            if time.monotonic() > deadline:
                logs = ", ".join(str(child.log) for child in self._all)
                raise FleetError(
                    f"took more than {PATIENCE:.0f} s", where=what, remedy=f"see {logs}"
                )
            time.sleep(_POLL_S)
        return value


def reached(server: Child) -> Serving | None:
    """Where a server is reached, once it says so."""
    try:
        return msgspec.json.decode(server.output, type=Serving)
    except msgspec.DecodeError:
        return None


def free_port() -> int:
    """A port of this machine on which nobody listens; none that outgoing connections take."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message


class Spoken(msgspec.Struct):
    """What ``/v1/chat/completions`` answers, as far as it matters here."""

    system_fingerprint: str
    choices: list[_Choice]

    @property
    def text(self) -> str:
        """The answer."""
        return self.choices[0].message.content

    @property
    def version(self) -> str:
        """The version that gave it."""
        return self.system_fingerprint.partition("@")[0]


def ask(address: str, model: str, question: str) -> Spoken:
    """Asks a device's model through its local API, as an application would.

    Args:
        address: ``host:port`` of the API.
        model: Name of the model.
        question: What to say.

    Raises:
        FleetError: The device refuses, or is not reached.
    """
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    url = f"http://{address}/v1/chat/completions"
    try:
        response = urllib3.PoolManager(retries=False).request(
            "POST", url, body=msgspec.json.encode(body), timeout=PATIENCE
        )
    except urllib3.exceptions.HTTPError as error:
        raise FleetError(f"is not reached: {error}", where=url) from error
    if response.status != 200:
        raise FleetError(f"answers {response.status}: {response.data[:200]!r}", where=url)
    return msgspec.json.decode(response.data, type=Spoken)
