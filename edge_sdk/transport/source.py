"""Where the blobs of bundles come from: a registry over HTTP, or a fleet over MQTT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import ConfigError

# Grammar of the OCI distribution specification 1.1 and of Docker's references.
_REPOSITORY = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
_REFERENCE = re.compile(
    r"(?:(?P<scheme>https?)://)?"
    r"(?P<registry>(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(?::[0-9]+)?)/"
    rf"(?P<repository>{_REPOSITORY})"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
LOOPBACK = re.compile(r"(?:localhost|127(?:\.\d+){3}|\[::1\])(?::\d+)?")


@dataclass(frozen=True)
class Reference:
    """A bundle in a registry.

    Attributes:
        registry: Host, and port where it is not the scheme's own.
        repository: Path of lower-case names.
        tag: A name that may move; ``latest`` where neither it nor a digest is given.
        digest: What the tag must stand for, or all there is.
        plain: Whether HTTP is spoken instead of HTTPS: on loopback, or where asked for.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None
    plain: bool = False

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads ``[http://]host[:port]/repository[:tag][@sha256:…]``.

        Raises:
            ConfigError: It is something else.
        """
        match = _REFERENCE.fullmatch(text)
        if not match:
            raise ConfigError(
                f"{text!r} is no reference to a bundle",
                remedy="write host[:port]/repository:tag, with a lower-case repository",
            )
        scheme, registry, repository, tag, digest = match.group(
            "scheme", "registry", "repository", "tag", "digest"
        )
        plain = scheme == "http" or (scheme is None and bool(LOOPBACK.fullmatch(registry)))
        if tag is None and digest is None:
            tag = "latest"
        return cls(registry, repository, tag, digest, plain)

    def at(self, digest: str) -> Reference:
        """The same repository at one digest."""
        return Reference(self.registry, self.repository, None, digest, self.plain)

    def __str__(self) -> str:
        scheme = "http://" if self.plain and not LOOPBACK.fullmatch(self.registry) else ""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{scheme}{self.registry}/{self.repository}{tag}{digest}"


class Piece(NamedTuple):
    """Bytes as they come.

    Attributes:
        data: The bytes.
        travelled: How many went over the wire for them, which may be compressed there.
    """

    data: bytes
    travelled: int


class BlobSource(Protocol):
    """Reads bundles piece by piece; safe to call from several threads.

    Every method raises :class:`~edge_sdk.errors.TransferError` where the other side is not
    reached, refuses or breaks off, and :class:`~edge_sdk.errors.BundleError` where what came
    is not what it claims to be.
    """

    def resolve(self, reference: Reference) -> Descriptor:
        """The image index or manifest that a reference stands for, with digest and size."""
        ...

    def document(self, reference: Reference, descriptor: Descriptor) -> Piece:
        """An image index or manifest, whole; its digest is checked by the caller."""
        ...

    def read(self, reference: Reference, blob: Blob, offset: int = 0) -> Iterator[Piece]:
        """The bytes of a blob from an offset on, in pieces; they are checked by the caller."""
        ...

    def close(self) -> None:
        """Lets connections go; what is being read meanwhile breaks off."""
        ...
