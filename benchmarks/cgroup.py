"""Control groups: a board's memory and its slow storage, on a larger machine.

Under a memory limit the page cache is charged too: pages of a file belong to the
group that first reads them, so files are dropped from the cache beforehand. Reads
are throttled at the block device, below the page cache. Groups are those of version 1, a
hierarchy per controller, where there are any; else those of version 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Group:
    """Folders of one group: one in version 2, one per controller in version 1."""

    folders: tuple[Path, ...]

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that put it into the group."""
        enter = "; ".join(f"echo $$ > {folder}/cgroup.procs" for folder in self.folders)
        return "sh", "-c", f'{enter}; exec "$@"', "sh"

    @property
    def hits(self) -> int:
        """How often the memory limit was reached and pages had to go."""
        return int(self._counter("memory.failcnt") or self._counter("memory.events", "max"))

    @property
    def peak(self) -> int:
        """Largest memory charged, page cache included, in bytes."""
        return int(self._counter("memory.max_usage_in_bytes") or self._counter("memory.peak"))

    @property
    def kills(self) -> int:
        """Processes that the kernel killed because nothing could go."""
        old = self._counter("memory.oom_control", "oom_kill")
        return int(old or self._counter("memory.events", "oom_kill"))

    @property
    def swapped(self) -> int:
        """Bytes in swap now."""
        return int(self._counter("memory.stat", "swap") or self._counter("memory.swap.current"))

    def _counter(self, file: str, key: str = "") -> str:
        """A file's number, or that of a line; empty where this version has no such file."""
        for folder in self.folders:
            if (folder / file).exists():
                text = (folder / file).read_text()
                return dict(line.split() for line in text.splitlines())[key] if key else text
        return ""


@contextmanager
def limited(
    name: str, *, memory: int | None = None, read_bytes_per_second: int | None = None
) -> Iterator[Group]:
    """A group for some processes, removed afterwards; they must have ended by then.

    Args:
        name: Of the group.
        memory: Most it may use, page cache included, in bytes; there is no swap beyond it.
        read_bytes_per_second: Throttles reads from the device that ``/`` is on.
    """
    settings = _settings(memory, read_bytes_per_second)
    folders = []
    try:
        for controller, values in settings.items():
            folder = ROOT / controller / name
            folder.mkdir()
            folders.append(folder)
            for key, value in values.items():
                (folder / key).write_text(str(value))
        yield Group(tuple(folders))
    finally:
        for folder in folders:
            folder.rmdir()


def unavailable() -> str | None:
    """Why groups cannot be made here, or ``None``."""
    needed = ("memory", "blkio") if _first_version() else (".",)
    for controller in needed:
        if not os.access(ROOT / controller / "cgroup.procs", os.W_OK):
            return f"{ROOT / controller} is not writable (control groups need root)"
    if not _first_version() and not _delegated("memory", "io"):
        return f"{ROOT} does not hand memory and io on to its groups (cgroup.subtree_control)"
    return None


def evict(paths: Iterable[Path]) -> None:
    """Drops files from the page cache, folders with all that is in them."""
    os.sync()  # only clean pages can be dropped
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else (path,):
            if file.is_file():
                _evict_file(file)


def _settings(
    memory: int | None, read_bytes_per_second: int | None
) -> dict[str, dict[str, object]]:
    """What is written into which controller's folder, in order."""
    device = Path("/").stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    found: dict[str, dict[str, object]] = {}
    if _first_version():
        if memory is not None:
            found["memory"] = {"memory.limit_in_bytes": memory, "memory.swappiness": 0}
        if read_bytes_per_second is not None:
            rule = f"{number} {read_bytes_per_second}"
            found["blkio"] = {"blkio.throttle.read_bps_device": rule}
        return found
    found["."] = {}
    if memory is not None:
        found["."] |= {"memory.max": memory, "memory.swap.max": 0}
    if read_bytes_per_second is not None:
        found["."] |= {"io.max": f"{number} rbps={read_bytes_per_second}"}
    return found


def _first_version() -> bool:
    return (ROOT / "memory").is_dir()


def _delegated(*controllers: str) -> bool:
    file = ROOT / "cgroup.subtree_control"
    return file.exists() and set(controllers) <= set(file.read_text().split())


def _evict_file(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
