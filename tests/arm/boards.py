"""Emulated ARM cores: an ARM Python of ``make_root.sh`` on a core of qemu's, as a program to run.

A root is made once per set of versions, in the user's cache folder. Each board is a folder of
links into a root beside a ``/proc/cpuinfo`` of its own, which must say what the core has:
engines choose their kernels by it, and a kernel that the core lacks ends the process by SIGILL.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.programs import require

REPOSITORY = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("make_root.sh")
# What both sides compare must come from the same versions; 32-bit ARM has this engine only.
ENGINES = {"arm64": ("onnxruntime", "ai-edge-litert"), "armhf": ()}
TFLITE_RUNTIME = "tflite-runtime==2.14.0"
PATIENCE = 240.0  # seconds; an emulated Python starts in one to three


@dataclass(frozen=True)
class Core:
    """A core.

    Attributes:
        name: As qemu knows it.
        architecture: Debian's name of its architecture.
        part: Its number, as the kernel shows it.
        features: As the kernel shows them.
    """

    name: str
    architecture: str
    part: str
    features: str

    @property
    def cpuinfo(self) -> str:
        """``/proc/cpuinfo`` of a board with four of them."""
        lines = {
            "model name": self.name,  # 32-bit kernels only, which some libraries look for
            "Features": self.features,
            "CPU implementer": "0x41",
            "CPU architecture": "8" if self.architecture == "arm64" else "7",
            "CPU variant": "0x0",
            "CPU part": self.part,
            "CPU revision": "4",
        }
        if self.architecture == "arm64":
            del lines["model name"]
        told = "".join(f"{key}\t: {value}\n" for key, value in lines.items())
        return "".join(f"processor\t: {number}\n{told}\n" for number in range(4))


_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V8_2 = f"{_V8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"
_V7 = "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm"

A53 = Core("cortex-a53", "arm64", "0xd03", _V8)
A76 = Core("cortex-a76", "arm64", "0xd0b", _V8_2)
# int8 matrix products; without SME, whose emulation computes wrong ones.
NEWEST = Core("max,sme=off", "arm64", "0xd4f", f"{_V8_2} i8mm bf16")
A7 = Core("cortex-a7", "armhf", "0xc07", _V7)

# The core that a profile is for.
BOARDS = {"board-512mb": A53, "arm64": A76, "armv7-512mb": A7}


@dataclass(frozen=True)
class Board:
    """A board whose Python can be run from here, and by the board itself.

    Attributes:
        folder: What it takes for ``/``, as far as things are there; else this machine's.
        core: What it has.
    """

    folder: Path
    core: Core

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "python"

    def run(
        self, *arguments: object, check: bool = True, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Runs its Python with arguments; its working folder is this repository."""
        done = subprocess.run(
            [self.python, *map(str, arguments)],
            env=self.environment, cwd=REPOSITORY, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, f"{done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def edge_sdk(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs ``edge-sdk``."""
        return self.run("-m", "edge_sdk.cli.main", *arguments, check=check)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are told."""
        return os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
        }


def make_board(folder: Path, core: Core) -> Board:
    """Makes the folder of a board."""
    root = _root(core.architecture)
    for entry in root.iterdir():
        (folder / entry.name).symlink_to(entry)
    (folder / "proc").mkdir()
    (folder / "proc" / "cpuinfo").write_text(core.cpuinfo)
    board = Board(folder, core)
    # Named as `sys.executable`, so that what it starts by that is emulated too. Its home is given
    # because qemu looks up statx(2), which 32-bit ARM uses throughout, outside of the folder.
    board.python.write_text(
        f"#!/bin/sh\nulimit -c 0\nexport PYTHONHOME={folder}/usr\n"
        f'exec {_emulator(core.architecture)} -cpu {core.name} -0 "$0" '
        f'-L {folder} {folder}/usr/bin/python3 "$@"\n'
    )
    board.python.chmod(0o755)
    return board


def _emulator(architecture: str) -> str:
    program = {"arm64": "qemu-aarch64-static", "armhf": "qemu-arm-static"}[architecture]
    return require(program, "qemu-user-static")


def _root(architecture: str) -> Path:
    """The root of an architecture; made where this set of versions has none yet."""
    require("apt-get", "apt")
    _emulator(architecture)
    wanted = [f"{name}=={version(name)}" for name in ENGINES[architecture]] or [TFLITE_RUNTIME]
    key = hashlib.sha256(repr((SCRIPT.read_bytes(), wanted)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = cache / "edge-sdk-tests" / f"{architecture}-{key}"
    root.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [SCRIPT, root, architecture, *wanted],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.fail(f"no root for {architecture}:\n{done.stderr}")
    return root
