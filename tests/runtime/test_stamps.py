"""Stamps: what was hashed and not touched since is trusted, anything else is hashed again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from edge_sdk.errors import DigestError
from edge_sdk.runtime.prepared import stamps
from edge_sdk.runtime.prepared.stamps import Stamps

CONTENT = b"weights" * 1000
DIGEST = f"sha256:{sha256(CONTENT).hexdigest()}"


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A file that counts as left alone for long enough."""
    monkeypatch.setattr(stamps, "SETTLED_NS", 0)
    (tmp_path / "kept").mkdir()
    path = tmp_path / "weight"
    path.write_bytes(CONTENT)
    return path


def load(path: Path, **options: bool) -> int:
    """How often one load hashes the file.

    Raises:
        DigestError: As the hash says.
    """
    hashed = 0

    def hash_file() -> None:
        nonlocal hashed
        hashed += 1
        if sha256(path.read_bytes()).hexdigest() != DIGEST.removeprefix("sha256:"):
            raise DigestError("does not match its digest", where=str(path))

    known = Stamps(kept(path), **options)
    for _ in range(2):
        known.verify(path, DIGEST, hash_file)
    known.save(path.parent)
    return hashed


def kept(path: Path) -> Path:
    return path.parent / "kept" / "stamps"


def with_times_of(path: Path, old: os.stat_result) -> None:
    """Sets the times back, as far as a program can, once the kernel's clock has moved on."""
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    while path.stat().st_ctime_ns == old.st_ctime_ns:
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert path.stat().st_mtime_ns == old.st_mtime_ns
    assert path.stat().st_size == old.st_size


def test_file_that_nobody_touched_is_hashed_once(file):
    assert [load(file) for _ in range(3)] == [1, 0, 0]


def test_always_hashes_once_per_load_and_leaves_a_stamp(file):
    assert [load(file, trusted=False) for _ in range(2)] == [1, 1]
    assert load(file) == 0


def test_flipped_byte_is_found_though_the_time_was_set_back(file):
    load(file)
    old = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"W")
    with_times_of(file, old)
    with pytest.raises(DigestError):
        load(file)


def test_replaced_file_is_found_though_its_times_are_the_same(file):
    load(file)
    old, other = file.stat(), file.with_name("other")
    other.write_bytes(CONTENT.upper())
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    other.replace(file)
    with pytest.raises(DigestError):
        load(file)


def test_stamp_of_another_inode_does_not_count(file):
    load(file)
    copy = Path(shutil.copy2(file, file.with_name("copy")))
    assert load(copy) == 1


def test_file_that_has_just_been_written_gets_no_stamp(file, monkeypatch):
    monkeypatch.setattr(stamps, "SETTLED_NS", 10**12)
    assert [load(file) for _ in range(2)] == [2, 2]
    assert not kept(file).exists()


def test_file_that_changes_while_it_is_hashed_gets_no_stamp(file):
    known = Stamps(kept(file))
    known.verify(file, DIGEST, lambda: with_times_of(file, file.stat()))
    known.save(file.parent)
    assert load(file) == 1


def test_file_that_is_missing_is_left_to_the_hash_to_say(file):
    load(file)
    file.unlink()
    with pytest.raises(FileNotFoundError):
        load(file)


def test_stamps_that_are_torn_or_of_another_kind_count_as_none(file):
    load(file)
    whole = kept(file).read_bytes()
    others = [whole.replace(b"stamps/1", b"stamps/2"), b"\xc7", b"[" * 100_000]
    for data in (*(whole[:end] for end in range(len(whole))), *others):
        kept(file).write_bytes(data)
        assert load(file) == 1
    assert kept(file).read_bytes() == whole


def test_stamps_that_cannot_be_kept_cost_only_time(file):
    kept(file).parent.rmdir()
    assert [load(file) for _ in range(2)] == [1, 1]


def test_stamps_of_files_that_are_not_asked_for_any_more_are_dropped(file):
    load(file)
    known = Stamps(kept(file))
    known.verify(file, "sha256:" + "1" * 64, lambda: None)
    known.save(file.parent)
    assert load(file) == 1


def test_killed_while_they_are_written_old_or_new_ones_remain(file):
    """At every call that opens, renames or removes a file, in a process without an engine."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edge_sdk.runtime.prepared import stamps\n"
        "from tests.bundle.killing import killed\n"
        "stamps.SETTLED_NS = 0\n"
        "file, kept, number, alive = Path(sys.argv[1]), Path(sys.argv[2]), 1, False\n"
        "def save(digest):\n"
        "    known = stamps.Stamps(kept)\n"
        "    known.verify(file, digest, lambda: None)\n"
        "    known.save(kept.parent)\n"
        "def known(): return set(stamps.Stamps(kept)._kept)\n"
        "while not alive:\n"
        "    save('old')\n"
        "    assert known() == {'old'}\n"
        "    alive = not killed(number, lambda: save('new'), str(kept.parent))\n"
        "    assert known() in ({'old'}, {'new'})\n"
        "    assert not alive or known() == {'new'}\n"
        "    number += 1\n"
        "print(number - 2)"
    )
    command = [sys.executable, "-c", code, file, kept(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
