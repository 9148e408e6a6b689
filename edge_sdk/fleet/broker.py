"""A broker for a fleet on one machine, where none is given: Mosquitto, else one in Python."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.bundle import files
from edge_sdk.errors import FleetError
from edge_sdk.transport.address import BrokerAddress

_LOG = logging.getLogger(__name__)
_HOST = "127.0.0.1"
_SYSTEM = "/usr/local/sbin:/usr/sbin"  # where daemons are; not on the path of every user
_FIRST_PORT = 1883
_KEPT = "mosquitto.db"  # messages and sessions of a broker that has ended in good order
_START_S = 10.0
_RELEASE_S = 3.0  # within which the broker of a server that was killed ends
_RESTART_S = 1.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Broker:
    """A broker, the user's or one that runs for us.

    Attributes:
        address: Where.
        name: What it is, where it runs for us; else empty.
        dollars: Whether clients may publish to topics that begin with ``$``.
    """

    address: BrokerAddress
    name: str
    dollars: bool = True


@asynccontextmanager
async def own_broker(folder: Path, port: int | None = None) -> AsyncIterator[Broker]:
    """Runs a broker on the loopback interface.

    Agents are told its port, so it stays what it was when the folder was used last.

    Args:
        folder: For what it keeps.
        port: To listen on; as last time unless given, at first 1883 or the next free one.

    Raises:
        FleetError: It does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remembered = folder / "port"
    address = BrokerAddress(_HOST, await _port(port, remembered))
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path=_SYSTEM)
    running = _mosquitto(program, folder, address) if program else _amqtt(address)
    async with running as broker:
        files.replace(remembered, b"%d\n" % address.port, folder)
        yield broker


@asynccontextmanager
async def _mosquitto(program: str, folder: Path, address: BrokerAddress) -> AsyncIterator[Broker]:
    configuration = folder / "mosquitto.conf"
    configuration.write_text(_configuration(folder, address))

    async def start() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            program,
            "-c",
            str(configuration),
            preexec_fn=end_with_parent,
            start_new_session=True,  # Ctrl-C is for the server, which then ends it
        )
        await _listening(process, address)
        # Read once: if it is killed now, it must not deliver again what has long been done.
        (folder / _KEPT).unlink(missing_ok=True)
        return process

    process = await start()

    async def keep() -> None:
        nonlocal process
        while True:
            code = await process.wait()
            _LOG.error("mosquitto ended with exit code %d; it is started again", code)
            await asyncio.sleep(_RESTART_S)
            with suppress(FleetError):
                process = await start()

    keeping = asyncio.ensure_future(keep())
    try:
        yield Broker(address, "Mosquitto")
    finally:
        keeping.cancel()
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _configuration(folder: Path, address: BrokerAddress) -> str:
    return f"""\
# Written anew at every start of edge-sdk fleet serve.
listener {address.port} {address.host}
allow_anonymous true
# Started by root, it would else become a user who cannot write to the folder.
user root
# Without it a round trip takes 44 ms and not 0.1 ms.
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 10000
persistent_client_expiration 7d
persistence true
persistence_location {folder.resolve()}/
persistence_file {_KEPT}
# Only at its end.
autosave_interval 0
log_dest stderr
log_type error
"""


def end_with_parent() -> None:
    """In the child: SIGTERM when the server dies, also by SIGKILL, so that the port is free."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _listening(process: asyncio.subprocess.Process, address: BrokerAddress) -> None:
    """Waits until the process listens.

    Raises:
        FleetError: It ends instead, or takes too long.
    """
    deadline = asyncio.get_running_loop().time() + _START_S
    try:
        while process.returncode is None and asyncio.get_running_loop().time() < deadline:
            if _answers(address.port):
                return
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode is None:
        process.kill()
    raise FleetError(
        f"mosquitto does not listen (exit code {await process.wait()})",
        where=str(address),
        remedy="its own message is above; give another port, or the --broker to use",
    )


@asynccontextmanager
async def _amqtt(address: BrokerAddress) -> AsyncIterator[Broker]:
    from edge_sdk.fleet.embedded_broker import embedded_broker

    async with embedded_broker(address):
        yield Broker(address, "amqtt, embedded", dollars=False)


async def _port(given: int | None, remembered: Path) -> int:
    """The port to listen on.

    Raises:
        FleetError: Another program has it.
    """
    port = given or _read(remembered)
    if port is None:
        return next(port for port in range(_FIRST_PORT, 1 << 16) if _free(port))
    deadline = asyncio.get_running_loop().time() + _RELEASE_S
    while not _free(port):
        if asyncio.get_running_loop().time() > deadline:
            raise FleetError(
                "another program listens there" + ("" if given else ", where agents expect ours"),
                where=f"{_HOST}:{port}",
                remedy="stop it; or give another --broker-port, or the --broker to use",
            )
        await asyncio.sleep(0.05)
    return port


def _read(remembered: Path) -> int | None:
    try:
        port = int(remembered.read_text())
    except (OSError, ValueError):
        return None
    return port if 0 < port < 1 << 16 else None


def _free(port: int) -> bool:
    """Whether a server may listen there; connections that have ended do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
        return True


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0
