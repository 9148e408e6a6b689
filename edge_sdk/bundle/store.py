"""The device's store: one OCI layout that holds every installed bundle.

``index.json`` alone says what is installed; it is replaced atomically after all
blobs of a bundle are durable, so a kill at any moment leaves either the old or
the new state. Blobs that nothing refers to are garbage until :meth:`Store.gc`.

Writers (install, remove, gc) exclude each other by a lock on the file ``lock``;
readers take no lock and never write. A garbage collection and a fetch into the
store exclude each other too, by a lock on ``partial/lock``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_sdk.bundle import files, oci
from edge_sdk.bundle.blobs import BlobStore, hex_of
from edge_sdk.bundle.oci import Descriptor, Index, Layout
from edge_sdk.bundle.reader import Bundle, read_bundle, read_layout, read_manifest, read_manifests
from edge_sdk.errors import BundleError


@dataclass(frozen=True)
class Installed:
    """One installed bundle.

    Attributes:
        name: The model's name.
        version: The model's version.
        descriptor: Its image index, or the manifest of the one variant that was installed.
    """

    name: str
    version: str
    descriptor: Descriptor

    @property
    def bundle_digest(self) -> str:
        """Digest of the bundle's image index, whether it is here or only one of its variants."""
        return self.descriptor.annotations.get(oci.BUNDLE, self.descriptor.digest)


@dataclass(frozen=True)
class Problem:
    """What :meth:`Store.verify` found wrong with an installed bundle."""

    name: str
    version: str
    error: BundleError


@dataclass(frozen=True)
class Swept:
    """What a garbage collection deleted, or would delete.

    Attributes:
        blobs: Blob file -> size, for blobs that no installed bundle needs.
        prepared: Derived folders whose variant is gone.
        temporary: Files that a killed process left behind, and blobs that came in part.
    """

    blobs: dict[Path, int]
    prepared: tuple[Path, ...]
    temporary: tuple[Path, ...]


