"""What preparing leaves behind, and how it is found, checked and opened again.

::

    prepared/<manifest>/<layout id>/<graph>.json    written last: without it, nothing was prepared
                                    <graph>.stamps  what is known of files that were hashed
                                    <hex digest>    the rewritten graph, and one file per weight

A weight's file is its packed bytes, then its scales and zero points, so that nothing
of the raw weight's blob is read again. Files are named by their digest; variants that
share a weight share its file by hard link, hence its pages in memory.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec

from edge_sdk.bundle import files
from edge_sdk.bundle.blobs import CHUNK, BlobStore, hex_of
from edge_sdk.bundle.reader import Variant
from edge_sdk.bundle.record import Blob, Frozen, Graph
from edge_sdk.errors import BundleError, DigestError
from edge_sdk.runtime.prepared.graph import Packable, Tensor
from edge_sdk.runtime.prepared.stamps import Stamp, Stamps

SCHEMA = "org.edge-sdk.prepared/1"
PAGE = 4096  # packed bytes are mapped at a file's start, the rest on pages of its own


class Preparation(Frozen, frozen=True, kw_only=True):
    """What preparing a graph took; loading it later takes none of this.

    Attributes:
        seconds: Duration.
        memory: Largest private memory beyond what the process had before, in bytes.
        disk: Size of all its files, in bytes.
        new: The part of ``disk`` that no other variant had prepared already, in bytes.
        weights: Number of weights.
        packed: Number of weights that had to be packed.
    """

    seconds: float
    memory: int
    disk: int
    new: int
    weights: int
    packed: int


class Weight(Frozen, frozen=True, kw_only=True):
    """One prepared weight.

    Attributes:
        source: :attr:`Packable.source` of the node that it was packed for.
        blob: Its file.
        key: The engine's key of packing the file's own first bytes; empty while that is unknown.
        packed: Length of the packed bytes.
    """

    source: str
    blob: Blob
    key: str
    packed: int

    def tensors(self, node: Packable, folder: str) -> dict[int, Tensor]:
        """The node's tensors as they are in the file.

        Args:
            node: A node with this source.
            folder: Where the file is, relative to the engine's folder.
        """
        location = f"{folder}/{hex_of(self.blob.digest)}"
        found, offset = {}, 0
        for position, tensor in sorted(node.tensors.items()):
            found[position] = replace(
                tensor,
                name=f"{node.output}/prepared/{position}",
                location=location,
                offset=offset,
                packed=f"{self.key}|0;{self.packed};0" if self.key and position == 1 else "",
            )
            offset = page_end(offset + (self.packed if position == 1 else tensor.length))
        return found


class Index(Frozen, frozen=True, kw_only=True):
    """Everything about one prepared graph.

    Attributes:
        layout: Layout id of the engine that packed it.
        graph: Digest of the graph it was made of.
        model: The rewritten graph's file.
        weights: Its weights' files.
        unread: Digests of the variant's blobs that the rewritten graph does not read.
        preparation: What it took.
        witness: Some of what the rewritten graph computes; none before it was checked.
        refused: Why the result is not to be used; empty where it is.
    """

    layout: str
    graph: str
    model: Blob
    weights: tuple[Weight, ...]
    unread: tuple[str, ...]
    preparation: Preparation
    witness: tuple[float, ...] = ()
    refused: str = ""
    schema: str = SCHEMA

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Its files; none where the result was refused."""
        return () if self.refused else (self.model, *(weight.blob for weight in self.weights))


@dataclass(frozen=True)
class Place:
    """Where a graph's prepared files are, or would be.

    Attributes:
        blobs: The variant's blobs.
        graph: The graph.
        layout: Layout id of the engine.
        folder: The folder of the files.
    """

    blobs: BlobStore
    graph: Graph
    layout: str
    folder: Path

    @classmethod
    def of(cls, variant: Variant, graph: Graph, layout: str) -> Place:
        """The place of one of a variant's graphs."""
        folder = variant.blobs.root / "prepared" / hex_of(variant.digest) / layout
        return cls(variant.blobs, graph, layout, folder)

    @property
    def relative(self) -> str:
        """The folder, relative to the store or bundle."""
        return self.folder.relative_to(self.blobs.root).as_posix()

    @property
    def index_path(self) -> Path:
        """The file whose presence says that all others are complete."""
        return self.folder / f"{hex_of(self.graph.parts[0].digest)}.json"

    @property
    def stamps_path(self) -> Path:
        """Where the stamps of what its sessions read are kept."""
        return self.index_path.with_suffix(".stamps")

    def find(self) -> Index | None:
        """What was prepared here for this graph and layout, its files present in full size.

        A file that is cut short would be mapped and kill the process when touched.

        Raises:
            BundleError: Something is there, but is not what it should be.
        """
        index = read_index(self.index_path)
        if index is None:
            return None
        if (index.layout, index.graph) != (self.layout, self.graph.parts[0].digest):
            raise BundleError(
                "is of another graph, or packed for another CPU or engine",
                where=str(self.index_path),
            )
        for blob in index.blobs:
            path = self.path(blob)
            stamp = Stamp.of(path)
            if stamp is None or stamp.size != blob.size:
                raise BundleError("is missing or cut short", where=str(path))
        return index

    def path(self, blob: Blob) -> Path:
        """The file of that digest."""
        return self.folder / hex_of(blob.digest)

    def verify(self, index: Index, stamps: Stamps) -> None:
        """Reads and hashes every weight's file whose stamp is unknown.

        Raises:
            DigestError: One does not match its digest.
        """
        for weight in index.weights:
            path, blob = self.path(weight.blob), weight.blob
            stamps.verify(path, blob.digest, partial(verify_file, path, blob))

    def model(self, index: Index) -> bytes:
        """The rewritten graph.

        Raises:
            DigestError: It does not match its digest.
        """
        data = self.path(index.model).read_bytes()
        if hashlib.sha256(data).hexdigest() != hex_of(index.model.digest):
            raise DigestError("does not match its digest", where=str(self.path(index.model)))
        return data

    def remove(self, index: Index | None = None) -> None:
        """Takes a graph's index away, so that nothing counts as prepared, then its files.

        What failed despite known stamps is hashed again, hence they go too.
        """
        with suppress(OSError):
            self.index_path.unlink(missing_ok=True)
            self.stamps_path.unlink(missing_ok=True)
            for blob in index.blobs if index else ():
                self.path(blob).unlink(missing_ok=True)

    def write(self, index: Index) -> None:
        """Makes an index durable, and the names of the files it lists.

        Raises:
            WorkError: The file system refused.
        """
        with files.writing(self.folder):
            files.sync(self.folder)
            files.replace(self.index_path, msgspec.json.encode(index), self.folder)


def read_index(path: Path) -> Index | None:
    """An index file; ``None`` where there is none.

    Raises:
        BundleError: It is no index, or a newer one.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        index = msgspec.json.decode(data, type=Index)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"is no index of prepared weights: {error}", where=str(path)) from error
    if index.schema != SCHEMA:
        raise BundleError(f"has the unknown schema {index.schema!r}", where=str(path))
    return index


def verify_file(path: Path, blob: Blob) -> None:
    """Reads and hashes a file.

    Raises:
        DigestError: It does not match its digest.
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != hex_of(blob.digest):
        raise DigestError("does not match its digest", where=str(path))


def page_end(offset: int) -> int:
    """The first page boundary at or after an offset."""
    return -(-offset // PAGE) * PAGE
