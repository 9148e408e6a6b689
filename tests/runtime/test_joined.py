from __future__ import annotations

import pytest

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import Blob, Graph
from edge_sdk.errors import BundleError, DigestError
from edge_sdk.runtime.prepared import graph_path

PARTS = (b"head", b"x" * 3_000_000, b"tail")


@pytest.fixture
def blobs(tmp_path) -> BlobStore:
    return BlobStore(tmp_path / "bundle")


def graph(blobs: BlobStore, *parts: bytes) -> Graph:
    return Graph(name="main", format="tflite", parts=tuple(blobs.put([part]) for part in parts))


def damage(path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_one_part_is_opened_where_it_lies(blobs, tmp_path):
    single = graph(blobs, b"all")
    assert graph_path(single, blobs, tmp_path / "p") == blobs.path(single.parts[0].digest)
    assert not (tmp_path / "p").exists()


def test_several_parts_are_joined_in_order_and_once(blobs, tmp_path):
    several = graph(blobs, *PARTS)
    path = graph_path(several, blobs, tmp_path / "p")
    assert path.read_bytes() == b"".join(PARTS)
    assert path.suffix == ".tflite"
    before = path.stat()
    assert graph_path(several, blobs, tmp_path / "p") == path
    assert path.stat().st_ino == before.st_ino
    assert [*path.parent.iterdir()] == [path]


def test_damaged_joined_file_is_made_again(blobs, tmp_path):
    several = graph(blobs, *PARTS)
    path = graph_path(several, blobs, tmp_path / "p")
    damage(path)
    assert graph_path(several, blobs, tmp_path / "p").read_bytes() == b"".join(PARTS)


def test_damaged_part_is_named_and_nothing_is_left(blobs, tmp_path):
    several = graph(blobs, *PARTS)
    damage(blobs.path(several.parts[2].digest))
    with pytest.raises(DigestError) as error:
        graph_path(several, blobs, tmp_path / "p")
    assert several.parts[2].digest in error.value.where
    assert [*(tmp_path / "p").iterdir()] == []


def test_missing_part_and_no_parts_are_bundle_errors(blobs, tmp_path):
    with pytest.raises(BundleError, match="no parts"):
        graph_path(graph(blobs), blobs, tmp_path / "p")
    absent = Blob(digest="sha256:" + "a" * 64, size=1)
    missing = Graph(name="main", format="tflite", parts=(blobs.put([b"1"]), absent))
    with pytest.raises(BundleError, match="missing"):
        graph_path(missing, blobs, tmp_path / "p")
