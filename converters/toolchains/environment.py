"""A toolchain's environment: where it is, whether it is whole, how it is built, used, removed.

It is a virtual environment in the user's cache folder, in a folder named by the digest of its
pins. Such an environment cannot be moved, so it is built where it will be, under a lock, and
the file ``.complete`` is what makes it one: written last, removed first. A folder without it
is what somebody left who was killed, and is built anew. Whoever calls a tool holds the lock
shared, so that nobody removes what is in use.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from converters.toolchains import interpreters, pip, process
from converters.toolchains.locks import held
from converters.toolchains.process import Progress
from converters.toolchains.spec import Toolchain
from edge_sdk.bundle import files
from edge_sdk.errors import ToolchainError

State = Literal["installed", "absent", "torn"]

MARKER = ".complete"
_SPARE = 1.5  # pip keeps what it downloads beside what it unpacks


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """What ``.complete`` holds.

    Attributes:
        digest: Of the toolchain's pins.
        python: Version it was built with.
        packages: What is installed, as ``name==version``.
        size_bytes: Disk space taken when it was complete.
    """

    digest: str
    python: str
    packages: tuple[str, ...]
    size_bytes: int


def cache_folder() -> Path:
    """Where edge-sdk keeps what can be built again: ``EDGE_SDK_CACHE``, or the user's cache."""
    if own := os.environ.get("EDGE_SDK_CACHE"):
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).absolute() if base else Path.home() / ".cache") / "edge-sdk"


def home() -> Path:
    """The folder of all environments."""
    return cache_folder() / "toolchains"


