"""Reads what the Linux kernel says about a machine below a root folder. Nothing is measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edge_sdk.errors import ProfileError

MIB = 1024 * 1024
# cgroup v1 controller -> the files that hold its limit; v2 has one folder for all.
_V1_MEMORY = "memory.limit_in_bytes"
_V1_QUOTA, _V1_PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"


def cpu_features(root: Path) -> frozenset[str]:
    """Features that every core has (the cores of a big.LITTLE machine differ)."""
    lines = [
        frozenset(value.split())
        for key, value in _cpuinfo(root)
        if key in ("flags", "Features")  # x86 and ARM
    ]
    return frozenset.intersection(*lines) if lines else frozenset()


def cpu_count(root: Path) -> int:
    """Cores that are online."""
    return sum(key == "processor" for key, _ in _cpuinfo(root)) or 1


def machine_title(root: Path) -> str:
    """The board's name where the kernel knows it, else the CPU's, else an empty string."""
    board = _read(root / "proc/device-tree/model").strip("\0\n ")
    names = dict(_cpuinfo(root))
    return board or names.get("Model") or names.get("model name") or ""


def memory_mib(root: Path) -> int:
    """Memory this process may use: what the kernel manages, or a smaller cgroup limit.

    Raises:
        ProfileError: The kernel does not say.
    """
    meminfo = root / "proc/meminfo"
    found = re.search(r"^MemTotal:\s+(\d+) kB", _read(meminfo), re.MULTILINE)
    if found is None:
        raise ProfileError("does not say MemTotal", where=str(meminfo), remedy="mount /proc")
    total = int(found[1]) * 1024
    limits = [
        int(text)
        for folder in _cgroup_folders(root, "memory")
        for name in ("memory.max", _V1_MEMORY)
        if (text := _read(folder / name).strip()).isdigit()  # v2 says "max" for no limit
    ]
    return min([total, *limits]) // MIB


def cpu_quota(root: Path) -> float | None:
    """CPUs' worth of time that cgroups grant this process, or ``None`` without a limit."""
    grants = []
    for folder in _cgroup_folders(root, "cpu"):
        v1 = f"{_read(folder / _V1_QUOTA).strip()} {_read(folder / _V1_PERIOD).strip()}"
        for text in (_read(folder / "cpu.max"), v1):
            words = text.split()  # "max 100000", "150000 100000"; v1 has -1 for no limit
            if len(words) == 2 and words[0].isdigit():
                grants.append(int(words[0]) / int(words[1]))
    return min(grants, default=None)


def last_level_cache_bytes(root: Path) -> int:
    """Size of the largest cache; 0 where the kernel does not say (many ARM boards)."""
    units = {"K": 1024, "M": MIB}
    sizes = [
        int(text[:-1]) * units[text[-1]]
        for index in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*")
        if (text := _read(index / "size").strip())[-1:] in units
    ]
    return max(sizes, default=0)


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """This process's cgroup and its ancestors: each of them may set a limit.

    Inside a container the path that the kernel reports may lie outside what is
    mounted here; folders that do not exist read as "no limit".
    """
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = mount / controllers if controllers else mount
        if controllers and not top.is_dir():
            top = mount / controller
        folder = top / path.lstrip("/")
        yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(top)))


def _cpuinfo(root: Path) -> Iterator[tuple[str, str]]:
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


def _read(path: Path) -> str:
    """The file's text; empty where the kernel does not offer the file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
