"""Where an agent's bundles come from: the registry over HTTP, or the fleet over MQTT."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from device_profiles.select import select_here
from edge_sdk.agent.config import AgentConfig, DeliveryConfig
from edge_sdk.agent.plan import Target
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.errors import TransferError
from edge_sdk.shadow.topics import ROOTS
from edge_sdk.transport.fetch import Fetched, ProfileChoice, fetch
from edge_sdk.transport.link import Link
from edge_sdk.transport.source import BlobSource, Reference
from edge_sdk.transport.transfer import Progress, Retry

if TYPE_CHECKING:
    from edge_sdk.transport.credentials import Credentials

log = logging.getLogger(__name__)
_RETRY = Retry(attempts=3, longest=10.0)


class Delivery:
    """Fetches bundles into the store from the first source that is reached.

    Args:
        config: The profile, and limits of the transfer.
        sources: In order of preference.
        retry: When to try again within one fetch; its caller waits longer between two.
    """

    def __init__(
        self, config: AgentConfig, sources: Sequence[BlobSource], retry: Retry = _RETRY
    ) -> None:
        self._config = config
        self._profile: ProfileChoice = select_here if config.profile == "auto" else config.profile
        self._sources = list(sources)
        self._store = Path(config.store)
        self._retry = retry

    def fetch(
        self,
        target: Target,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
        *,
        into: Path | None = None,
    ) -> Fetched:
        """Brings what is missing of a version.

        Args:
            target: The version.
            progress: Told of every piece.
            cancelled: Asked all the time.
            into: A store of its own, for all variants there are; blobs of the device's
                store are linked and not fetched.

        Raises:
            EdgeSdkError: As :func:`edge_sdk.transport.fetch.fetch`; of several sources that
                are not reached, what the preferred one said.
        """
        reference = Reference.parse(target.ref).at(target.digest)
        problem: TransferError | None = None
        for number, source in enumerate(self._sources):
            try:
                fetched = fetch(
                    source,
                    reference,
                    into or self._store,
                    profile=None if into else self._profile,
                    reuse=(BlobStore(self._store),) if into else (),
                    parallel=self._config.delivery.parallel,
                    rate_limit=self._config.rate_limit,
                    retry=self._retry,
                    progress=progress,
                    cancelled=cancelled,
                )
            except TransferError as error:  # noqa: PERF203 - a source more is tried
                if not error.passing or cancelled():
                    raise
                log.info("%s is not reached: %s", type(source).__name__, error.message)
                problem = problem or error
            else:
                self._sources.insert(0, self._sources.pop(number))
                return fetched
        raise problem or TransferError("there is nowhere to fetch from")

    def close(self) -> None:
        """Lets connections go."""
        for source in self._sources:
            source.close()


def credentials_for(settings: DeliveryConfig, registry: str) -> Credentials | None:
    """What to say to a registry that asks who we are.

    Whoever may write a device's wishes names the registry, so what is known without one, in
    the configuration or the environment, is for the configured registry alone.
    """
    from edge_sdk.transport.credentials import Credentials, docker_credentials, find_credentials

    if registry != settings.registry:
        return docker_credentials(registry)
    if settings.user:
        return Credentials(settings.user, settings.password or "")
    return find_credentials(registry)


def open_delivery(config: AgentConfig, link: Link) -> Delivery:
    """Delivery as configured.

    Raises:
        ConfigError: The file of authorities cannot be read.
    """
    sources: list[BlobSource] = []
    settings = config.delivery
    if settings.via in ("auto", "http"):
        from edge_sdk.transport.registry import RegistrySource
        from edge_sdk.transport.registry_http import RegistryClient

        ca = Path(settings.ca) if settings.ca else None
        sources.append(RegistrySource(RegistryClient(partial(credentials_for, settings), ca=ca)))
    if settings.via in ("auto", "mqtt"):
        from edge_sdk.transport.mqtt_blobs import MqttSource

        sources.append(MqttSource(link, ROOTS[0], config.thing))
    return Delivery(config, sources)
