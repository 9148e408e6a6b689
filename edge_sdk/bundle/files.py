"""Durable files: temporary file, fsync, rename; directory fsync; advisory locks."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edge_sdk.errors import WorkError


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turns the operating system's refusals (disk full, read-only …) into a ``WorkError``."""
    try:
        yield
    except OSError as error:
        raise WorkError(
            f"cannot write: {error.strerror or error}",
            where=str(error.filename or where),
            remedy="check free space and permissions",
        ) from error


@contextmanager
def temporary(folder: Path) -> Iterator[IO[bytes]]:
    """A new file in ``folder`` that is gone after the block unless it was renamed."""
    path = folder / secrets.token_hex(8)
    with writing(folder):
        try:
            file = path.open("xb")
        except OSError as error:
            error.filename = None  # a name that nobody gave
            raise
    try:
        with file:
            yield file
    finally:
        path.unlink(missing_ok=True)


def commit(file: IO[bytes], target: Path) -> None:
    """Makes a temporary file durable and puts it in ``target``'s place at once."""
    with writing(target):
        file.flush()
        os.fsync(file.fileno())
        Path(file.name).replace(target)


def replace(target: Path, data: bytes, folder: Path) -> None:
    """Replaces ``target`` atomically and durably, by way of a temporary file in ``folder``."""
    with writing(target), temporary(folder) as file:
        file.write(data)
        commit(file, target)
    sync(target.parent)


def link(source: Path, target: Path, folder: Path) -> bool:
    """Makes ``target`` a durable hard link to ``source``; ``False`` where that cannot be."""
    path = folder / secrets.token_hex(8)
    try:
        path.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        return False
    try:
        sync(path)
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)
    return True


def sync(path: Path) -> None:
    """Makes a file's bytes, or a directory's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds an exclusive lock on ``path`` (created where absent); released even by SIGKILL.

    Raises:
        WorkError: Another process holds it, and we are not to wait.
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise WorkError(
                "another process is at work here", where=str(path.parent), remedy="let it finish"
            ) from None
        yield
