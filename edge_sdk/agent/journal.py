"""What an agent must still know after a power cut: one small file, replaced as a whole.

What serves, what served before, what failed and why, and what was last desired. Everything
else (what is downloaded, what is loaded) is looked up or done again, which costs nothing that
is there already. The file carries a checksum; a torn one is noticed and read as none, and
the journal is then made again of what the store holds.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import msgspec

from edge_sdk.bundle import files
from edge_sdk.bundle.store import Installed, Store
from edge_sdk.bundle.versions import is_older
from edge_sdk.errors import BundleError, WorkError
from edge_sdk.shadow.models import Desired, Health

log = logging.getLogger(__name__)
_REMEMBERED = 4  # failures per model: of the desired version and of the one on trial, and old ones


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the structs in the file; fields of newer agents are ignored."""


class Release(Entry, frozen=True, kw_only=True):
    """One version of a model.

    Attributes:
        digest: Of its bundle's image index.
        version: Its version.
        ref: Where it came from; empty where it was installed by hand.
    """

    digest: str
    version: str
    ref: str = ""


class Failure(Entry, frozen=True, kw_only=True):
    """A version that is not tried again until its generation is raised.

    Attributes:
        digest: Of its bundle.
        generation: The desired generation that failed.
        status: Whether it was never installed, or ran and was taken back.
        error: Why.
    """

    digest: str
    generation: int
    status: Literal["failed", "rolled_back"]
    error: str


class ModelEntry(Entry, frozen=True, kw_only=True):
    """What is known of one model.

    Attributes:
        running: The version that serves, and is loaded at start.
        previous: The version before it, kept for a way back.
        on_trial: Whether ``running`` is still being watched.
        managed: Whether the cloud has ever asked for it; others are not removed.
        fetched: Bytes that the last install had to fetch.
        before: How ``previous`` did in its last window.
        outputs: What the version before ``running`` answered, as counts of
            :class:`edge_sdk.serving.drift.Histogram`: what its drift is told by.
        failures: Newest last.
        attempts: Bundle -> loads that were begun and never ended, neither well nor badly.
    """

    running: Release | None = None
    previous: Release | None = None
    on_trial: bool = False
    managed: bool = False
    fetched: int | None = None
    before: Health | None = None
    outputs: tuple[int, ...] = ()
    failures: tuple[Failure, ...] = ()
    attempts: dict[str, int] = {}

    def failure(self, digest: str, generation: int = 0) -> Failure | None:
        """Why this version is not tried; ``None`` where it may be."""
        for failure in reversed(self.failures):
            if failure.digest == digest and failure.generation >= generation:
                return failure
        return None

    def failed(self, failure: Failure) -> ModelEntry:
        """With one more failure, in place of an older one of the same version."""
        others = [old for old in self.failures if old.digest != failure.digest]
        return msgspec.structs.replace(self, failures=(*others, failure)[-_REMEMBERED:])


class Journal(Entry, frozen=True, kw_only=True):
    """The whole of it.

    Attributes:
        models: What is known of each model.
        desired: What was last desired; ``None`` before the cloud was ever heard.
    """

    models: dict[str, ModelEntry] = {}
    desired: Desired | None = None

    def model(self, name: str) -> ModelEntry:
        """What is known of a model; an empty entry where nothing is."""
        return self.models.get(name, _NOTHING)

    def with_model(self, name: str, entry: ModelEntry | None) -> Journal:
        """With another entry for a model, or none."""
        models = {key: value for key, value in self.models.items() if key != name}
        if entry is not None:
            models[name] = entry
        return msgspec.structs.replace(self, models=dict(sorted(models.items())))


_NOTHING = ModelEntry()


class JournalFile:
    """The journal, in memory and on the disk. Safe to use from several threads.

    Args:
        path: The file; its folder is created by the first write.

    Attributes:
        journal: What stands in it; read by :meth:`open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal()
        self._lock = threading.Lock()

    def open(self, store: Store) -> str:
        """Reads the file; without a whole one the journal is that of what is installed.

        Returns:
            What is wrong with the file; empty where nothing is.

        Raises:
            WorkError: The file system refused.
        """
        problem = ""
        try:
            found = self._read()
        except BundleError as error:
            found, problem = None, str(error)
        self.journal = found or rebuilt(_installed(store))
        return problem

    def change(self, change: Callable[[Journal], Journal]) -> None:
        """Changes the journal; it is on the disk when this returns.

        Raises:
            WorkError: The file system refused; nothing has changed.
        """
        with self._lock:
            changed = change(self.journal)
            if changed != self.journal:
                self._write(changed)
                self.journal = changed

    def note(self, change: Callable[[Journal], Journal]) -> None:
        """Changes the journal as well as can be: in memory only where the disk refuses."""
        try:
            self.change(change)
        except WorkError as error:
            log.warning("the journal is not written: %s", error)
            with self._lock:
                self.journal = change(self.journal)

    def note_model(self, name: str, change: Callable[[ModelEntry], ModelEntry]) -> None:
        """Changes what is known of one model, as :meth:`note` does."""
        self.note(lambda journal: journal.with_model(name, change(journal.model(name))))

    def _read(self) -> Journal | None:
        try:
            checksum, _, body = self.path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WorkError(f"cannot be read: {error.strerror}", where=str(self.path)) from error
        where = str(self.path)
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            raise BundleError("is torn: its checksum does not fit", where=where)
        try:
            return msgspec.json.decode(body, type=Journal)
        except msgspec.DecodeError as error:
            raise BundleError(f"is no journal: {error}", where=where) from error

    def _write(self, journal: Journal) -> None:
        body = msgspec.json.encode(journal)
        checksum = hashlib.sha256(body).hexdigest().encode()
        with files.writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(self.path, checksum + b"\n" + body, self.path.parent)


def _installed(store: Store) -> tuple[Installed, ...]:
    try:
        return store.ls()
    except BundleError:  # nothing was ever installed
        return ()


def rebuilt(installed: Iterable[Installed]) -> Journal:
    """The journal of a store whose own is lost or was never written: the newest versions run."""
    models: dict[str, ModelEntry] = {}
    for entry in installed:
        known = models.get(entry.name)
        if known and known.running and is_older(entry.version, known.running.version):
            continue
        release = Release(digest=entry.bundle_digest, version=entry.version)
        models[entry.name] = ModelEntry(running=release)
    return Journal(models=models)
