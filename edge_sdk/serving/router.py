"""Model names and the versions behind them: who answers which request.

A name stands for one version, and while a canary is on trial for two. A swap changes what
the name stands for from one request to the next; requests that have begun finish on the
version they began on, which is closed when its last one ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from edge_sdk.errors import InputError, NotServedError
from edge_sdk.serving.served import Served


@dataclass(frozen=True)
class Route:
    """What a model's name stands for.

    Attributes:
        stable: The version that answers.
        canary: The version on trial, if there is one.
        percent: Share of the requests that it answers, 1 to 99.
    """

    stable: Served
    canary: Served | None = None
    percent: int = 0

    @property
    def versions(self) -> tuple[Served, ...]:
        """The stable version, then the canary."""
        return (self.stable,) if self.canary is None else (self.stable, self.canary)


class Router:
    """Routes by model name. Safe to use from several threads.

    It owns what it serves: versions that it no longer routes to are closed.
    """

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._turns: dict[str, int] = {}
        self._expected: frozenset[str] = frozenset()
        self._lock = threading.RLock()

    @contextmanager
    def use(self, name: str, version: str | None = None) -> Iterator[Served]:
        """Takes a version for one request; it stays open until the block ends.

        Of each hundred requests that ask for no version, exactly ``percent`` go to the
        canary, evenly spread.

        Args:
            name: The model's name.
            version: One of its versions; by default whichever is next.

        Raises:
            NotServedError: There is no such model or version.
            BusyError: The version has too many requests already.
        """
        with self._lock:
            served = self._choose(name, version)
            served.hold()
        try:
            yield served
        finally:
            served.let_go()

    def find(self, name: str, version: str | None = None) -> tuple[Served, ...]:
        """The versions of a model, the stable one first; or the one of that number.

        Raises:
            NotServedError: There is no such model or version.
        """
        with self._lock:
            versions = self._route(name).versions
        found = tuple(served for served in versions if version in (None, served.version))
        if not found:
            known = ", ".join(served.version for served in versions)
            raise NotServedError(f"has no version {version}; there is {known}", where=name)
        return found

    def swap(self, name: str, served: Served) -> Served | None:
        """Lets a version answer from the next request on.

        Args:
            name: The model's name.
            served: The version; a canary may be made the stable version this way.

        Returns:
            The version before, which is closed when its last request ends.
        """
        with self._lock:
            old = self._routes.get(name)
            if old is None:
                self._routes[name] = Route(served)
                return None
            if old.stable is served:
                return None
            self._routes[name] = (
                Route(served) if old.canary is served else replace(old, stable=served)
            )
        served.compare_with(old.stable.outputs)
        old.stable.retire()
        return old.stable

    def canary(self, name: str, served: Served, percent: int) -> None:
        """Lets a version answer a share of the requests; one that did so before is closed.

        Args:
            name: The model's name.
            served: The version on trial; to change its share, the same one again.
            percent: Its share, 1 to 99.

        Raises:
            NotServedError: Nothing is served under that name yet.
            InputError: The share is out of range.
        """
        if not 1 <= percent <= 99:
            raise InputError(f"must be 1 to 99, not {percent}", where="percent of a canary")
        with self._lock:
            route = self._route(name)
            self._routes[name] = Route(route.stable, served, percent)
        served.compare_with(route.stable.outputs)
        if route.canary not in (None, served):
            route.canary.retire()

    def end_canary(self, name: str) -> Served | None:
        """Ends a trial; the stable version answers everything again.

        Returns:
            The canary, which is closed when its last request ends.
        """
        with self._lock:
            route = self._routes.get(name)
            if route is None or route.canary is None:
                return None
            self._routes[name] = Route(route.stable)
        route.canary.retire()
        return route.canary

    def remove(self, name: str) -> tuple[Served, ...]:
        """Serves a model no longer.

        Returns:
            Its versions, which are closed when their last requests end.
        """
        with self._lock:
            route = self._routes.pop(name, None)
            self._turns.pop(name, None)
        versions = route.versions if route else ()
        for served in versions:
            served.retire()
        return versions

    def close(self) -> None:
        """Serves nothing any more, and waits until everything is closed."""
        for name in self.routes:
            for served in self.remove(name):
                served.wait_closed()

    @property
    def routes(self) -> dict[str, Route]:
        """What each name stands for now."""
        with self._lock:
            return dict(self._routes)

    def expect(self, names: Iterable[str]) -> None:
        """Says which models are to be served, so that :attr:`missing` can tell."""
        self._expected = frozenset(names)

    @property
    def missing(self) -> frozenset[str]:
        """Models that are expected and not served yet."""
        return self._expected - self.routes.keys()

    def _choose(self, name: str, version: str | None) -> Served:
        if version is not None:
            return self.find(name, version)[0]
        route = self._route(name)
        if route.canary is None:
            return route.stable
        turn = self._turns[name] = self._turns.get(name, 0) + 1
        # The canary's share of this many requests, in whole ones, has just grown by one.
        mine = turn * route.percent // 100 > (turn - 1) * route.percent // 100
        return route.canary if mine else route.stable

    def _route(self, name: str) -> Route:
        route = self._routes.get(name)
        if route is None:
            known = ", ".join(sorted(self._routes)) or "none yet"
            raise NotServedError(f"no such model; there are: {known}", where=name)
        return route
