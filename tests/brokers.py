"""Real Mosquitto brokers on free ports of this machine, and certificates for them.

``mosquitto`` is one that runs and lets everybody in; ``start_mosquitto(...)`` gives more of
them, with a password, with mutual TLS or with lines of configuration of one's own. All are
stopped after the test. ``broker.stop()``, ``.kill()`` and ``.start()`` are outages: the port
stays the same.
"""

from __future__ import annotations

import getpass
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.programs import require

PATIENCE = 10.0  # seconds; a broker is there in milliseconds
# Below the range that outgoing connections take theirs from: a client that keeps trying a
# port there while the broker is away could otherwise be connected to itself.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@dataclass(frozen=True)
class Certificates:
    """A certificate authority of the tests, a server's certificate and clients' ones.

    Attributes:
        folder: Holds ``ca.crt``, ``server.crt`` and ``server.key`` (for ``localhost`` and
            127.0.0.1), and what :meth:`client` adds.
    """

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def client(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a client whose common name is ``name``."""
        if not (self.folder / f"{name}.crt").exists():
            self.issue(name)
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def authority(self) -> None:
        """Makes the authority, and the server's certificate."""
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
            "-nodes", "-days", "2", "-subj", "/CN=tests", "-keyout", "ca.key", "-out", "ca.crt",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
        self.issue("server")

    def issue(self, name: str, days: int = 2) -> None:
        """Signs a certificate for clients and servers on this machine."""
        (self.folder / f"{name}.ext").write_text(
            "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
            "authorityKeyIdentifier=keyid\nkeyUsage=digitalSignature\n"
        )
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", str(days), "-extfile", f"{name}.ext", "-out", f"{name}.crt",
        )  # fmt: skip

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


@dataclass
class Mosquitto:
    """A broker with its own folder.

    Attributes:
        folder: Configuration, log, and what it keeps over a restart.
        user: Name and password that it asks for.
        certificates: Server's side of mutual TLS.
        lines: Further lines of configuration.
        port: Where it listens, on 127.0.0.1.
    """

    folder: Path
    user: tuple[str, str] | None = None
    certificates: Certificates | None = None
    lines: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """``mqtt[s]://[user:password@]127.0.0.1:port``."""
        scheme = "mqtts" if self.certificates else "mqtt"
        login = ":".join(self.user) + "@" if self.user else ""
        return f"{scheme}://{login}127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has written so far."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def start(self) -> None:
        """Starts it, again after an outage, and waits until it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "mosquitto.conf").write_text("\n".join(self._configuration()) + "\n")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [require("mosquitto", "mosquitto"), "-c", "mosquitto.conf"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"mosquitto did not start:\n{self.log}")
            time.sleep(0.005)

    def stop(self) -> None:
        """Ends it in good order: it writes down what it keeps."""
        self._end(subprocess.Popen.terminate)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(subprocess.Popen.kill)

    def signal(self, number: int) -> None:
        """``SIGSTOP`` makes it fall silent, ``SIGCONT`` go on, ``SIGHUP`` read its files anew."""
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        if self._process is not None:
            how(self._process)
            self._process.wait(PATIENCE)
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _configuration(self) -> Iterator[str]:
        yield f"listener {self.port} 127.0.0.1"
        yield f"user {getpass.getuser()}"  # else root becomes nobody and cannot write here
        yield "set_tcp_nodelay true"
        yield "max_queued_messages 100000"  # 0 means none to 2.0.11 where a publish is denied
        yield "persistence true"
        yield f"persistence_location {self.folder}/"
        yield "log_dest stdout"
        yield f"allow_anonymous {'false' if self.user else 'true'}"
        if self.user:
            passwords = self.folder / "passwords"
            passwords.write_text("")
            subprocess.run(
                [require("mosquitto_passwd", "mosquitto"), "-b", str(passwords), *self.user],
                check=True,
            )
            yield f"password_file {passwords}"
        if self.certificates:
            yield f"cafile {self.certificates.ca}"
            yield f"certfile {self.certificates.folder / 'server.crt'}"
            yield f"keyfile {self.certificates.folder / 'server.key'}"
            yield "require_certificate true"
        yield from self.lines


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority of this test run."""
    require("openssl", "openssl")
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.authority()
    return made


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Starts brokers with the attributes of :class:`Mosquitto` and stops them in the end."""
    started: list[Mosquitto] = []

    def start(**attributes: object) -> Mosquitto:
        folder = tmp_path / f"mosquitto-{len(started)}"
        broker = Mosquitto(folder, **attributes)  # type: ignore[arg-type]
        started.append(broker)
        broker.start()
        return broker

    yield start
    for broker in started:
        broker.kill()


@pytest.fixture
def mosquitto(start_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """One that runs and lets everybody in."""
    return start_mosquitto()
