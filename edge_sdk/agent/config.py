"""What an agent is told: a TOML file, and options that go before it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edge_sdk.agent.health_gate import Gate
from edge_sdk.errors import ConfigError
from edge_sdk.runtime.memory import parse_size
from edge_sdk.shadow.topics import ROOTS, valid_thing
from edge_sdk.toml_files import read
from edge_sdk.transport.address import BrokerAddress

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables: an unknown key is an error."""


class BrokerConfig(Table, frozen=True, kw_only=True):
    """``[broker]``: where the cloud is reached.

    Attributes:
        url: ``mqtt[s]://[user[:password]@]host[:port]``.
        ca: PEM file of the authorities that the broker's certificate may come from.
        certificate: PEM file of the device's own certificate, for mutual TLS.
        key: PEM file of its private key.
        client_id: Names the connection; the thing's name unless given.
        shadow_root: Topics before the thing's name; ``$aws/things`` for AWS IoT Core.
        keepalive: Seconds of silence before the connection is tried.
        shortest_backoff: Seconds before the first attempt to connect again, at least.
        longest_backoff: Seconds between attempts at most.
    """

    url: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    client_id: str | None = None
    shadow_root: str = ROOTS[0]
    keepalive: Annotated[int, msgspec.Meta(ge=5, le=1200)] = 30
    shortest_backoff: Seconds = 1.0
    longest_backoff: Seconds = 120.0


class HttpConfig(Table, frozen=True, kw_only=True):
    """``[http]``: the local API.

    Attributes:
        listen: ``host:port``; empty for none.
    """

    listen: str = "127.0.0.1:8090"


class DeliveryConfig(Table, frozen=True, kw_only=True):
    """``[delivery]``: how bundles come.

    Attributes:
        via: ``http`` from the registry; ``mqtt`` from the fleet's server where only the
            broker's port is open; ``auto`` takes the second where the first is not reached.
        parallel: Blobs that travel at a time.
        rate_limit: Bytes per second, as ``"500KiB"``; no limit unless given.
        ca: PEM file of the authorities that a registry's certificate may come from.
        registry: ``host[:port]`` that the user is for; to no other one is it sent, nor the
            environment's. Docker's credentials are of a registry each.
        user: Name to log in to it with; else the environment's or Docker's.
        password: Its password.
    """

    via: Literal["auto", "http", "mqtt"] = "auto"
    parallel: Annotated[int, msgspec.Meta(ge=1, le=32)] = 4
    rate_limit: str | None = None
    ca: str | None = None
    registry: str | None = None
    user: str | None = None
    password: str | None = None


class ReportConfig(Table, frozen=True, kw_only=True):
    """``[report]``: how much is said; longer times for metered links.

    Attributes:
        heartbeat: Seconds between signs of life; silence for longer counts as offline.
        shortest: Seconds between two reports at least.
        health: Seconds between two reports of health at least.
        window: Seconds that figures of health are about.
    """

    heartbeat: Seconds = 4.0
    shortest: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.5
    health: Seconds = 5.0
    window: Seconds = 60.0


class LogConfig(Table, frozen=True, kw_only=True):
    """``[log]``: what goes to stderr.

    Attributes:
        format: ``json`` for one object per line, ``text`` for people.
        level: Least severity.
    """

    format: Literal["json", "text"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class AgentConfig(Table, frozen=True, kw_only=True):
    """The whole file. Paths in it are relative to its folder.

    Attributes:
        thing: The device's name.
        store: Directory of bundles and of everything else that the agent keeps.
        broker: Where the cloud is.
        profile: Device profile of the variants to install; ``auto`` chooses for this machine.
        memory_limit: What the process may use, as ``"400MiB"``; no limit unless given.
        labels: For selectors of rollouts, as ``site = "berlin"``.
        http: The local API.
        delivery: How bundles come.
        report: How much is said.
        gate: When a new version is taken back at once.
        log: What goes to stderr.
    """

    thing: str
    store: str
    broker: BrokerConfig
    profile: str = "auto"
    memory_limit: str | None = None
    labels: dict[str, str] = {}
    http: HttpConfig = HttpConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    report: ReportConfig = ReportConfig()
    gate: Gate = Gate()
    log: LogConfig = LogConfig()

    @property
    def address(self) -> BrokerAddress:
        """The broker.

        Raises:
            ConfigError: The URL is wrong, or a file is missing.
        """
        broker = self.broker
        ca, certificate, key = (
            Path(path) if path else None for path in (broker.ca, broker.certificate, broker.key)
        )
        return BrokerAddress.parse(broker.url, ca=ca, certificate=certificate, key=key)

    @property
    def listen(self) -> tuple[str, int] | None:
        """Host and port of the local API; ``None`` for none.

        Raises:
            ConfigError: It is something else.
        """
        if not self.http.listen:
            return None
        host, colon, port = self.http.listen.rpartition(":")
        if not colon or not port.isdecimal() or not int(port) < 65536:
            raise ConfigError(
                f"{self.http.listen!r} is not host:port",
                where="http.listen",
                remedy="write 127.0.0.1:8090, or an empty text for no local API",
            )
        return host.strip("[]") or "127.0.0.1", int(port)

    @property
    def memory(self) -> int | None:
        """``memory_limit`` in bytes."""
        return None if self.memory_limit is None else parse_size(self.memory_limit)

    @property
    def rate_limit(self) -> float | None:
        """``delivery.rate_limit`` in bytes per second."""
        limit = self.delivery.rate_limit
        return None if limit is None else float(parse_size(limit))


def read_config(path: Path | None, options: dict[str, object]) -> AgentConfig:
    """The configuration of a file, with options in place of what stands there.

    Args:
        path: A TOML file; ``None`` where options say everything.
        options: Values by the path of their key, as ``broker.url``; ``None`` says nothing.

    Raises:
        ConfigError: A key is missing, unknown or of the wrong type, or a value is wrong.
        InputError: A size is none.
    """
    config = read(path, AgentConfig, options=options, paths=_PATHS)
    if not valid_thing(config.thing):
        raise ConfigError(
            f"{config.thing!r} is no name for a thing",
            where="thing",
            remedy="use up to 128 letters, digits and : _ - .",
        )
    if config.delivery.user and not config.delivery.registry:
        raise ConfigError(
            "a user is for one registry, and none is given",
            where="delivery.registry",
            remedy="write the registry's host[:port], as it stands in references",
        )
    _ = config.address, config.listen, config.memory, config.rate_limit
    return config


_PATHS = ("store", "broker.ca", "broker.certificate", "broker.key", "delivery.ca")
