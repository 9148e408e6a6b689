"""Loads installed versions; what kills the process in doing so is not loaded for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from edge_sdk.agent.config import AgentConfig
from edge_sdk.agent.journal import JournalFile, ModelEntry
from edge_sdk.bundle.reader import Bundle, read_bundle
from edge_sdk.bundle.store import Installed, Store
from edge_sdk.errors import BundleError, WorkError
from edge_sdk.serving.served import Served

if TYPE_CHECKING:
    from edge_sdk.runtime.model import Model

MOST_ATTEMPTS = 3
"""Loads that killed the process before a version is given up, as boot loaders count boots."""


class Loader:
    """Opens bundles of a store and their models.

    Args:
        config: Limits and the profile.
        store: Where bundles are.
        journal: Where loads that were begun are counted.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, config: AgentConfig, store: Store, journal: JournalFile, clock: Callable[[], float]
    ) -> None:
        self._config = config
        self._store = store
        self._journal = journal
        self._clock = clock

    @property
    def installed(self) -> tuple[Installed, ...]:
        """The store's list; empty where it cannot be read, so that all is fetched again."""
        try:
            return self._store.ls()
        except BundleError:
            return ()

    def bundle(self, digest: str) -> Bundle:
        """An installed bundle, its documents verified.

        Raises:
            BundleError: It is not installed, or damaged.
        """
        return read_bundle(self._store.root, self._entry(digest).descriptor)

    def open(self, model: str, digest: str, *, verify: bool, at_any_rate: bool = False) -> Served:
        """Loads a version, which must pass its self-test.

        Args:
            model: The name that it is to serve under.
            digest: Of the bundle.
            verify: Whether to hash what is read.
            at_any_rate: Whether it is tried however often it killed the process.

        Raises:
            WorkError: It killed the process too often.
            EdgeSdkError: It cannot be loaded, or fails its self-test.
        """
        count = self._journal.journal.model(model).attempts.get(digest, 0)
        if count >= MOST_ATTEMPTS and not at_any_rate:
            raise WorkError(
                f"loading it ended the process {count} times",
                where=f"{model} {self._entry(digest).version}",
                remedy="give the device more memory, or deploy a smaller variant",
            )
        self._count(model, digest, count + 1)
        try:
            loaded = load_tested(self._config, self._store, self._entry(digest), verify=verify)
        except Exception:
            self._count(model, digest, 0)
            raise
        self._count(model, digest, 0)
        return Served(loaded, digest, window_s=self._config.report.window, clock=self._clock)

    def _count(self, model: str, digest: str, attempts: int) -> None:
        def counted(entry: ModelEntry) -> ModelEntry:
            others = {key: n for key, n in entry.attempts.items() if key != digest}
            if attempts:
                others[digest] = attempts
            return msgspec.structs.replace(entry, attempts=others)

        self._journal.note_model(model, counted)

    def _entry(self, digest: str) -> Installed:
        for entry in self.installed:
            if entry.bundle_digest == digest:
                return entry
        raise BundleError("is not installed", where=digest)


def load_tested(config: AgentConfig, store: Store, entry: Installed, *, verify: bool) -> Model:
    """Loads an installed bundle and runs its self-test.

    Raises:
        EdgeSdkError: As :func:`edge_sdk.load`, or it computes something else than it should.
    """
    from edge_sdk.runtime.model import load

    variants = read_bundle(store.root, entry.descriptor).variants
    # What was chosen when it was fetched; of a whole bundle put there by hand, what suits.
    profile = variants[0].profile if len(variants) == 1 else config.profile
    path = f"{store.root}#{entry.name}:{entry.version}"
    model = load(path, profile, config.memory, verify=verify)
    try:
        model.self_test()
    except BaseException:
        model.close()
        raise
    return model
