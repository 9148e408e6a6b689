"""This process's memory, in bytes (Linux ``/proc``)."""

from __future__ import annotations

import ctypes
from pathlib import Path

from edge_sdk.errors import WorkError

SELF = Path("/proc/self")


def rss() -> int:
    """Resident memory now, shared pages counted in full."""
    return _field(SELF / "status", "VmRSS")


def anonymous() -> int:
    """Resident memory now that no file backs: heaps, stacks, pages copied on write."""
    return _field(SELF / "status", "RssAnon")


def peak_rss() -> int:
    """Largest resident memory since the process began (or since the last reset)."""
    return _field(SELF / "status", "VmHWM")


def pss() -> int:
    """Resident memory now, each shared page divided among the processes that map it."""
    return _field(SELF / "smaps_rollup", "Pss")


def trim() -> None:
    """Gives free heap back to the kernel, where the C library can (glibc)."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise WorkError(f"this kernel does not report {name}", where=str(path))
