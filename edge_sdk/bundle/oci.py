"""The OCI image layout and ModelPack documents as typed values.

Shapes and names are those of the OCI image specification 1.1 (``Descriptor``,
``Manifest``, ``Index``, ``oci-layout``) and of CNCF ModelPack (media types, the
model config, ``org.cncf.model.filepath``). Unknown fields are ignored, as OCI
demands. Encoding is deterministic: fields in declared order, keys of mappings
sorted, nothing absent written.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import msgspec

from edge_sdk.bundle.record import Blob
from edge_sdk.errors import BundleError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
MODEL = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
DOC = "application/vnd.cncf.model.doc.v1.raw"
LAYERS = frozenset((WEIGHT, WEIGHT_CONFIG, DOC))

BUNDLE = "org.edge-sdk.bundle"
FILEPATH = "org.cncf.model.filepath"
PROFILE = "org.edge-sdk.profile"
REPORT = "org.edge-sdk.report"
REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"
VERSION = "org.opencontainers.image.version"

LAYOUT_FILE = "oci-layout"
INDEX_FILE = "index.json"
LAYOUT_VERSION = "1.0.0"
MANIFEST_LIMIT = 4 * 1024 * 1024
"""Largest manifest or index that registries accept, in bytes."""

_NAME = re.compile(r"[A-Za-z0-9]+(?:[._+-]+[A-Za-z0-9]+)*")

T = TypeVar("T")


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Base of the OCI documents: immutable, camelCase, absent fields omitted."""


class Platform(Document, frozen=True, kw_only=True):
    """The platform that a manifest is for."""

    architecture: str
    os: str
    variant: str | None = None


class Descriptor(Document, frozen=True, kw_only=True):
    """A reference to a blob: what it is, its digest and its size in bytes."""

    media_type: str
    digest: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    annotations: dict[str, str] = {}
    platform: Platform | None = None

    @property
    def blob(self) -> Blob:
        """The digest and size alone."""
        return Blob(digest=self.digest, size=self.size)


class Manifest(Document, frozen=True, kw_only=True):
    """One variant: a ModelPack config and layers."""

    schema_version: int
    media_type: str
    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Index(Document, frozen=True, kw_only=True):
    """A list of manifests: an image index, or a layout's ``index.json``.

    OCI lets tools leave ``media_type`` out, and skopeo does in ``index.json``.
    """

    schema_version: int
    media_type: str | None = None
    manifests: tuple[Descriptor, ...]


class Layout(Document, frozen=True, kw_only=True):
    """The ``oci-layout`` file."""

    image_layout_version: str


class ModelDescriptor(Document, frozen=True, kw_only=True):
    """ModelPack: who the model is."""

    name: str
    version: str
    licenses: tuple[str, ...] = ()


class ModelFormat(Document, frozen=True, kw_only=True):
    """ModelPack: what the files are; ``quantization`` names the recipe."""

    format: str
    quantization: str


class ModelFs(Document, frozen=True, kw_only=True):
    """ModelPack: digests of the uncompressed layers, in order."""

    type: str
    diff_ids: tuple[str, ...]


class ModelConfig(Document, frozen=True, kw_only=True):
    """ModelPack: the config blob of a manifest."""

    descriptor: ModelDescriptor
    modelfs: ModelFs
    config: ModelFormat


def of_bundle(descriptor: Descriptor, bundle_digest: str) -> Descriptor:
    """Notes which bundle a single variant is from; an image index is a bundle itself."""
    if bundle_digest == descriptor.digest:
        return descriptor
    annotations = descriptor.annotations | {BUNDLE: bundle_digest}
    return msgspec.structs.replace(descriptor, annotations=annotations)


def encode(value: msgspec.Struct) -> bytes:
    """Encodes a document or record; equal values give equal bytes."""
    return msgspec.json.encode(value, order="deterministic")


def decode(data: bytes, type_: type[T], where: str) -> T:
    """Decodes JSON into a typed value.

    Raises:
        BundleError: The text is truncated, not JSON, or not of this shape.
    """
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(
            f"not a valid {type_.__name__}: {error}",
            where=where,
            remedy="the file is damaged or from another tool: copy the bundle again",
        ) from error


def check_name(text: str, what: str) -> str:
    """Returns a model name, version, profile or graph name that is safe in paths and tags.

    Raises:
        BundleError: It is not letters and digits separated by ``.``, ``_``, ``+`` or ``-``.
    """
    if not _NAME.fullmatch(text):
        raise BundleError(
            f"{text!r} is not allowed here",
            where=what,
            remedy="use letters and digits, separated by . _ + or -",
        )
    return text


def check_path(path: str, where: str) -> str:
    """Returns a file path that cannot leave the folder it is put into.

    Raises:
        BundleError: It is absolute or empty, or has ``..``, ``.``, a backslash or a
            control character.
    """
    unsafe = "\\" in path or any(ord(char) < 32 for char in path)
    if unsafe or any(segment in ("", ".", "..") for segment in path.split("/")):
        raise BundleError(
            f"unsafe path {path!r}",
            where=where,
            remedy="a path must be relative, with / between plain names",
        )
    return path
