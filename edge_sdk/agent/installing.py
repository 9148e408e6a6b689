"""What becomes of bundles on the disk: fetched, verified, admitted, listed, collected."""

from __future__ import annotations

from edge_sdk.agent import admission, plan
from edge_sdk.agent.delivery import Delivery
from edge_sdk.agent.journal import Journal
from edge_sdk.agent.loading import Loader
from edge_sdk.agent.plan import Target
from edge_sdk.bundle import oci
from edge_sdk.bundle.reader import Bundle, read_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.transport.fetch import Fetched
from edge_sdk.transport.transfer import Progress


class Installer:
    """Brings bundles into a store and takes them out again.

    Args:
        store: The store.
        loader: Knows what is installed.
        delivery: Where bundles come from.

    Attributes:
        progress: Of the download under way.
        admitted: Targets that may be loaded.
        damaged: Installed bundles that are not whole.
        litter: Whether there may be something in the store that nothing needs.
    """

    def __init__(self, store: Store, loader: Loader, delivery: Delivery) -> None:
        self._store = store
        self._loader = loader
        self._delivery = delivery
        self._fetched: dict[str, Fetched] = {}
        self._cancelled = False
        self.progress: Progress | None = None
        self.admitted: set[Target] = set()
        self.damaged: set[str] = set()
        self.litter = bool(loader.installed)  # left by a process before this one

    @property
    def installed(self) -> frozenset[str]:
        """Bundles on the store's list, whole as far as is known."""
        return frozenset(entry.bundle_digest for entry in self._loader.installed) - self.damaged

    @property
    def fetched(self) -> frozenset[str]:
        """Bundles whose blobs have come since the last collection."""
        return frozenset(self._fetched)

    def fetched_bytes(self, digest: str) -> int:
        """Bytes that travelled for a bundle."""
        fetched = self._fetched.get(digest)
        return fetched.fetched_bytes if fetched else 0

    def fetch(self, model: str, target: Target, journal: Journal) -> None:
        """Brings the blobs that are missing, if the target may be installed at all.

        Raises:
            AdmissionError: It may not.
            EdgeSdkError: As :meth:`edge_sdk.agent.delivery.Delivery.fetch`.
        """
        self._admit(model, target, None, journal)
        self.progress, self._cancelled = None, False
        self.litter = True
        fetched = self._delivery.fetch(target, self._progressed, lambda: self._cancelled)
        self._fetched[target.digest] = fetched

    @property
    def cancelled(self) -> bool:
        """Whether the last download was ended by :meth:`cancel`."""
        return self._cancelled

    def cancel(self) -> None:
        """Ends the download under way at its next piece; it can be resumed."""
        self._cancelled = True

    def verify(self, model: str, target: Target, journal: Journal) -> None:
        """Checks what is here, and lists it in the store if it may be installed.

        Raises:
            BundleError: It is damaged; what was installed before will be fetched again.
            AdmissionError: It may not be installed.
            WorkError: The file system refused.
        """
        fetched = self._fetched.get(target.digest)
        if fetched is None:
            bundle = self._loader.bundle(target.digest)
            bundle.verify()
            self._admit(model, target, bundle, journal)
        else:  # every byte was hashed as it came
            bundle = read_bundle(self._store.root, fetched.descriptor)
            self._admit(model, target, bundle, journal)
            self._store.enter(fetched.descriptor, fetched.bundle.digest)
            self.damaged.discard(target.digest)
        self.admitted.add(target)

    def give_up(self, target: Target) -> None:
        """Forgets that a target came, so that another try begins anew."""
        self._fetched.pop(target.digest, None)
        self.admitted.discard(target)

    def collect(self, digests: frozenset[str]) -> None:
        """Takes bundles off the list, and frees what nothing on it needs.

        Raises:
            BundleError: A bundle is damaged; nothing is freed.
            WorkError: The file system refused.
        """
        for entry in self._loader.installed:
            if entry.bundle_digest in digests:
                self._store.remove(entry.name, entry.version)
        if (self._store.root / oci.LAYOUT_FILE).exists():  # else nothing ever came
            self._store.gc()
        self._fetched.clear()
        self.admitted.clear()
        self.litter = False

    def close(self) -> None:
        """Lets connections go."""
        self._delivery.close()

    def _admit(self, model: str, target: Target, bundle: Bundle | None, journal: Journal) -> None:
        needed = plan.needed(journal)
        candidate = admission.Candidate(
            model,
            target.digest,
            bundle.version if bundle else target.version,
            bundle.name if bundle else None,
        )
        kept = {
            (entry.name, entry.version): entry.bundle_digest
            for entry in self._loader.installed
            if entry.bundle_digest in needed
        }
        running = journal.model(model).running
        admission.admit(
            candidate,
            admission.Rules(target.digest, target.version, target.allow_older, running, kept),
        )

    def _progressed(self, progress: Progress) -> None:
        self.progress = progress
