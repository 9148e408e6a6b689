"""This process's memory, in bytes (Linux ``/proc``)."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Collection, Container, Iterable
from contextlib import suppress
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


def named(files: Container[str]) -> set[tuple[int, int]]:
    """Where in this process files of these names, without folders, are mapped."""
    lines = (SELF / "maps").read_text().splitlines()
    return {_range(line) for line in lines if line.rpartition("/")[2] in files}


def read_no_more_than_asked(
    files: Container[str], others: Collection[tuple[int, int]] = ()
) -> tuple[tuple[int, int], ...]:
    """Tells the kernel to read single pages of mapped files, and not their neighbours too.

    For tables of which a call needs few rows: what is read ahead of them crowds out,
    under a memory limit, what every call needs.

    Args:
        files: Names, without folders.
        others: Ranges that are somebody else's, of :func:`named`.

    Returns:
        Where else they are mapped: begin and end of each range.
    """
    found = tuple(sorted(named(files).difference(others)))
    _advise(found, mmap.MADV_RANDOM)
    return found


def leave(ranges: Iterable[tuple[int, int]]) -> None:
    """Takes pages of mapped files out of this process; what is touched again is mapped again.

    The kernel maps the pages around one that is read, too, if it has them at hand.

    Args:
        ranges: Mapped for as long as this takes, and never written.
    """
    _advise(ranges, mmap.MADV_DONTNEED)


def mappings(file: Path) -> set[tuple[int, int]]:
    """Where in this process a file is mapped: begin and end of each range."""
    name = f" {file.resolve()}"
    return {
        _range(line) for line in (SELF / "maps").read_text().splitlines() if line.endswith(name)
    }


def drop_pages(file: Path, ranges: Iterable[tuple[int, int]]) -> None:
    """Takes a mapped file's pages out of memory, and has no more read than asked for.

    What is touched again is read again: that page alone, not its neighbours, nor the
    megabytes around it that the kernel can map at once.

    Args:
        file: The file; what other processes map of it stays.
        ranges: Of :func:`mappings`, mapped for reading only, by this thread's own doing: a
            range that another thread unmaps meanwhile would be another one's memory.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "madvise"):
        for begin, end in ranges:
            for advice in (mmap.MADV_DONTNEED, mmap.MADV_RANDOM, mmap.MADV_NOHUGEPAGE):
                library.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice)
    with file.open("rb") as opened:  # under a memory limit, the cache of files is charged too
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def drop_code() -> None:
    """Takes the code of all libraries out of memory; what still runs is mapped again.

    Starting Python, importing and opening a model run code that nothing needs afterwards, and
    some libraries touch all of theirs when they are loaded.
    """
    library = ctypes.CDLL(None)
    # On emulated 32-bit ARM, asking for a library that is loaded already ended the process.
    if not hasattr(library, "madvise") or ctypes.sizeof(ctypes.c_void_p) < 8:
        return
    kept, lines = _kept_libraries(), (SELF / "maps").read_text().splitlines()
    # Emulated CPUs: there, the other file may tell of the emulator, at addresses of its own.
    own = {_range(line) for line in lines if line[line.find("/") :] in kept}
    for mapping in re.split(r"VmFlags:.*\n", (SELF / "smaps").read_text()):
        head, _, rest = mapping.partition("\n")
        if head[head.find("/") :] not in kept or head.split()[1] not in ("r-xp", "r--p"):
            continue
        if _range(head) not in own:
            continue
        sizes = dict(line.split()[:2] for line in rest.splitlines())
        # Pages that were written (relocations) are the process's own, here or swapped out.
        if sizes.get("Anonymous:") == sizes.get("Swap:") == "0" != sizes.get("Rss:", "0"):
            begin, end = _range(head)
            size = ctypes.c_size_t(end - begin)
            library.madvise(ctypes.c_void_p(begin), size, mmap.MADV_DONTNEED)


def _kept_libraries() -> set[str]:
    """The files of code that are mapped for as long as the process lives: none is unloaded now.

    Else another thread could unload one, and something else be where it was.
    """
    lines = (SELF / "maps").read_text().splitlines()
    mapped = {line[line.find("/") :] for line in lines if " r-xp " in line and "/" in line}
    kept = mapped & {os.path.realpath(SELF / "exe")}
    for path in mapped - kept:
        with suppress(OSError):  # mapped by something else than the dynamic linker
            ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_NOLOAD | os.RTLD_NODELETE)
            kept.add(path)
    return kept


def _advise(ranges: Iterable[tuple[int, int]], advice: int) -> None:
    library = ctypes.CDLL(None)
    if hasattr(library, "madvise"):
        for begin, end in ranges:
            library.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice)


def _range(line: str) -> tuple[int, int]:
    begin, end = line.partition(" ")[0].split("-")
    return int(begin, 16), int(end, 16)


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise WorkError(f"this kernel does not report {name}", where=str(path))
