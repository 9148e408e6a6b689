"""Puts an agent together: the same parts for a process, a simulation and a test."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from device_profiles.machine import detect_machine
from edge_sdk.agent.agent import Agent, memory_in_use
from edge_sdk.agent.config import AgentConfig
from edge_sdk.agent.delivery import Delivery
from edge_sdk.agent.execute import Executor, Observer
from edge_sdk.agent.journal import JournalFile
from edge_sdk.agent.outbox import Outbox
from edge_sdk.agent.postman import Postman
from edge_sdk.agent.presence import Presence
from edge_sdk.agent.shadow_client import ShadowClient
from edge_sdk.agent.trials import Trials
from edge_sdk.bundle import oci
from edge_sdk.bundle.store import Store
from edge_sdk.errors import BundleError
from edge_sdk.serving.router import Router
from edge_sdk.shadow import models, trials
from edge_sdk.shadow.topics import ROOTS, Address
from edge_sdk.transport.backoff import Backoff
from edge_sdk.transport.link import Link, Message

log = logging.getLogger(__name__)

FOLDER = "agent"
"""Folder in the store of what the agent itself keeps."""


@dataclass(frozen=True)
class Surroundings:
    """What an agent gets from the world around it.

    Attributes:
        open_link: Makes the connection, given what makes its wills.
        open_delivery: Makes the way that bundles come, given the connection.
        profile: Name of the device profile, for reports.
        clock: Seconds, monotonic.
        random: Source of jitter and of names of requests.
        perform: Runs a step, at once or in a thread.
        wake: Called, on any thread, when the loop has something to look at.
        observer: Told of every step.
        time: Seconds since 1970, for people.
    """

    open_link: Callable[[Callable[[], Message]], Link]
    open_delivery: Callable[[Link], Delivery]
    profile: str
    clock: Callable[[], float]
    random: random.Random
    perform: Callable[[Callable[[], None]], None]
    wake: Callable[[], None]
    observer: Observer
    time: Callable[[], float] = time.time


def assemble(config: AgentConfig, around: Surroundings, router: Router) -> Agent:
    """An agent that is not connected yet.

    Args:
        config: What it is told.
        around: What it gets from the world.
        router: Where it lets models serve; the caller closes it.

    Raises:
        ConfigError: The configuration does not work here.
    """
    store = Store(config.store)
    set_damage_aside(store)
    journal = JournalFile(store.root / FOLDER / "journal.json")
    if problem := journal.open(store):
        log.warning("the journal is made again of what is installed: %s", problem)
    outbox = Outbox(store.root / FOLDER / "events.log", clock=around.time)
    outbox.open(journal.journal)
    clock, source = around.clock, around.random
    presence = Presence(config.thing, config.report.heartbeat, clock=clock, source=source)
    link = around.open_link(presence.will)
    delivery = around.open_delivery(link)
    executor = Executor(
        config,
        journal,
        outbox,
        store,
        router,
        delivery,
        clock=clock,
        backoff=lambda: Backoff(source=source),
        observer=around.observer,
    )

    def follow(name: str) -> ShadowClient:
        return ShadowClient(
            link,
            Address(config.broker.shadow_root, config.thing, name),
            clock=clock,
            source=source,
            wake=around.wake,
            shortest=config.report.shortest,
        )

    shadow = follow(models.SHADOW)
    # Under the other root the cloud may be AWS's, which asks for no trials and cuts off whoever
    # subscribes to what its policy does not name.
    asked = follow(trials.SHADOW) if config.broker.shadow_root == ROOTS[0] else None
    postman = Postman(link, config.thing, outbox, clock=clock, source=source, wake=around.wake)
    tried = Trials(
        store.root / FOLDER / "trials",
        delivery,
        clock=clock,
        memory=lambda: _memory_left(config),
        about=lambda: detect_machine(engines=False).title,
    )
    return Agent(config, link, executor, router, shadow, presence, postman, tried, asked, around)


def _memory_left(config: AgentConfig) -> int:
    """Bytes that a process beside this one may use."""
    total = config.memory or detect_machine(engines=False).memory_mib << 20
    return total - memory_in_use()


def set_damage_aside(store: Store) -> None:
    """Puts away a list of installed bundles that cannot be read; blobs stay and are used again."""
    if not store.root.exists():
        return
    try:
        store.ls()
    except BundleError as error:
        found = [store.root / name for name in (oci.INDEX_FILE, oci.LAYOUT_FILE)]
        if any(path.exists() for path in found):
            log.warning("what is installed is found out again: %s", error)
        for path in found:
            if path.exists():
                path.replace(path.with_name(f"{path.name}.damaged"))
