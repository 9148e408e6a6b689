"""What a server hands out of its own store, by the names that registries use.

A model's repository is its name in lower case and a version's tag is the version, each with
what the grammar of registries does not allow replaced. No name from outside becomes a path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_sdk.bundle import oci
from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.record import Blob
from edge_sdk.bundle.store import Installed, Store
from edge_sdk.errors import BundleError


class _MediaType(msgspec.Struct, rename="camel"):
    media_type: str = ""


@dataclass(frozen=True)
class Document:
    """An image index or manifest, with its bytes."""

    descriptor: Descriptor
    data: bytes


def repository(name: str) -> str:
    """The repository of a model: lower case, with single separators.

    >>> repository("SmolLM2-360M+chat")
    'smollm2-360m-chat'
    """
    return re.sub(r"[._+-]*\+[._+-]*|[._-]{2,}", "-", name.lower())


def tag(version: str) -> str:
    """The tag of a version; a ``+`` becomes ``_``, as with Helm's charts."""
    return version.replace("+", "_")


class Shelf:
    """Looks things up in a store that may change meanwhile; opens nothing that is no blob.

    Args:
        root: The store; until it exists there is nothing.
    """

    def __init__(self, root: Path) -> None:
        self.store = Store(root)

    def entries(self, name: str) -> tuple[Installed, ...]:
        """What is installed under a repository; empty where there is none."""
        if not (self.store.root / oci.LAYOUT_FILE).exists():
            return ()
        return tuple(entry for entry in self.store.ls() if repository(entry.name) == name)

    def document(self, name: str, reference: str) -> Document | None:
        """An image index or manifest by tag or digest; ``None`` where there is none.

        Raises:
            BundleError: It is damaged.
        """
        for entry in self.entries(name):
            if reference in (tag(entry.version), entry.descriptor.digest):
                return self._document(entry.descriptor.media_type, entry.descriptor.blob)
        blob = self.blob(name, reference)
        if blob is None or blob.size > oci.MANIFEST_LIMIT:
            return None
        try:
            data = self.store.blobs.read(blob, oci.MANIFEST_LIMIT)
            media_type = oci.decode(data, _MediaType, reference).media_type
        except BundleError:
            return None
        known = media_type in (oci.INDEX, oci.MANIFEST)
        return self._document(media_type, blob) if known else None

    def blob(self, name: str, digest: str) -> Blob | None:
        """A blob of any bundle, asked for by way of a repository that exists."""
        try:
            path = self.store.blobs.path(digest)
        except BundleError:
            return None
        if not self.entries(name) or path.is_symlink() or not path.is_file():
            return None
        return Blob(digest=digest, size=path.stat().st_size)

    def _document(self, media_type: str, blob: Blob) -> Document:
        data = self.store.blobs.read(blob, oci.MANIFEST_LIMIT)
        return Document(Descriptor(media_type=media_type, digest=blob.digest, size=blob.size), data)
