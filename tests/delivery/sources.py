"""A blob source over a bundle's directory, with faults that say whether they happened."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.reader import read_layout
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import TransferError
from edge_sdk.transport.source import Piece, Reference

REFERENCE = Reference.parse("registry.example/models/digits:1.0.0")


class LayoutSource:
    """Gives the bundle in a directory, whatever the reference.

    Attributes:
        asked: Offsets at which each blob was asked for.
        given: Bytes of each blob that were given, and of each document.
        fault: Changes the pieces of a blob on their way.
        happened: How often a fault did something.
    """

    def __init__(self, path: Path, piece: int = 256) -> None:
        self.blobs = BlobStore(path)
        self.top = read_layout(path)[0]
        self.asked: dict[str, list[int]] = {}
        self.given: Counter[str] = Counter()
        self.fault: Callable[[Blob, Iterator[bytes]], Iterator[bytes]] | None = None
        self.happened = 0
        self._piece = piece
        self._lock = threading.Lock()

    def resolve(self, reference: Reference) -> Descriptor:
        return Descriptor(
            media_type=self.top.media_type, digest=self.top.digest, size=self.top.size
        )

    def document(self, reference: Reference, descriptor: Descriptor) -> Piece:
        data = self.blobs.path(descriptor.digest).read_bytes()
        self._count(descriptor.digest, len(data))
        return Piece(data, len(data))

    def read(self, reference: Reference, blob: Blob, offset: int = 0) -> Iterator[Piece]:
        with self._lock:
            self.asked.setdefault(blob.digest, []).append(offset)
        pieces = self._pieces(self.blobs.path(blob.digest), offset)
        for piece in self.fault(blob, pieces) if self.fault else pieces:
            self._count(blob.digest, len(piece))
            yield Piece(piece, len(piece))

    def close(self) -> None:
        pass

    def break_off(self, after: int, times: int = 1) -> None:
        """Every blob breaks off so many times, each time after so many pieces."""
        left: Counter[str] = Counter()

        def fault(blob: Blob, pieces: Iterator[bytes]) -> Iterator[bytes]:
            for number, piece in enumerate(pieces):
                if number == after and left[blob.digest] < times:
                    left[blob.digest] += 1
                    self.happened += 1
                    raise TransferError("the connection was cut", where="here")
                yield piece

        self.fault = fault

    def change(self, change: Callable[[bytes], bytes], digest: str | None = None) -> None:
        """Changes the first piece of every blob, or of one."""

        def fault(blob: Blob, pieces: Iterator[bytes]) -> Iterator[bytes]:
            for number, piece in enumerate(pieces):
                if number == 0 and digest in (None, blob.digest):
                    self.happened += 1
                    yield change(piece)
                else:
                    yield piece

        self.fault = fault

    def _pieces(self, path: Path, offset: int) -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(self._piece):
                yield piece

    def _count(self, digest: str, count: int) -> None:
        with self._lock:
            self.given[digest] += count
