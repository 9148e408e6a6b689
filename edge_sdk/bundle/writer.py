"""Writing a bundle: all of it in a directory beside the target, then one rename."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Protocol

from edge_sdk.bundle import files, oci
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.layers import config_of, layers_of
from edge_sdk.bundle.measurements import VariantReport
from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.record import Blob, VariantRecord
from edge_sdk.errors import BundleError

# A rendering of the reports for people; may lie beside index.json, and nothing reads it.
RENDERED_REPORT = "report.html"
# What the runtime derived from a bundle that was loaded where it lies.
PREPARED = "prepared"


class PlatformLike(Protocol):
    """Anything that names an OCI platform, such as a device profile's ``platform``."""

    @property
    def os(self) -> str:
        """Operating system, as Go's GOOS."""

    @property
    def architecture(self) -> str:
        """Architecture, as Go's GOARCH."""

    @property
    def variant(self) -> str | None:
        """Variant of the architecture (``v7``)."""


class BundleWriter:
    """Writes one bundle; the target is complete after :meth:`finish`, or absent.

    ::

        with BundleWriter(Path("digits.bundle")) as writer:
            graph = writer.blobs.put([model_bytes])
            writer.add_variant(record_of(graph), profile.platform)
            writer.finish()

    Args:
        path: The bundle's directory.
        overwrite: Whether an existing bundle there may be replaced.

    Attributes:
        blobs: Where the bundle's blobs go.
    """

    blobs: BlobStore

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path.absolute()
        self._overwrite = overwrite
        self._variants: dict[str, Descriptor] = {}
        self._identity: tuple[str, str] | None = None
        self._staging: Path | None = None
        self._lock = -1

    def __enter__(self) -> BundleWriter:
        check_target(self.path, self._overwrite)
        with files.writing(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(self.path)
            self._staging, self._lock = _stage(self.path)
            self.blobs = BlobStore(self._staging)
            self.blobs.prepare()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._staging is not None:
            shutil.rmtree(self._staging, ignore_errors=True)
        os.close(self._lock)

    def add_variant(
        self,
        record: VariantRecord,
        platform: PlatformLike,
        report: VariantReport | None = None,
        documents: Mapping[str, Blob] | None = None,
    ) -> Descriptor:
        """Adds one variant whose blobs are all in :attr:`blobs`.

        Args:
            record: The variant.
            platform: The OCI platform of its profile.
            report: What was measured; not part of the variant's identity.
            documents: Path -> blob of files for people.

        Returns:
            The manifest's descriptor; its digest is the variant's identity.

        Raises:
            BundleError: A blob is missing, a path is unsafe, or the record does not
                belong into this bundle.
        """
        self._check(record)
        layers = layers_of(record, self._put(record), documents or {})
        for layer in layers:
            self.blobs.check(layer.blob)
        manifest = self._put_manifest(self._put(config_of(record, layers)), layers)
        annotations = {oci.PROFILE: record.profile}
        if report is not None:
            annotations[oci.REPORT] = oci.encode(report).decode()
        # No artifactType here: skopeo 1.9 would rewrite the index and change its digest.
        descriptor = Descriptor(
            media_type=oci.MANIFEST,
            digest=manifest.digest,
            size=manifest.size,
            annotations=annotations,
            platform=oci.Platform(
                architecture=platform.architecture, os=platform.os, variant=platform.variant
            ),
        )
        self._variants[record.profile] = descriptor
        self._identity = (record.name, record.version)
        return descriptor

    def render_report(self, html: str) -> None:
        """Puts a page for people beside the index; it is no part of any variant."""
        (self.blobs.root / RENDERED_REPORT).write_text(html, encoding="utf-8")

    def finish(self) -> Path:
        """Writes the index and puts the bundle in its place.

        Returns:
            The bundle's directory.

        Raises:
            BundleError: There is no variant, or the target appeared meanwhile.
            WorkError: The file system refused.
        """
        if self._identity is None or self._staging is None:
            raise BundleError("a bundle needs at least one variant", where=str(self.path))
        index = self._put(_index(*self._variants.values()), limit=oci.MANIFEST_LIMIT)
        top = Descriptor(
            media_type=oci.INDEX,
            digest=index.digest,
            size=index.size,
            annotations={oci.REF_NAME: self._identity[1]},
        )
        complete(self._staging, self.path, top, overwrite=self._overwrite)
        self._staging = None
        return self.path

    def _put_manifest(self, config: Blob, layers: tuple[Descriptor, ...]) -> Blob:
        manifest = oci.Manifest(
            schema_version=2,
            media_type=oci.MANIFEST,
            artifact_type=oci.MODEL,
            config=Descriptor(media_type=oci.MODEL_CONFIG, digest=config.digest, size=config.size),
            layers=layers,
        )
        return self._put(manifest, limit=oci.MANIFEST_LIMIT)

    def _put(self, value: oci.Document | VariantRecord, limit: int | None = None) -> Blob:
        data = oci.encode(value)
        if limit is not None and len(data) > limit:
            raise BundleError(
                f"a {type(value).__name__.lower()} of {len(data)} bytes exceeds the "
                f"{limit} that registries accept",
                where=str(self.path),
                remedy="use fewer variants or larger weight groups",
            )
        return self.blobs.put([data])

    def _check(self, record: VariantRecord) -> None:
        """A bundle is one version of one model, with one variant per profile."""
        oci.check_name(record.name, "model name")
        oci.check_name(record.version, "version")
        oci.check_name(record.profile, "profile")
        if not record.graphs:
            raise BundleError("a variant needs at least one graph", where=record.profile)
        names = [oci.check_name(graph.name, "graph name") for graph in record.graphs]
        if len(set(names)) < len(names):
            raise BundleError(f"graph names are not unique: {names}", where=record.profile)
        identity = (record.name, record.version)
        if self._identity not in (None, identity):
            raise BundleError(
                f"a bundle holds one version of one model, not {self._identity} and {identity}",
                where=record.profile,
            )
        if record.profile in self._variants:
            raise BundleError("the bundle already has this profile", where=record.profile)


def complete(staging: Path, target: Path, top: Descriptor, *, overwrite: bool) -> None:
    """Makes a directory with all the blobs of a bundle the bundle itself.

    Args:
        staging: The directory, beside the target; nothing but blobs is in it.
        target: Where the bundle is then.
        top: The only entry of its ``index.json``.
        overwrite: Whether a bundle that is there may be replaced.

    Raises:
        BundleError: The target is something else, or may not be replaced.
        WorkError: The file system refused.
    """
    blobs = BlobStore(staging)
    blobs.prepare()
    with files.writing(target):
        files.replace(staging / oci.INDEX_FILE, oci.encode(_index(top)), blobs.temporary)
        layout = oci.encode(oci.Layout(image_layout_version=oci.LAYOUT_VERSION))
        files.replace(staging / oci.LAYOUT_FILE, layout, blobs.temporary)
        blobs.temporary.rmdir()
        blobs.sync()
        check_target(target, overwrite)
        _move(staging, target)


def _index(*manifests: Descriptor) -> oci.Index:
    return oci.Index(schema_version=2, media_type=oci.INDEX, manifests=manifests)


def check_target(path: Path, overwrite: bool) -> None:
    """A target must be absent or an empty directory; or a bundle that may be replaced.

    Raises:
        BundleError: It is neither.
    """
    if not path.exists():
        return
    found = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
    if not found:
        return
    # A store has more entries than these (its lock, for one): never replace one.
    if found - {RENDERED_REPORT, PREPARED} != {oci.LAYOUT_FILE, oci.INDEX_FILE, "blobs"}:
        raise BundleError(
            "exists and is not a bundle", where=str(path), remedy="choose another output"
        )
    if not overwrite:
        raise BundleError(
            "the bundle exists", where=str(path), remedy="remove it, or ask to overwrite it"
        )


def _stage(target: Path) -> tuple[Path, int]:
    """Creates and locks a staging directory beside the target."""
    while True:
        staging = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
        staging.mkdir()
        lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if staging.exists():  # another writer may have swept it before it was locked
            return staging, lock
        os.close(lock)


def _sweep(target: Path) -> None:
    """Removes what writers of this target left when they were killed; their locks are free."""
    for staging in target.parent.glob(f".{escape(target.name)}.*.partial"):
        with suppress(FileNotFoundError, BlockingIOError):  # just finished, or at work
            lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(staging, ignore_errors=True)
            finally:
                os.close(lock)


def _move(staging: Path, target: Path) -> None:
    """Renames onto the target; a bundle that was there goes to the sweep's name first."""
    old = staging.with_suffix(".old.partial")
    if target.exists():
        target.rename(old)
    staging.rename(target)
    files.sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
