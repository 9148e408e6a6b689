"""Which files were hashed before and have not been touched since: loading then trusts them.

A stamp is what the file system says of a file: where it is, how long, when last written
and when last changed in any way. The last of these no program can set back, so a file that
was replaced, rewritten or moved here has another stamp, or none, and is hashed again. A
stamp cannot tell that a storage cell has lost a bit, which changes no time.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from edge_sdk.bundle import files
from edge_sdk.bundle.record import Frozen
from edge_sdk.errors import WorkError

Verify = bool | Literal["always"]
"""Whether files are hashed before they are used: no, unless their stamp is known, or always."""
SCHEMA = "org.edge-sdk.stamps/1"
# A file changed twice within one tick of the file system's clock (FAT's is the longest) shows one
# time for both, so only a file that has been left alone for longer gets a stamp.
SETTLED_NS = 2_000_000_000


class Stamp(Frozen, frozen=True, kw_only=True):
    """One file, as it was when its bytes had the digest.

    Attributes:
        device: The file system it is on.
        inode: Its number there.
        size: In bytes.
        written: When its bytes last changed, in ns; programs can set it.
        changed: When its bytes, name or attributes last did; only the kernel sets it.
    """

    device: int
    inode: int
    size: int
    written: int
    changed: int

    @staticmethod
    def of(path: Path) -> Stamp | None:
        """The file's stamp now; ``None`` where there is no regular file."""
        try:
            found = path.lstat()
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return Stamp(
            device=found.st_dev,
            inode=found.st_ino,
            size=found.st_size,
            written=found.st_mtime_ns,
            changed=found.st_ctime_ns,
        )


class _File(Frozen, frozen=True, kw_only=True):
    """What is kept: digest -> stamp."""

    stamps: dict[str, Stamp]
    schema: str = SCHEMA


class Stamps:
    """The stamps of one graph's files, kept from load to load. For one thread.

    Args:
        path: Where they are kept. What cannot be read there counts as nothing known.
        trusted: Whether to begin with what is kept, and not with nothing.
    """

    def __init__(self, path: Path, *, trusted: bool = True) -> None:
        self._path = path
        self._kept = _read(path) if trusted else {}
        self._seen: dict[str, Stamp] = {}

    def verify(self, path: Path, digest: str, hash_file: Callable[[], None]) -> None:
        """Has a file hashed unless it is known to be what it was when it last was.

        Args:
            path: The file.
            digest: What its bytes should hash to.
            hash_file: Hashes them, and raises where they are something else.
        """
        before = Stamp.of(path)
        if before is None or before not in (self._seen.get(digest), self._kept.get(digest)):
            hash_file()
            if before is None or before != Stamp.of(path):
                return
            if before.changed > time.time_ns() - SETTLED_NS:
                return
        self._seen[digest] = before

    def save(self, folder: Path) -> None:
        """Keeps the stamps of the files that were asked for; where it cannot, nothing is lost.

        Args:
            folder: For the temporary file, on the same file system.
        """
        if self._seen != self._kept:
            data = msgspec.json.encode(_File(stamps=self._seen))
            with suppress(OSError, WorkError):
                files.replace(self._path, data, folder)


def _read(path: Path) -> dict[str, Stamp]:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found.stamps if found.schema == SCHEMA else {}
