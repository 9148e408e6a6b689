"""Pushing a bundle to a registry: only what it lacks, several blobs at a time.

A large blob goes in chunks, so that an interruption costs one of them; smaller ones, and all
to registries that do not go along, go in one piece. Manifests follow when all their
blobs are there, and then the tag, so a tag never stands for an incomplete bundle. Last come
compressed copies of what is small (:mod:`edge_sdk.transport.shrunk`), where they are of use.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlencode

from urllib3 import BaseHTTPResponse

from edge_sdk.bundle import oci
from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.layers import RECORD_FILE
from edge_sdk.bundle.oci import Descriptor
from edge_sdk.bundle.reader import Bundle, Variant
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import ConfigError, TransferError
from edge_sdk.transport import shrunk
from edge_sdk.transport.registry_http import ACCEPT, Body, RegistryClient, read_whole
from edge_sdk.transport.source import Reference
from edge_sdk.transport.transfer import Progress, Retry, Transfer

CHUNKED_FROM = 64 * 1024 * 1024
"""Size in bytes from which a blob is sent in chunks."""
CHUNK = 16 * 1024 * 1024
PIECE = 128 * 1024


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        digest: What the tag stands for now: digest of the image index, or the only manifest.
        pushed_bytes: Bytes that travelled, documents included.
        reused_bytes: Bytes of blobs that the registry had.
    """

    digest: str
    pushed_bytes: int
    reused_bytes: int


def push(
    client: RegistryClient,
    bundle: Bundle,
    reference: Reference,
    *,
    parallel: int = 8,
    rate_limit: float | None = None,
    retry: Retry | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Pushed:
    """Pushes all variants of a bundle and lets a tag stand for it.

    Args:
        client: Speaks to the registry.
        bundle: An opened bundle, or one of a store.
        reference: Where to; with a tag.
        parallel: Blobs that travel at a time.
        rate_limit: Bytes per second.
        retry: When to try again what broke off.
        progress: Told of every piece, by several threads but one at a time.
        cancelled: Asked at every piece.

    Raises:
        ConfigError: The reference has a digest, or no tag.
        TransferError: The registry is not reached, refuses, or broke off too often.
        DigestError: A blob of the bundle is damaged.
    """
    if reference.tag is None or reference.digest is not None:
        raise ConfigError(
            "a bundle is pushed to a tag", where=str(reference), remedy="write host/repository:tag"
        )
    transfer = Transfer(
        str(reference), rate_limit=rate_limit, retry=retry, progress=progress, cancelled=cancelled
    )
    work = _Push(client, BlobStore(bundle.path), reference, transfer)
    with ThreadPoolExecutor(max(1, parallel), thread_name_prefix="push") as pool, transfer:
        absent = [v for v in bundle.variants if not work.has("manifests", v.descriptor)]
        blobs = _blobs(absent)
        there = pool.map(lambda blob: work.has("blobs", blob), blobs)
        missing = [blob for blob, is_there in zip(blobs, there, strict=True) if not is_there]
        transfer.expect(missing)
        futures = [pool.submit(work.blob, blob) for blob in missing]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        for variant in absent:
            if variant.descriptor != bundle.descriptor:
                work.document(variant.descriptor, variant.digest)
        work.document(bundle.descriptor, reference.tag)
        with suppress(TransferError):  # the bundle is complete, and does without
            for variant in absent:
                work.shrunk(variant)
    everything = sum(blob.size for blob in _blobs(bundle.variants))
    return Pushed(
        digest=bundle.descriptor.digest,
        pushed_bytes=transfer.travelled,
        reused_bytes=everything - sum(blob.size for blob in missing),
    )


def _blobs(variants: Iterable[Variant]) -> tuple[Blob, ...]:
    """Configs and layers, each once."""
    manifests = [variant.manifest for variant in variants]
    parts = [part.blob for m in manifests for part in (m.config, *m.layers)]
    return tuple(dict.fromkeys(parts))


class _Push:
    """One push at work."""

    def __init__(
        self, client: RegistryClient, blobs: BlobStore, reference: Reference, transfer: Transfer
    ) -> None:
        self._client = client
        self._blobs = blobs
        self._reference = reference
        self._transfer = transfer

    def has(self, kind: str, part: Descriptor | Blob) -> bool:
        """Whether the registry has a blob or manifest."""

        def ask() -> bool:
            target = f"{kind}/{part.digest}"
            with self._request("HEAD", target, headers=ACCEPT, expect=(200, 404)) as answer:
                return answer.status == 200

        return self._transfer.persist(ask)

    def document(self, descriptor: Descriptor, name: str) -> None:
        """Puts a manifest or image index in its place."""
        data = self._blobs.read(descriptor.blob, oci.MANIFEST_LIMIT)
        self._put(lambda: f"manifests/{name}", descriptor.media_type, data)

    def shrunk(self, variant: Variant) -> None:
        """Puts compressed copies beside a variant, where the registry does not compress itself."""
        if self._compresses(variant.files[RECORD_FILE].blob):
            return
        made = shrunk.shrink(variant)
        if made is None:
            return
        for digest, data in made.files.items():
            upload = partial(self._upload_of, Blob(digest=digest, size=len(data)))
            self._put(upload, "application/octet-stream", data)
        tag = shrunk.tag_of(variant.digest)
        self._put(lambda: f"manifests/{tag}", oci.MANIFEST, made.manifest)

    def blob(self, blob: Blob) -> None:
        """Sends a blob; what the registry refuses is first looked for in our own copy."""
        try:
            if blob.size < CHUNKED_FROM or not self._in_chunks(blob):
                self._transfer.persist(lambda: self._whole(blob))
        except TransferError as error:
            if not error.passing:
                self._blobs.verify(blob)
            raise
        self._transfer.done(0, blobs=1)

    def _compresses(self, blob: Blob) -> bool:
        """Whether a blob that the registry has comes compressed to who accepts that."""

        def ask() -> bool:
            target, headers = f"blobs/{blob.digest}", {"Accept-Encoding": "gzip"}
            with self._request("GET", target, headers=headers, expect=(200,)) as answer:
                return read_whole(answer, target, blob.size).travelled < blob.size

        return self._transfer.persist(ask)

    def _put(self, where: Callable[[], str], media_type: str, data: bytes) -> None:
        """Sends something small in one piece."""
        headers = {"Content-Type": media_type}

        def put() -> None:
            with self._request("PUT", where(), headers=headers, body=lambda: data, expect=(201,)):
                self._transfer.moved(len(data))

        self._transfer.persist(put)

    def _whole(self, blob: Blob) -> None:
        """One request that opens an upload, one with all the bytes."""
        self._send("PUT", self._upload_of(blob), _Body(self._blobs, self._transfer, blob))

    def _in_chunks(self, blob: Blob) -> bool:
        """Sends a blob chunk by chunk; ``False`` where the registry does not go along.

        Some take no chunks. Those of the Docker distribution take them, but lose an upload
        when a connection breaks off within one.
        """
        upload = _Upload(self._transfer.persist(self._begin))
        try:
            while upload.offset < blob.size:
                self._transfer.persist(lambda: self._chunk(upload, blob), lambda: upload.offset)
        except TransferError as error:
            if error.passing:
                raise
            self._transfer.done(-upload.offset)
            return False
        nothing = _Body(self._blobs, self._transfer, blob, 0, 0)
        self._transfer.persist(lambda: self._send("PUT", _finish(upload.location, blob), nothing))
        return True

    def _chunk(self, upload: _Upload, blob: Blob) -> None:
        """Sends the next chunk; first asks how far the upload is where one broke off."""
        if not upload.certain:
            with self._request("GET", upload.location, expect=(204,)) as answer:
                before, upload.offset = upload.offset, _received(answer.headers)
                upload.location = answer.headers.get("Location", upload.location)
            self._transfer.done(upload.offset - before)
        upload.certain = False
        body = _Body(self._blobs, self._transfer, blob, upload.offset, upload.offset + CHUNK)
        upload.location = self._send("PATCH", upload.location, body)
        upload.offset, upload.certain = body.end, True

    def _upload_of(self, blob: Blob) -> str:
        """Opens an upload; where all of a blob goes to in one piece."""
        return _finish(self._begin(), blob)

    def _begin(self) -> str:
        """Opens an upload; where it goes to."""
        target = "blobs/uploads/"
        with self._request("POST", target, body=lambda: b"", expect=(202,)) as answer:
            return answer.headers.get("Location", target)

    def _send(self, method: str, location: str, body: _Body) -> str:
        """Sends a part of a blob; where the next goes to."""
        last = method == "PUT"
        headers = body.headers if last else body.headers | body.content_range
        expect = (201,) if last else (202,)
        try:
            with self._request(
                method, location, headers=headers, body=body, expect=expect
            ) as answer:
                return answer.headers.get("Location", location)
        except TransferError:
            body.forget()
            raise

    def _request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        expect: Collection[int],
    ) -> AbstractContextManager[BaseHTTPResponse]:
        return self._client.request(
            method,
            self._reference,
            target,
            actions="pull,push",
            headers=headers,
            body=body,
            expect=expect,
        )