class Store:
    """Installed bundles under one directory.

    Args:
        root: The directory; the first :meth:`install` creates it.

    Attributes:
        blobs: Every installed blob.
        prepared: What was derived on this device, one folder per manifest's hex digest.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.blobs = BlobStore(self.root)
        self.prepared = self.root / "prepared"

    def ls(self) -> tuple[Installed, ...]:
        """What is installed, whether intact or not.

        Raises:
            BundleError: The directory is not a store.
        """
        return tuple(_installed(entry, self.root) for entry in read_layout(self.root))

    def open(self, name: str, version: str | None = None) -> Bundle:
        """Opens an installed bundle; its blobs are read from the store.

        Args:
            name: The model's name.
            version: Needed only where several versions are installed.

        Raises:
            BundleError: It is not installed, not the only version, or damaged.
        """
        found = [
            entry for entry in self.ls() if entry.name == name and version in (None, entry.version)
        ]
        if len(found) != 1:
            raise self._not_one(found, name, version)
        return read_bundle(self.root, found[0].descriptor)

    def install(self, bundle: Bundle, profile: str | None = None) -> Installed:
        """Installs a bundle, or one variant of it, in place of the same name and version.

        Every blob is verified: the store's own copy where there is one (a damaged one is
        replaced), else the bundle's, which is then hard-linked or copied.

        Raises:
            BundleError: The bundle is damaged, or has no such profile; nothing is installed.
            WorkError: The file system refused.
        """
        variants = bundle.variants if profile is None else (bundle.variant(profile),)
        descriptor = bundle.descriptor if profile is None else variants[0].descriptor
        source = BlobStore(bundle.path)
        with files.writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self._create()
            self.blobs.adopt(source, descriptor.blob)
            for variant in variants:
                for blob in variant.all_blobs:
                    self.blobs.adopt(source, blob)
            return self._list(bundle, oci.of_bundle(descriptor, bundle.descriptor.digest))

    def enter(self, descriptor: Descriptor, bundle_digest: str) -> Installed:
        """Installs what is in the store's blobs already, in place of the same name and version.

        Documents are verified, weights only known to be there: whoever put them verified them.

        Args:
            descriptor: An image index, or the manifest of one variant.
            bundle_digest: Of the image index that the variant is from.

        Raises:
            BundleError: A blob is missing, or the bundle is malformed; nothing is installed.
            WorkError: The file system refused.
        """
        with files.writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self._create()
            bundle = read_bundle(self.root, descriptor)
            return self._list(bundle, oci.of_bundle(descriptor, bundle_digest))

    def remove(self, name: str, version: str) -> None:
        """Takes a bundle off the list; :meth:`gc` then frees what nothing else needs.

        Raises:
            BundleError: It is not installed.
            WorkError: The file system refused.
        """
        if (name, version) not in {(entry.name, entry.version) for entry in self.ls()}:
            raise self._not_one([], name, version)
        with self._locked():
            kept = [old for old in self.ls() if (old.name, old.version) != (name, version)]
            self._replace_index(*(old.descriptor for old in kept))

    def verify(self) -> Iterator[Problem]:
        """Reads and hashes every blob of every installed bundle, each once.

        Yields:
            What is wrong, as it is found.

        Raises:
            BundleError: The directory is not a store.
        """
        seen: set[str] = set()
        for entry in self.ls():
            try:
                bundle = read_bundle(self.root, entry.descriptor)
            except BundleError as error:
                yield Problem(entry.name, entry.version, error)
                continue
            for variant in bundle.variants:
                for blob in variant.all_blobs:
                    if blob.digest in seen:
                        continue
                    seen.add(blob.digest)
                    try:
                        variant.verify_blob(blob)
                    except BundleError as error:
                        yield Problem(entry.name, entry.version, error)

    def gc(
        self, *, dry_run: bool = False, spare: Callable[[Path], bool] = lambda path: False
    ) -> Swept:
        """Deletes what no installed bundle needs: mark from ``index.json``, then sweep.

        If any installed bundle cannot be followed down to its layers, nothing is deleted.

        Args:
            dry_run: Only say what would be deleted; writes nothing, takes no lock.
            spare: Says of a blob's file or a temporary one that it is still needed.

        Raises:
            BundleError: The directory is not a store, or an installed bundle is damaged.
            WorkError: Blobs are being fetched just now, or the file system refused.
        """
        read_layout(self.root)
        with nullcontext() if dry_run else self._alone():
            needed, manifests = self._mark()
            swept = Swept(
                blobs={
                    path: path.lstat().st_size
                    for path in _entries(self.blobs.folder)
                    if len(path.name) == 64 and path.name not in needed and not spare(path)
                },
                prepared=tuple(p for p in _entries(self.prepared) if p.name not in manifests),
                temporary=tuple(
                    path
                    for path in (*_entries(self.blobs.temporary), *_entries(self.blobs.partial))
                    if path != self.blobs.fetching and not spare(path)
                ),
            )
            if not dry_run:
                for path in swept.prepared:
                    shutil.rmtree(path)
                for path in (*swept.blobs, *swept.temporary):
                    path.unlink()
        return swept

    def _mark(self) -> tuple[set[str], set[str]]:
        """File names of all blobs that are needed, and of the manifests among them."""
        needed: set[str] = set()
        manifests: set[str] = set()
        for entry in self.ls():
            needed.add(hex_of(entry.descriptor.digest))
            try:
                for descriptor in read_manifests(self.blobs, entry.descriptor):
                    manifest = read_manifest(self.blobs, descriptor)
                    manifests.add(hex_of(descriptor.digest))
                    needed.update(hex_of(p.digest) for p in (manifest.config, *manifest.layers))
            except BundleError as error:
                raise BundleError(
                    f"nothing was deleted, because {entry.name} {entry.version} is damaged: "
                    f"{error.message}",
                    where=error.where,
                    remedy="install it again, or remove it, then run gc again",
                ) from error
        return needed | manifests, manifests

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with files.writing(self.root), files.locked(self.root / "lock"):
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Excludes fetches too, whose blobs nothing refers to yet."""
        fetched = self.blobs.partial.is_dir()
        fetching = files.locked(self.blobs.fetching, wait=False) if fetched else nullcontext()
        with self._locked(), fetching:
            yield

    def _create(self) -> None:
        """Makes an empty layout; ``oci-layout`` comes last, so it vouches for the index."""
        layout = self.root / oci.LAYOUT_FILE
        if not layout.exists():
            if not (self.root / oci.INDEX_FILE).exists():
                self._replace_index()
            data = oci.encode(Layout(image_layout_version=oci.LAYOUT_VERSION))
            files.replace(layout, data, self.blobs.temporary)

    def _list(self, bundle: Bundle, descriptor: Descriptor) -> Installed:
        """Makes blobs durable and puts the bundle on the list."""
        self.blobs.sync()
        entry = _entry(bundle, descriptor)
        kept = [old for old in self.ls() if (old.name, old.version) != _key(bundle)]
        self._replace_index(*(old.descriptor for old in kept), entry)
        return _installed(entry, self.root)

    def _replace_index(self, *entries: Descriptor) -> None:
        self.blobs.prepare()
        index = Index(schema_version=2, media_type=oci.INDEX, manifests=entries)
        files.replace(self.root / oci.INDEX_FILE, oci.encode(index), self.blobs.temporary)

    def _not_one(self, found: list[Installed], name: str, version: str | None) -> BundleError:
        wanted = name if version is None else f"{name} {version}"
        names = ", ".join(f"{entry.name} {entry.version}" for entry in self.ls())
        return BundleError(
            f"several versions of {name} are installed" if found else f"{wanted} is not installed",
            where=str(self.root),
            remedy=f"name one of: {names}" if names else "install a bundle first",
        )


def _key(bundle: Bundle) -> tuple[str, str]:
    return bundle.name, bundle.version


def _entry(bundle: Bundle, descriptor: Descriptor) -> Descriptor:
    name, version = _key(bundle)
    own = {oci.TITLE: name, oci.VERSION: version, oci.REF_NAME: f"{name}:{version}"}
    return msgspec.structs.replace(descriptor, annotations=descriptor.annotations | own)


def _installed(entry: Descriptor, root: Path) -> Installed:
    try:
        return Installed(entry.annotations[oci.TITLE], entry.annotations[oci.VERSION], entry)
    except KeyError as error:
        raise BundleError(
            f"an entry has no annotation {error}",
            where=str(root / oci.INDEX_FILE),
            remedy="give a store, not a bundle: edge-sdk store install makes one",
        ) from None


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
