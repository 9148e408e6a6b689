"""An agent as a process: its lock, its signals, its local API, and how it is put together."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from edge_sdk.agent.agent import Agent
from edge_sdk.agent.assembly import FOLDER, Surroundings, assemble
from edge_sdk.agent.config import AgentConfig
from edge_sdk.agent.delivery import open_delivery
from edge_sdk.agent.execute import Observer
from edge_sdk.agent.plan import Step
from edge_sdk.agent.profile import profile_name
from edge_sdk.bundle import files
from edge_sdk.errors import ConfigError, TransferError
from edge_sdk.serving.router import Router
from edge_sdk.shadow.models import ReportedModel
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.link import Link, Message
from edge_sdk.transport.paho_link import PahoLink

log = logging.getLogger("edge_sdk.agent")

GRACE_SECONDS = 5.0  # for a step that is under way when the process is asked to end


@contextmanager
def store_lock(store: Path) -> Iterator[None]:
    """Keeps a second agent from the same store; let go even by SIGKILL.

    Raises:
        ConfigError: Another one holds it.
        WorkError: The file system refused.
    """
    path = store / FOLDER / "lock"
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"another agent uses this store (process {file.read().strip() or 'unknown'})",
                where=str(store),
                remedy="give each agent a store of its own",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def log_steps(step: Step, moment: str) -> None:
    """An observer that logs."""
    target = getattr(step, "target", None) or getattr(step, "release", None)
    fields = {"step": type(step).__name__, "moment": moment}
    if step.model:
        fields["model"] = step.model
    if target:
        fields |= {"version": target.version, "digest": target.digest}
    named = " ".join(filter(None, (step.model, target.version if target else "")))
    text = f"{type(step).__name__} {named}".strip()
    log.info("%s: %s", text, moment, extra={"fields": fields})


class Process:
    """An agent with all that it needs, and the loop that drives it.

    Args:
        config: What it was told.
        observer: Told of every step.
        steps_in_thread: Whether steps run beside the loop, so that it stays alert.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        observer: Observer = log_steps,
        steps_in_thread: bool = True,
    ) -> None:
        self.config = config
        self.router = Router()
        self._woken: SimpleQueue[None] = SimpleQueue()
        self._stopping = False
        self._steps_in_thread = steps_in_thread
        self._step: threading.Thread | None = None
        around = Surroundings(
            open_link=self._open_link,
            open_delivery=lambda link: open_delivery(config, link),
            profile=profile_name(config.profile),
            clock=time.monotonic,
            random=random.Random(),  # noqa: S311 - jitter, and names of requests
            perform=self._perform,
            wake=self.wake,
            observer=observer,
        )
        self.agent = assemble(config, around, self.router)

    def wake(self) -> None:
        """Has the loop look again; from any thread, or a signal handler."""
        self._woken.put(None)

    def stop(self, *_: object) -> None:
        """Has the loop end; from any thread, or as a signal handler."""
        self._stopping = True
        self.wake()

    def run(self, until: Callable[[Agent], bool] | None = None) -> None:
        """Runs until it is stopped, or until a condition holds.

        Args:
            until: Asked after every turn of the loop, at least once a second.
        """
        self.agent.open()
        while not self._stopping:
            pause = self.agent.tick()
            notify_systemd("WATCHDOG=1")
            if until is not None:
                if until(self.agent):
                    return
                pause = 1.0 if pause is None else min(1.0, pause)
            self._sleep(pause)

    def close(self) -> None:
        """Says farewell and frees everything; a step that takes too long is left as by a kill."""
        self.agent.stop()
        if self._step is not None:
            self._step.join(GRACE_SECONDS)
        self.agent.close()
        self.router.close()

    def _open_link(self, will: Callable[[], Message]) -> Link:
        broker = self.config.broker
        return PahoLink(
            self.config.address,
            broker.client_id or self.config.thing,
            will=will,
            keepalive=broker.keepalive,
            backoff=Backoff(broker.shortest_backoff, broker.longest_backoff),
        )

    def _perform(self, work: Callable[[], None]) -> None:
        if not self._steps_in_thread:
            work()
            return
        self._step = threading.Thread(target=work, name="step", daemon=True)
        self._step.start()

    def _sleep(self, seconds: float | None) -> None:
        watchdog = watchdog_seconds()
        if watchdog is not None:
            seconds = min(watchdog / 2, watchdog if seconds is None else seconds)
        with suppress(Empty):
            self._woken.get(timeout=seconds)
            while True:
                self._woken.get_nowait()


def run(config: AgentConfig, observer: Observer = log_steps) -> None:
    """Runs an agent until SIGTERM or SIGINT.

    Args:
        config: What it is told.
        observer: Told of every step.

    Raises:
        ConfigError: The configuration does not work here.
    """
    with ExitStack() as stack:
        stack.enter_context(store_lock(Path(config.store)))
        process = Process(config, observer=observer)
        stack.callback(process.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, process.stop)
        if config.listen is not None:
            from edge_sdk.serving.server import serve

            api = serve(process.router, *config.listen)
            stack.callback(api.stop)
            log.info("local API on %s:%d", api.host, api.port)
        log.info("agent of %s, store %s, %s", config.thing, config.store, config.address)
        notify_systemd("READY=1")
        process.run()
        notify_systemd("STOPPING=1")
        log.info("ends")


def run_once(config: AgentConfig, patience: float) -> dict[str, ReportedModel]:
    """Does what is to be done and ends.

    Args:
        config: What the agent is told.
        patience: Seconds within which the cloud must be heard.

    Returns:
        What was reported.

    Raises:
        ConfigError: The configuration does not work here.
        TransferError: The broker or the shadow service is not reached.
    """
    with ExitStack() as stack:
        stack.enter_context(store_lock(Path(config.store)))
        process = Process(config, steps_in_thread=False)
        stack.callback(process.close)
        deadline = time.monotonic() + patience
        heard = False

        def done(agent: Agent) -> bool:
            nonlocal heard
            heard = heard or agent.heard
            return agent.settled if heard else time.monotonic() > deadline

        process.run(done)
        if not heard:
            raise TransferError(
                f"nothing was heard of the shadow of {config.thing} within {patience:g} s",
                where=str(config.address),
                remedy="check the broker's address, and that the fleet's server runs",
            )
        return process.agent.models


def notify_systemd(text: str) -> None:
    """Tells systemd how the service does, where it asked to be told (``sd_notify(3)``)."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
            sender.sendto(text.encode(), path.replace("@", "\0", 1))


def watchdog_seconds() -> float | None:
    """Within how many seconds systemd wants a sign of life; ``None`` where it wants none."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() else None
