"""Loads installed versions; what kills the process in doing so is not loaded for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from edge_sdk.agent.config import AgentConfig
from edge_sdk.agent.journal import JournalFile, ModelEntry
from edge_sdk.bundle.reader import Bundle, read_bundle
from edge_sdk.bundle.store import Installed, Store
from edge_sdk.errors import BundleError, WorkError
from edge_sdk.runtime import process
from edge_sdk.serving.served import Served

if TYPE_CHECKING:
    from edge_sdk.runtime.model import Model

MOST_ATTEMPTS = 3
"""Times that the process may die with a new version before that is given up: boot loaders
count boots in this way."""


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
        self._held: dict[str, int] = {}

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

    def open(
        self,
        model: str,
        digest: str,
        *,
        verify: bool,
        beside: Iterable[str] = (),
        on_trial: bool = False,
        at_any_rate: bool = False,
    ) -> Served:
        """Loads a version, which must pass its self-test.

        Args:
            model: The name that it is to serve under.
            digest: Of the bundle.
            verify: Whether to hash what is read.
            beside: Bundles that stay loaded; what they hold is not this one's to use. The
                version that it replaces is none of them: it serves on for as long as a load takes.
            on_trial: Whether the load counts as ended only by :meth:`passed`.
            at_any_rate: Whether it is tried however often it killed the process.

        Raises:
            WorkError: It killed the process too often.
            EdgeSdkError: It cannot be loaded, or fails its self-test.
        """
        count = self._journal.journal.model(model).attempts.get(digest, 0)
        if count >= MOST_ATTEMPTS and not at_any_rate:
            raise WorkError(
                f"the process ended {count} times with this version in it",
                where=f"{model} {self._entry(digest).version}",
                remedy="give the device more memory, or deploy a smaller variant",
            )
        limit = self._config.memory
        if limit is not None:
            limit = max(1, limit - sum(self._held.get(other, 0) for other in beside))
        before = process.anonymous()
        self._count(model, digest, count + 1)
        try:
            loaded = load_tested(
                self._store, self._entry(digest), self._config.profile, limit, verify
            )
        except Exception:
            self._count(model, digest, 0)
            raise
        if not on_trial:
            self._count(model, digest, 0)
        self._held[digest] = max(0, process.anonymous() - before)
        return Served(loaded, digest, window_s=self._config.report.window, clock=self._clock)

    def passed(self, model: str, digest: str) -> None:
        """Says that a version does not kill the process, or that it ends for another reason."""
        self._count(model, digest, 0)

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


def load_tested(
    store: Store, entry: Installed, profile: str, limit: int | None, verify: bool
) -> Model:
    """Loads an installed bundle and runs its self-test.

    Args:
        store: Where it is.
        entry: The bundle.
        profile: Of the variant, where there are several.
        limit: Bytes that the model may use.
        verify: Whether to hash what is read.

    Raises:
        EdgeSdkError: As :func:`edge_sdk.load`, or it computes something else than it should.
    """
    from edge_sdk.runtime.opening import load

    variants = read_bundle(store.root, entry.descriptor).variants
    if len(variants) == 1:  # what was chosen when it was fetched
        profile = variants[0].profile
    model = load(f"{store.root}#{entry.name}:{entry.version}", profile, limit, verify=verify)
    try:
        model.self_test()
    except BaseException:
        model.close()
        raise
    return model
