from __future__ import annotations

import hashlib
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from edge_sdk.bundle import files
from edge_sdk.bundle.blobs import BlobStore, hex_of
from edge_sdk.bundle.record import Blob
from edge_sdk.errors import BundleError, DigestError, WorkError
from tests.bundle.forge import flip

EMPTY = "sha256:" + hashlib.sha256(b"").hexdigest()


def test_put_files_the_chunks_under_their_digest(tmp_path):
    store = BlobStore(tmp_path)
    blob = store.put([b"ab", bytearray(b"c"), memoryview(b"def")])
    assert blob == Blob(digest="sha256:" + hashlib.sha256(b"abcdef").hexdigest(), size=6)
    assert store.path(blob.digest).read_bytes() == b"abcdef"
    assert store.read(blob, limit=6) == b"abcdef"
    assert list(store.temporary.iterdir()) == []


def test_put_counts_bytes_and_not_items(tmp_path):
    words = memoryview(bytes(32)).cast("d")
    assert BlobStore(tmp_path).put([words]).size == 32


def test_an_empty_blob_is_a_blob(tmp_path):
    store = BlobStore(tmp_path)
    blob = store.put([])
    assert blob == Blob(digest=EMPTY, size=0)
    store.verify(blob)


def test_put_does_not_rewrite_a_blob_that_is_there(tmp_path):
    store = BlobStore(tmp_path)
    path = store.path(store.put([b"same"]).digest)
    before = path.stat()
    store.put([b"sa", b"me"])
    assert path.stat().st_ino == before.st_ino


def test_put_replaces_a_blob_of_the_wrong_size(tmp_path):
    store = BlobStore(tmp_path)
    blob = store.put([b"whole"])
    store.path(blob.digest).write_bytes(b"who")
    store.put([b"whole"])
    store.verify(blob)


def test_put_stores_nothing_when_the_bytes_are_not_the_expected_blob(tmp_path):
    store = BlobStore(tmp_path)
    with pytest.raises(DigestError, match=EMPTY):
        store.put([b"other"], expect=Blob(digest=EMPTY, size=0))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@contextmanager
def full_disk():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_an_error_with_a_remedy(tmp_path):
    store = BlobStore(tmp_path)
    store.prepare()
    with full_disk(), pytest.raises(WorkError, match="cannot write") as caught:
        store.put([bytes(1 << 20)])
    assert caught.value.remedy
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_file_that_cannot_be_replaced_is_named_and_stays(tmp_path):
    target = tmp_path / "y.npz"
    target.write_bytes(b"old")
    with full_disk(), pytest.raises(WorkError, match="cannot write") as caught:
        files.replace(target, bytes(1 << 20), tmp_path)
    assert caught.value.where == str(target)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    with pytest.raises(WorkError, match="cannot write") as caught:
        files.replace(target, b"new", tmp_path / "nowhere")
    assert caught.value.where == str(tmp_path / "nowhere"), "and not a name that nobody gave"


def test_put_leaves_nothing_behind_when_the_source_fails(tmp_path):
    def broken():
        yield b"some"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        BlobStore(tmp_path).put(broken())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../etc/passwd",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 64 + "\n",
        "sha512:" + "a" * 128,
        "a" * 64,
        "",
    ],
)
def test_only_sha256_digests_name_files(digest):
    with pytest.raises(BundleError, match="not a sha256 digest"):
        hex_of(digest)


def test_read_refuses_more_than_the_limit(tmp_path):
    store = BlobStore(tmp_path)
    with pytest.raises(BundleError, match="exceed the limit"):
        store.read(store.put([b"12345"]), limit=4)


def test_a_blob_that_is_a_link_is_refused(tmp_path):
    store = BlobStore(tmp_path)
    blob = store.put([b"data"])
    path = store.path(blob.digest)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="not a regular file"):
        store.verify(blob)


def test_adopt_links_where_it_can(tmp_path):
    source, target = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b")
    blob = source.put([b"data"])
    target.adopt(source, blob)
    assert target.path(blob.digest).samefile(source.path(blob.digest))
    assert list(target.temporary.iterdir()) == []


def test_adopt_copies_across_file_systems_and_repairs(tmp_path, tmp_path_factory):
    other = tmp_path_factory.mktemp("disk")
    if other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    source, target = BlobStore(other), BlobStore(tmp_path)
    blob = source.put([b"data"])
    target.adopt(source, blob)
    target.verify(blob)
    flip(target.path(blob.digest))
    target.adopt(source, blob)
    target.verify(blob)


def test_adopt_replaces_a_damaged_copy(tmp_path):
    source, target = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b")
    blob = source.put([b"data"])
    target.put([b"data"])
    target.path(blob.digest).write_bytes(b"dama")
    target.adopt(source, blob)
    target.verify(blob)


def test_adopt_refuses_a_damaged_source(tmp_path):
    source, target = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b")
    blob = source.put([b"data"])
    source.path(blob.digest).write_bytes(b"dama")
    with pytest.raises(DigestError, match=blob.digest):
        target.adopt(source, blob)
    assert not target.path(blob.digest).exists()


STREAM = """
import resource, sys
from pathlib import Path
from edge_sdk.bundle.blobs import BlobStore

size, chunk = int(sys.argv[2]), bytes(1 << 20)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + size // 4,) * 2)
try:
    bytes(size)
except MemoryError:
    print("limited")
a, b = BlobStore(Path(sys.argv[1]) / "a"), BlobStore(Path(sys.argv[1]) / "b")
blob = a.put(chunk for _ in range(size >> 20))
b.put(a.chunks(blob), expect=blob)
b.verify(blob)
print(blob.size)
"""


@pytest.mark.parametrize("mebibytes", [64, pytest.param(3072, marks=pytest.mark.slow)])
def test_a_blob_is_written_copied_and_verified_in_a_quarter_of_its_size(
    tmp_path_factory, mebibytes
):
    folder, size = tmp_path_factory.mktemp("disk"), mebibytes << 20
    command = [sys.executable, "-c", STREAM, str(folder), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    shutil.rmtree(folder)  # pytest would keep gigabytes
    assert done.stdout.split() == ["limited", str(size)], done.stderr