@dataclass
class _Upload:
    """An upload in chunks.

    Attributes:
        location: Where the next chunk goes to.
        offset: Bytes that the registry has.
        certain: Whether that is known.
    """

    location: str
    offset: int = 0
    certain: bool = True


class _Body:
    """Bytes of a blob as the body of a request, made anew whenever it is sent."""

    def __init__(
        self,
        blobs: BlobStore,
        transfer: Transfer,
        blob: Blob,
        start: int = 0,
        end: int | None = None,
    ) -> None:
        self.end = blob.size if end is None else min(end, blob.size)
        self._blobs = blobs
        self._transfer = transfer
        self._blob = blob
        self._start = start
        self._sent = 0

    @property
    def headers(self) -> dict[str, str]:
        """Say what the body is."""
        return {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self.end - self._start),
        }

    @property
    def content_range(self) -> dict[str, str]:
        """Says which part of the blob it is, as the distribution specification writes it."""
        return {"Content-Range": f"{self._start}-{self.end - 1}"}

    def __call__(self) -> Iterator[bytes]:
        self.forget()
        with self._blobs.open(self._blob) as file:
            file.seek(self._start)
            left = self.end - self._start
            while left and (piece := file.read(min(left, PIECE))):
                yield piece
                left -= len(piece)
                self._sent += len(piece)
                self._transfer.done(len(piece))
                self._transfer.moved(len(piece))

    def forget(self) -> None:
        """Takes back what was counted as done."""
        self._transfer.done(-self._sent)
        self._sent = 0


def _finish(location: str, blob: Blob) -> str:
    """Where an upload is ended."""
    return f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': blob.digest})}"


def _received(headers: Mapping[str, str]) -> int:
    """Bytes of an upload that a registry says it has: ``Range: 0-<last>``; none is ``0-0``."""
    last = headers.get("Range", "").rpartition("-")[2]
    return int(last) + 1 if last.isdigit() and last != "0" else 0
