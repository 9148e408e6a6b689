"""Control groups (version 1): a board's memory and its slow storage, on a larger machine.

Under a memory limit the page cache is charged too: pages of a file belong to the
group that first reads them, so files are dropped from the cache beforehand. Reads
are throttled at the block device, below the page cache.
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
    """Folders of one group, one per controller."""

    folders: tuple[Path, ...]

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words before a command that put it into the group."""
        enter = "; ".join(f"echo $$ > {folder}/cgroup.procs" for folder in self.folders)
        return "sh", "-c", f'{enter}; exec "$@"', "sh"

    @property
    def hits(self) -> int:
        """How often the memory limit was reached and pages had to go."""
        return int(self._memory("memory.failcnt"))

    @property
    def peak(self) -> int:
        """Largest memory charged, page cache included, in bytes."""
        return int(self._memory("memory.max_usage_in_bytes"))

    @property
    def kills(self) -> int:
        """Processes that the kernel killed because nothing could go."""
        lines = dict(line.split() for line in self._memory("memory.oom_control").splitlines())
        return int(lines["oom_kill"])

    def _memory(self, name: str) -> str:
        [folder] = (f for f in self.folders if f.parent.name == "memory")
        return (folder / name).read_text()


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
    settings: dict[str, dict[str, object]] = {}
    if memory is not None:
        settings["memory"] = {"memory.limit_in_bytes": memory, "memory.swappiness": 0}
    if read_bytes_per_second is not None:
        device = Path("/").stat().st_dev
        rule = f"{os.major(device)}:{os.minor(device)} {read_bytes_per_second}"
        settings["blkio"] = {"blkio.throttle.read_bps_device": rule}
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
    for controller in ("memory", "blkio"):
        if not os.access(ROOT / controller / "cgroup.procs", os.W_OK):
            return f"{ROOT / controller} is not writable (control groups version 1, as root)"
    return None


def evict(paths: Iterable[Path]) -> None:
    """Drops files from the page cache, folders with all that is in them."""
    os.sync()  # only clean pages can be dropped
    for path in paths:
        for file in path.rglob("*") if path.is_dir() else (path,):
            if file.is_file():
                _evict_file(file)


def _evict_file(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
