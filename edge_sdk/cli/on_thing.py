"""Measuring candidates on a device of the fleet: what ``convert --on thing:NAME`` hands in.

The finalists go to the fleet server's own store, the device is asked through its shadow, and
all of it is gone again when the figures are here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edge_sdk.bundle.measurements import DeviceFigures
from edge_sdk.bundle.reader import open_bundle
from edge_sdk.errors import ConfigError, EdgeSdkError, FleetError, TransferError
from edge_sdk.fleet import views
from edge_sdk.fleet.client import FleetClient
from edge_sdk.fleet.shelf import repository, tag
from edge_sdk.shadow.topics import ROOTS
from edge_sdk.shadow.trials import TrialResult
from edge_sdk.transport.credentials import Credentials
from edge_sdk.transport.push import push
from edge_sdk.transport.registry_http import RegistryClient
from edge_sdk.transport.source import Reference

_POLL_S = 0.5
# How long to wait while nothing changes; a board may take minutes to pack a large model.
_ABSENCE_S, _SILENCE_S = 60.0, 900.0
_PREFIX = "thing:"
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Sight:
    """What is seen of a trial."""

    reached: bool = True
    online: bool = True
    result: TrialResult | None = None

    @property
    def patience(self) -> float:
        """Seconds for which it is waited for a change."""
        return _SILENCE_S if self.online and self.result else _ABSENCE_S

    def __str__(self) -> str:
        if not self.reached:
            return "the fleet's server is not reached"
        if not self.online:
            return "is not online"
        if self.result is None:
            return "has not answered"
        return f"{self.result.status} {self.result.candidate or ''}".rstrip()


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
        FleetError: The device is not online, or its agent follows no trials.
    """

    def __init__(
        self, where: str, server: str, token: str | None, ca: str | None, say: Say
    ) -> None:
        if not where.startswith(_PREFIX) or where == _PREFIX:
            raise ConfigError(
                f"{where!r} names no device", where="--on", remedy="write --on thing:NAME"
            )
        self.name = self._where = where
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
        if not device.agent.trials:
            raise FleetError(
                "measures nothing for others: on AWS's topics its agent follows no trials",
                where=where,
                remedy=f'set shadow_root = "{ROOTS[0]}" in its configuration, '
                "or convert without --on",
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
                result = self._wait(begun.id)
            finally:
                self._end(begun.id)
        self.name = f"{self._where} ({result.machine})"
        return result.figures

    def _wait(self, number: str) -> TrialResult:
        """Waits as long as something happens, or is likely to."""
        seen: _Sight | None = None
        since = time.monotonic()
        while True:
            sight = self._look(number)
            if sight != seen:
                seen, since = sight, time.monotonic()
                self._say(f"{self._where}: {sight}")
            result = sight.result
            if result and result.status == "done":
                return result
            if result and result.status == "failed":
                raise FleetError(f"could not measure: {result.error}", where=self._where)
            if time.monotonic() - since > sight.patience:
                raise FleetError(
                    f"{sight} for {sight.patience:.0f} s, so it is not waited for any longer",
                    where=self._where,
                    remedy="look at its agent's log; it must be of this version of edge-sdk",
                )
            time.sleep(_POLL_S)

    def _look(self, number: str) -> _Sight:
        """How far a trial is.

        Raises:
            FleetError: The device is not asked for it any more.
        """
        try:
            view = self._fleet.trial(self._thing)
        except TransferError:  # it may be starting again
            return _Sight(reached=False)
        if view.id != number:
            raise FleetError(
                "was asked to measure something else meanwhile" if view.id else "is asked no more",
                where=self._where,
                remedy="one conversion at a time measures on a device: try again later",
            )
        known = view.result if view.result and view.result.id == number else None
        return _Sight(online=view.online, result=known)

    def _end(self, number: str) -> None:
        try:
            self._fleet.end_trial(self._thing, number)
        except EdgeSdkError as error:
            self._say(f"{self._where}: it is still asked to measure: {error.message}")

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
                    self._say(f"{self._where}: sending {name}")
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
