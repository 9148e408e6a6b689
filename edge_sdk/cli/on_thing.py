"""Measuring candidates on a device of the fleet: what ``convert --on thing:NAME`` hands in.

The finalists go to the fleet server's own store, the device is asked through its shadow, and
all of it is gone again when the figures are here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from edge_sdk.bundle.measurements import DeviceFigures
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.errors import ConfigError, FleetError, TransferError
from edge_sdk.fleet import views
from edge_sdk.fleet.client import FleetClient
from edge_sdk.fleet.shelf import repository, tag
from edge_sdk.shadow.trials import TrialResult
from edge_sdk.transport.credentials import Credentials
from edge_sdk.transport.push import push
from edge_sdk.transport.registry_http import RegistryClient
from edge_sdk.transport.source import Reference

_POLL_S = 0.5
_SILENCE_S = 600.0  # for packing a large model on a slow board
_PREFIX = "thing:"
Say = Callable[[str], None]


class OnThing:
    """A device that candidates are measured on.

    Args:
        where: ``thing:NAME``.
        server: The fleet's server.
        token: What the server asks for, if it does.
        ca: File of certificates to trust in place of the system's.
        say: Told what happens.

    Raises:
        ConfigError: ``where`` names no thing.
        NotKnownError: The server knows no such device.
        FleetError: The device is not online.
    """

    def __init__(
        self, where: str, server: str, token: str | None, ca: str | None, say: Say
    ) -> None:
        if not where.startswith(_PREFIX) or where == _PREFIX:
            raise ConfigError(
                f"{where!r} names no device", where="--on", remedy="write --on thing:NAME"
            )
        self.name = where
        self._thing = where.removeprefix(_PREFIX)
        self._server = server
        self._token = token
        self._ca = ca
        self._say = say
        self._fleet = FleetClient(server, token, ca)
        device = self._fleet.device(self._thing).device
        if not device.online:
            raise FleetError(
                "is not online, so it cannot measure anything",
                where=where,
                remedy="start its agent, or convert without --on",
            )

    def __call__(self, bundles: Mapping[str, Path], seconds: float) -> dict[str, DeviceFigures]:
        """Has candidates measured.

        Args:
            bundles: Name -> bundle with the one variant that is the candidate. Each bundle
                has another name or version.
            seconds: Time to measure each for.

        Returns:
            Name -> figures, or why there are none.

        Raises:
            FleetError: The device gave up, or fell silent.
            TransferError: The server is not reached, or refuses.
        """
        with self._pushed(bundles) as references:
            request = views.TrialRequest(candidates=references, seconds=seconds)
            begun = self._fleet.begin_trial(self._thing, request)
            try:
                return self._wait(begun.id).figures
            finally:
                self._fleet.end_trial(self._thing)

    def _wait(self, number: str) -> TrialResult:
        """Waits as long as something happens."""
        seen: TrialResult | None = None
        heard = time.monotonic()
        while True:
            view = self._fleet.trial(self._thing)
            result = view.result if view.result and view.result.id == number else None
            if result != seen:
                seen, heard = result, time.monotonic()
                self._say(
                    f"{self.name}: {result.status if result else 'asked'}"
                    f"{f' {result.candidate}' if result and result.candidate else ''}"
                )
            if result and result.status == "done":
                return result
            if result and result.status == "failed":
                raise FleetError(f"could not measure: {result.error}", where=self.name)
            if time.monotonic() - heard > _SILENCE_S:
                raise FleetError(
                    f"nothing was heard of the trial for {_SILENCE_S:.0f} s",
                    where=self.name,
                    remedy="look at its agent's log; it must be of this version of edge-sdk",
                )
            time.sleep(_POLL_S)

    @contextmanager
    def _pushed(self, bundles: Mapping[str, Path]) -> Iterator[dict[str, str]]:
        """The candidates in the server's store, by the names that the server resolves."""
        host = urlsplit(self._server)
        base = f"{host.scheme}://{host.netloc}" if host.scheme == "http" else host.netloc
        credentials = Credentials("edge-sdk", self._token) if self._token else None
        ca = Path(self._ca) if self._ca else None
        references: dict[str, str] = {}
        there: list[Reference] = []
        with closing(RegistryClient(lambda _: credentials, ca=ca)) as client:
            try:
                for name, path in bundles.items():
                    bundle = open_bundle(path)
                    target = f"{base}/{repository(bundle.name)}:{tag(bundle.version)}"
                    self._say(f"{self.name}: sending {name}")
                    there.append(Reference.parse(target))
                    push(client, bundle, there[-1])
                    references[name] = f"{bundle.name}:{bundle.version}"
                yield references
            finally:
                for reference in there:
                    self._remove(client, reference)

    def _remove(self, client: RegistryClient, reference: Reference) -> None:
        try:
            target = f"manifests/{reference.tag}"
            with client.request("DELETE", reference, target, actions="delete", expect=(202, 404)):
                pass
        except TransferError as error:
            self._say(f"{reference} stays on the server: {error.message}")
