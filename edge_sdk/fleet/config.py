"""What the fleet's server is told: a TOML file, and options that go before it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from edge_sdk.errors import ConfigError
from edge_sdk.shadow.requests import Limits
from edge_sdk.shadow.topics import ROOTS
from edge_sdk.toml_files import read
from edge_sdk.transport.address import BrokerAddress

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Root = Annotated[str, msgspec.Meta(pattern=r"^[^+#/]+(/[^+#/]+)*$")]
_LIMITS = Limits()


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the tables: an unknown key is an error."""


class BrokerConfig(Table, frozen=True, kw_only=True):
    """``[broker]``: yours, or one that the server starts for this machine alone.

    Attributes:
        url: ``mqtt[s]://[user[:password]@]host[:port]``; without it the server starts a broker.
        ca: PEM file of the authorities that the broker's certificate may come from.
        certificate: PEM file of the server's own certificate, for mutual TLS.
        key: PEM file of its private key.
        client_id: Names the server's session at the broker; each server needs its own.
        port: Of the broker that the server starts; as last time unless given, at first 1883 or
            the next free one.
    """

    url: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    client_id: Annotated[str, msgspec.Meta(min_length=1)] = "edge-sdk-fleet"
    port: Port | None = None


class HttpConfig(Table, frozen=True, kw_only=True):
    """``[http]``: the API of ``edge-sdk fleet``, and bundles for devices.

    Attributes:
        listen: ``host:port``.
        token: What ``edge-sdk fleet`` must show; without it everyone who reaches the port may
            change the fleet.
        public: ``[http://]host[:port]`` by which devices reach this server's own bundles; unless
            given, that by which ``edge-sdk fleet deploy`` has reached it.
    """

    listen: str = "127.0.0.1:8080"
    token: str | None = None
    public: str | None = None


class ShadowConfig(Table, frozen=True, kw_only=True):
    """``[shadow]``: limits of device shadows.

    Attributes:
        roots: Topic roots that are served; not ``$aws/things`` by a broker that drops it.
        state_bytes: Size of a shadow's ``desired`` and ``reported`` together, as JSON.
        levels: Depth of each of them.
        in_flight: Requests of one thing that may wait for replies at once.
    """

    roots: tuple[Root, ...] = ROOTS
    state_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 17)] = _LIMITS.state_bytes
    levels: Annotated[int, msgspec.Meta(ge=1, le=64)] = _LIMITS.levels
    in_flight: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10


class WebhookConfig(Table, frozen=True, kw_only=True):
    """``[[webhooks]]``: another program that is told what happens.

    Attributes:
        url: Where messages are posted to.
        secret: ``whsec_`` and base64: what they are signed with.
        events: Which; ``*`` stands for any text.
    """

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://.")]
    secret: str
    events: tuple[str, ...] = ("rollout.aborted", "rollout.completed", "device.*", "model.drift")


class AuditConfig(Table, frozen=True, kw_only=True):
    """``[audit]``: what is remembered of what happened.

    Attributes:
        days: For how long.
    """

    days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] = 730


class FleetConfig(Table, frozen=True, kw_only=True):
    """The whole file. Paths in it are relative to its folder.

    Attributes:
        data: Folder of everything that the server keeps.
        database: ``sqlite:///FILE`` or ``postgresql://USER[:PASSWORD]@HOST/NAME``; a file in
            ``data`` unless given.
        store: Folder of the bundles that the server itself hands out; in ``data`` unless given.
        broker: The broker.
        http: The API.
        shadow: Device shadows.
        audit: What happened.
        webhooks: Who is told what happens.
    """

    data: str = "fleet-data"
    database: str | None = None
    store: str | None = None
    broker: BrokerConfig = BrokerConfig()
    http: HttpConfig = HttpConfig()
    shadow: ShadowConfig = ShadowConfig()
    audit: AuditConfig = AuditConfig()
    webhooks: tuple[WebhookConfig, ...] = ()

    @property
    def folder(self) -> Path:
        """``data``."""
        return Path(self.data)

    @property
    def database_url(self) -> str:
        """``database``, with its default."""
        return self.database or f"sqlite:///{self.folder / 'fleet.db'}"

    @property
    def store_folder(self) -> Path:
        """``store``, with its default."""
        return Path(self.store) if self.store else self.folder / "store"

    @property
    def broker_address(self) -> BrokerAddress | None:
        """The broker, or ``None`` where the server starts one.

        Raises:
            ConfigError: The URL is wrong, or a file is missing.
        """
        broker = self.broker
        if broker.url is None:
            return None
        ca, certificate, key = (
            Path(path) if path else None for path in (broker.ca, broker.certificate, broker.key)
        )
        return BrokerAddress.parse(broker.url, ca=ca, certificate=certificate, key=key)

    @property
    def listen(self) -> tuple[str, int]:
        """Host and port of the API; port 0 is any free one.

        Raises:
            ConfigError: It is something else.
        """
        host, _, port = self.http.listen.rpartition(":")
        if not host or not port.isdecimal() or not int(port) < 65536:
            raise ConfigError(
                f"{self.http.listen!r} is not host:port",
                where="http.listen",
                remedy="write 127.0.0.1:8080, or 0.0.0.0:8080 for other machines",
            )
        return host.strip("[]"), int(port)

    @property
    def limits(self) -> Limits:
        """Of shadows."""
        return Limits(state_bytes=self.shadow.state_bytes, levels=self.shadow.levels)


def read_config(path: Path | None, options: dict[str, object]) -> FleetConfig:
    """The configuration of a file, with options in place of what stands there.

    Args:
        path: A TOML file; ``None`` for defaults.
        options: Values by the path of their key, as ``broker.url``; ``None`` says nothing.

    Raises:
        ConfigError: A key is unknown or of the wrong type, or a value is wrong.
    """
    config = read(path, FleetConfig, options=options, paths=_PATHS)
    _ = config.broker_address, config.listen
    return config


_PATHS = ("data", "store", "broker.ca", "broker.certificate", "broker.key")
