from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_sdk.bundle.blobs import BlobStore
from edge_sdk.bundle.record import Blob, Graph
from edge_sdk.errors import BundleError, DigestError
from edge_sdk.runtime.prepared import graph_file

PARTS = (b"head", b"x" * 3_000_000, b"tail")


@pytest.fixture
def blobs(tmp_path) -> BlobStore:
    return BlobStore(tmp_path / "bundle")


def graph(blobs: BlobStore, *parts: bytes) -> Graph:
    return Graph(name="main", format="tflite", parts=tuple(blobs.put([part]) for part in parts))


def opened(graph: Graph, blobs: BlobStore, folder: Path) -> Path:
    with graph_file(graph, blobs, folder) as path:
        return path


def damage(path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_one_part_is_opened_where_it_lies(blobs, tmp_path):
    single = graph(blobs, b"all")
    assert opened(single, blobs, tmp_path / "p") == blobs.path(single.parts[0].digest)
    assert not (tmp_path / "p").exists()


def test_several_parts_are_joined_in_order_and_once(blobs, tmp_path):
    several = graph(blobs, *PARTS)
    path = opened(several, blobs, tmp_path / "p")
    assert path.read_bytes() == b"".join(PARTS)
    assert path.suffix == ".tflite"
    before = path.stat()
    assert opened(several, blobs, tmp_path / "p") == path
    assert path.stat().st_ino == before.st_ino
    assert {*path.parent.iterdir()} == {path, path.with_name("lock")}


def test_damaged_joined_file_is_made_again(blobs, tmp_path):
    several = graph(blobs, *PARTS)
    path = opened(several, blobs, tmp_path / "p")
    damage(path)
    assert opened(several, blobs, tmp_path / "p").read_bytes() == b"".join(PARTS)


def test_damaged_part_is_named_and_nothing_is_left(blobs, tmp_path):
    several = graph(blobs, *PARTS)
    damage(blobs.path(several.parts[2].digest))
    with pytest.raises(DigestError) as error:
        opened(several, blobs, tmp_path / "p")
    assert several.parts[2].digest in error.value.where
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["lock"]


def test_missing_part_and_no_parts_are_bundle_errors(blobs, tmp_path):
    with pytest.raises(BundleError, match="no parts"):
        opened(graph(blobs), blobs, tmp_path / "p")
    absent = Blob(digest="sha256:" + "a" * 64, size=1)
    missing = Graph(name="main", format="tflite", parts=(blobs.put([b"1"]), absent))
    with pytest.raises(BundleError, match="missing"):
        opened(missing, blobs, tmp_path / "p")


def test_where_nothing_may_be_written_a_temporary_file_is_joined(blobs, tmp_path):
    several = graph(blobs, *PARTS)
    folder = tmp_path / "p"
    folder.write_bytes(b"in the way: root may write into any folder")
    with graph_file(several, blobs, folder) as path:
        assert path.read_bytes() == b"".join(PARTS)
        assert not path.is_relative_to(tmp_path / "bundle")
    assert not path.parent.exists()


def test_what_a_killed_process_was_joining_is_swept(blobs, tmp_path):
    several = graph(blobs, *PARTS)
    script = (
        "import os, sys\n"
        "from edge_sdk.bundle import files\n"
        "from tests.runtime import test_joined as t\n"
        "files.commit = lambda file, target: os._exit(9)\n"
        "blobs = t.BlobStore(t.Path(sys.argv[1]))\n"
        "t.opened(t.graph(blobs, *t.PARTS), blobs, t.Path(sys.argv[2]))\n"
    )
    for part in PARTS:
        blobs.put([part])
    killed = subprocess.run(
        [sys.executable, "-c", script, str(blobs.root), str(tmp_path / "p")], check=False
    )
    assert killed.returncode == 9
    assert [*(tmp_path / "p" / "joining").iterdir()]
    path = opened(several, blobs, tmp_path / "p")
    assert path.read_bytes() == b"".join(PARTS)
    assert not (tmp_path / "p" / "joining").exists()
