"""``edge-sdk fleet serve`` as a process of its own."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "edge_sdk.cli.main", "fleet", "serve")
PATIENCE = 30.0


@dataclass
class Server:
    """A server that has said where it is reached.

    Attributes:
        process: The process.
        serving: What it printed: ``broker``, ``http``, ``database`` and more.
        log: Lines on stderr so far.
    """

    process: subprocess.Popen[str]
    serving: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and content of ``/health``."""
        try:
            with urllib.request.urlopen(f"{self.serving['http']}/health") as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def kill(self) -> int:
        """SIGKILL; gives the exit code."""
        self.process.kill()
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def limit_files(self, size: int) -> None:
        """Lets no file grow beyond so many bytes, as if the disk were full; -1 for no limit."""
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def collect(self) -> None:
        """Reads stderr until it ends."""
        assert self.process.stderr
        self.log += iter(self.process.stderr)


@contextmanager
def servers() -> Iterator[Callable[..., Server]]:
    """Starts servers with options of ``fleet serve``; those that still run are killed."""
    started: list[Server] = []

    def start(data: Path, *options: str, command: Sequence[str] = COMMAND) -> Server:
        arguments = [*command, "--json", "--data", str(data), "--http", "127.0.0.1:0", *options]
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        server = Server(process)
        started.append(server)
        threading.Thread(target=server.collect, daemon=True).start()
        assert process.stdout
        printed = ""
        while not printed.endswith("}\n"):
            line = process.stdout.readline()
            assert line, f"it ended: {process.wait(PATIENCE)}\n{''.join(server.log)}"
            printed += line
        server.serving = json.loads(printed)
        return server

    try:
        yield start
    finally:
        for server in started:
            server.kill()
            for pipe in (server.process.stdout, server.process.stderr):
                assert pipe
                pipe.close()
