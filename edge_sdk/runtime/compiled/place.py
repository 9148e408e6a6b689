"""Where a compiled graph is, and what became of earlier attempts.

::

    prepared/<manifest>/compiled-<key>/…           what the engine left
                        compiled-<key>/index.json  written last: without it, there is nothing
                        compiled-<key>.json        attempts, and why there are no more
                        compiled-<key>.lock        held by the process that compiles

The key covers the graph, the options, and the versions of engine, compiler and driver:
after an upgrade of any, what was refused is tried again. All of it may be deleted.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from edge_sdk.bundle import files
from edge_sdk.bundle.blobs import hex_of
from edge_sdk.bundle.reader import Variant
from edge_sdk.bundle.record import Frozen, Graph
from edge_sdk.errors import EngineError
from edge_sdk.runtime.engine import SessionOptions

T = TypeVar("T")

SCHEMA = "org.edge-sdk.compiled/1"
MOST_ATTEMPTS = 2
"""Times that a process may end while it compiles or opens a result, before that is given up:
fewer than the agent grants a version, which serves on without."""


class Index(Frozen, frozen=True, kw_only=True):
    """What was compiled.

    Attributes:
        files: Name -> SHA-256 of each file.
        seconds: How long it took.
    """

    files: dict[str, str]
    seconds: float
    schema: str = SCHEMA


class History(Frozen, frozen=True, kw_only=True):
    """What became of attempts.

    Attributes:
        attempts: Begun, and not known to have ended.
        refused: Why there are no more; empty if there may be.
    """

    attempts: int = 0
    refused: str = ""
    schema: str = SCHEMA


@dataclass(frozen=True)
class Place:
    """Where one graph's result belongs."""

    folder: Path

    @classmethod
    def of(
        cls, variant: Variant, graph: Graph, options: SessionOptions, identity: Mapping[str, str]
    ) -> Place:
        """The place for a graph, as this engine compiles it on this device."""
        parts = (
            [blob.digest for blob in graph.parts],
            variant.record.engine.name,
            options.providers,
            sorted(options.options.items()),
            sorted(identity.items()),
        )
        key = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:24]
        home = variant.blobs.root / "prepared" / hex_of(variant.digest)
        return cls(home.absolute() / f"compiled-{key}")

    @property
    def lock(self) -> Path:
        """Held by the process that compiles."""
        return self.folder.with_name(f"{self.folder.name}.lock")

    @property
    def _history(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.json")

    def find(self) -> Index | None:
        """What was compiled, if it is complete.

        Raises:
            EngineError: A file of it is damaged.
        """
        index = _read(self.folder / "index.json", Index)
        if index is None:
            return None
        for name, digest in index.files.items():
            if _digest(self.folder / name) != digest:
                raise EngineError("is damaged", where=str(self.folder / name))
        return index

    def clear(self) -> None:
        """Leaves an empty folder."""
        self.remove()
        self.folder.mkdir(parents=True)

    def remove(self) -> None:
        """Removes what was compiled, the index first."""
        with suppress(OSError):
            (self.folder / "index.json").unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def complete(self, seconds: float) -> None:
        """Declares what is in the folder complete."""
        found = {}
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            files.sync(path)
            found[str(path.relative_to(self.folder))] = _digest(path)
        index = Index(files=found, seconds=round(seconds, 1))
        files.sync(self.folder)
        files.replace(self.folder / "index.json", msgspec.json.encode(index), self.folder)
        self.note(History())

    @property
    def history(self) -> History:
        """What became of attempts."""
        return _read(self._history, History) or History()

    def note(self, history: History) -> None:
        """Remembers what became of attempts."""
        with files.writing(self._history):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            files.replace(self._history, msgspec.json.encode(history), self.folder.parent)


def _read(path: Path, kind: type[T]) -> T | None:
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=kind)
    return None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with suppress(OSError), path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