class Environment:
    """A toolchain's place on this machine.

    Args:
        toolchain: The toolchain.
    """

    def __init__(self, toolchain: Toolchain) -> None:
        self.toolchain = toolchain
        self.folder = home() / f"{toolchain.name}-{toolchain.digest[:12]}"
        self._where = f"toolchain {toolchain.name!r}"

    @property
    def python(self) -> Path:
        """The environment's Python."""
        return self.folder / "bin" / "python"

    @property
    def marker(self) -> Marker | None:
        """What is known of it where it is complete."""
        with suppress(OSError, msgspec.MsgspecError):
            marker = msgspec.json.decode((self.folder / MARKER).read_bytes(), type=Marker)
            # The Python it was built on may have been uninstalled since.
            if marker.digest == self.toolchain.digest and self.python.exists():
                return marker
        return None

    @property
    def state(self) -> State:
        """Whether it is there: ``torn`` where a build was cut off, or its Python is gone."""
        if self.marker is not None:
            return "installed"
        return "torn" if self.folder.exists() else "absent"

    def install(self, progress: Progress, wheels: Path | None = None) -> Marker:
        """Builds it, unless it is there already; waits where another process is at that.

        Args:
            progress: Told how far it is.
            wheels: A folder of wheels to take in place of any index.

        Raises:
            ToolchainError: No Python fits, space is short, or pip failed; nothing is left.
        """
        if marker := self.marker:
            return marker
        with self._locked(progress) as lock:
            if marker := self.marker:
                return marker
            with files.writing(self.folder):
                return self._build(progress, wheels, lock)

    def call(
        self,
        tool: str,
        request: Mapping[str, Any],
        progress: Progress,
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Calls a tool; builds the environment first where it is not there.

        Args:
            tool: Function of the toolchain's script.
            request: What it is given: whatever JSON can say.
            progress: Told how far building and the tool are.
            timeout: Seconds that the tool may take.

        Returns:
            What the tool returned.

        Raises:
            ToolchainError: The environment cannot be built, or the tool failed.
        """
        while True:
            self.install(progress)
            with self._locked(progress, shared=True) as lock:
                if self.marker is None:
                    continue  # removed in between
                return process.call(
                    self.python,
                    self.toolchain.script,
                    tool,
                    request,
                    progress,
                    where=self._where,
                    timeout=timeout,
                    keep=(lock,),
                )

    def cached(self, key: str, make: Callable[[Path], None], progress: Progress) -> Path:
        """A folder that a tool filled once, kept until the toolchain is removed.

        Args:
            key: What decides its content.
            make: Fills a new folder; what it raises leaves nothing.
            progress: Told where another process is at the same.
        """
        self.install(progress)
        cache = self.folder / "cache"
        name = hashlib.sha256(key.encode()).hexdigest()[:24]

        def waiting() -> None:
            progress(f"{self._where}: waiting for another process that makes the same")

        with held(cache / f"{name}.lock", waiting=waiting):
            if not (cache / name).is_dir():
                with tempfile.TemporaryDirectory(dir=cache) as folder:
                    make(Path(folder))
                    Path(folder).rename(cache / name)
        return cache / name

    @contextmanager
    def _locked(self, progress: Progress, *, shared: bool = False) -> Iterator[int]:
        def waiting() -> None:
            progress(f"{self._where}: waiting for another process that builds it or uses it")

        with held(_lock(self.folder), shared=shared, waiting=waiting) as lock:
            yield lock

    def _build(self, progress: Progress, wheels: Path | None, lock: int) -> Marker:
        toolchain = self.toolchain
        _remove(self.folder)
        self._check_space()
        base = interpreters.choose(toolchain.python, toolchain.name)
        progress(f"{self._where}: building its environment on Python {base}")
        try:
            self._make_venv(base.path)
            pip.install(self.python, toolchain, progress, wheels=wheels, keep=(lock,))
            progress(f"{self._where}: checking")
            marker = Marker(
                digest=toolchain.digest,
                python=str(base),
                packages=tuple(self._packages()),
                size_bytes=disk_usage(self.folder),
            )
            files.replace(self.folder / MARKER, msgspec.json.encode(marker), self.folder)
        except BaseException:
            _remove(self.folder)
            raise
        return marker

    def _make_venv(self, base: Path) -> None:
        done = subprocess.run(
            [str(base), "-I", "-m", "venv", str(self.folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=process.clean_environment(),
        )
        if done.returncode:
            raise ToolchainError(
                f"no environment can be made: {(done.stderr or done.stdout).strip()[-300:]}",
                where=str(base),
                remedy="install that Python's venv package, or another Python",
            )

    def _packages(self) -> list[str]:
        found = self.folder.glob("lib/python*/site-packages/*.dist-info")
        pairs = (folder.name.removesuffix(".dist-info").rpartition("-") for folder in found)
        return sorted(f"{name}=={version}" for name, _, version in pairs)

    def _check_space(self) -> None:
        free = shutil.disk_usage(home()).free
        needed = int(_SPARE * self.toolchain.size_bytes)
        if free < needed:
            raise ToolchainError(
                f"needs about {needed / 1e9:.1f} GB of space, there are {free / 1e9:.1f} GB",
                where=str(home()),
                remedy="free some, remove other toolchains (`edge-sdk toolchain ls`), or set "
                "EDGE_SDK_CACHE to a folder on a larger disk",
            )


def leftovers(known: Iterable[Environment]) -> tuple[Path, ...]:
    """Environments whose pins no known toolchain has: of other versions, or of plug-ins gone."""
    folders = {environment.folder for environment in known}
    found = (path for path in home().glob("*-" + "[0-9a-f]" * 12) if path.is_dir())
    return tuple(sorted(path for path in found if path not in folders))


def remove(folder: Path) -> int:
    """Removes an environment and what it cached; gives the bytes that were freed.

    Raises:
        ToolchainError: It is in use.
    """

    def refuse() -> None:
        raise ToolchainError("is in use", where=str(folder), remedy="let its user finish")

    with held(_lock(folder), waiting=refuse), files.writing(folder):
        freed = disk_usage(folder)
        _remove(folder)
    return freed


def disk_usage(folder: Path) -> int:
    """Bytes on disk below a folder; a file with several names counts once."""
    seen: set[int] = set()
    total = 0
    for home, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found = os.lstat(os.path.join(home, name))  # noqa: PTH118  # 30,000 files
                if found.st_ino not in seen:
                    seen.add(found.st_ino)
                    total += found.st_blocks * 512
    return total


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove(folder: Path) -> None:
    """Removes an environment, the mark of its completeness first."""
    if folder.is_symlink() or not folder.exists():
        folder.unlink(missing_ok=True)
        return
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder)
