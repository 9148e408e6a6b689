"""Locks that processes share, and that a child holds on when its parent is killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_sdk.bundle import files


@contextmanager
def held(path: Path, *, shared: bool = False, waiting: Callable[[], None]) -> Iterator[int]:
    """Holds a lock on ``path`` (created where absent), waiting for it if need be.

    Args:
        path: The lock's file; it stays.
        shared: Whether others may hold it, shared, at the same time.
        waiting: Called before waiting for somebody.

    Yields:
        Its descriptor. A process that inherits it holds the lock until it ends, so what
        a killed parent left at work is waited for.
    """
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)
