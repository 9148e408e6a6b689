"""What this process asks of the kernel."""

import ctypes
import mmap
from pathlib import Path

import numpy as np

from edge_sdk.runtime import process


def flags_of(name: str) -> list[str]:
    """``VmFlags`` of the mapping of a file."""
    found, inside = [], False
    for line in (process.SELF / "smaps").read_text().splitlines():
        key = line.split()[0]
        if not key.endswith(":"):
            inside = line.endswith(name)
        elif key == "VmFlags:" and inside:
            found = line.split()[1:]
    return found


def test_nothing_is_read_ahead_of_rows_of_the_named_files_alone(tmp_path):
    for name in ("table", "other"):
        (tmp_path / name).write_bytes(bytes(8 * mmap.PAGESIZE))
    with (
        (tmp_path / "table").open("rb") as table,
        (tmp_path / "other").open("rb") as other,
        mmap.mmap(table.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        mmap.mmap(other.fileno(), 0, prot=mmap.PROT_READ),
    ):
        process.read_no_more_than_asked({"table"})
        assert "rr" in flags_of(f"{tmp_path}/table")
        assert flags_of(f"{tmp_path}/other") and "rr" not in flags_of(f"{tmp_path}/other")
        assert mapped[0] == 0


def code_in_memory(folder: Path) -> int:
    """Resident KiB of the code of libraries in a folder."""
    found, inside = 0, False
    for line in (process.SELF / "smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            inside = words[1] == "r-xp" and words[-1].startswith(f"{folder}/")
        elif words[0] == "Rss:" and inside:
            found += int(words[1])
    return found


def test_dropped_code_leaves_memory_and_still_runs() -> None:
    folder = Path(np.__file__).resolve().parent / "_core"
    rows = np.arange(6.0)
    expected = np.sort(np.exp(rows))
    assert code_in_memory(folder) > 0
    process.drop_code()
    assert code_in_memory(folder) == 0
    assert np.array_equal(np.sort(np.exp(rows)), expected)


def test_only_code_is_dropped(tmp_path: Path) -> None:
    """A file that is mapped to be run as little as one that is mapped to be read."""
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 16)
    with (
        (tmp_path / "weights").open("rb") as file,
        mmap.mmap(
            file.fileno(),
            0,
            flags=mmap.MAP_PRIVATE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
        ) as mapped,
    ):
        mapped[0] = 7  # the process's own from now on
        library = ctypes.CDLL(None)
        place = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert library.mprotect(ctypes.c_void_p(place), 4096, mmap.PROT_READ | mmap.PROT_EXEC) == 0
        process.drop_code()
        assert mapped[0] == 7
