"""The tiny toolchain's script: runs inside its environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def look(request: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Where it runs, and what it sees there."""
    import tinytool

    print("what a library prints")
    os.system("echo what its children print")
    progress("half way")
    return {
        "given": request,
        "answer": tinytool.ANSWER,
        "prefix": sys.prefix,
        "path": sys.path,
        "variables": sorted(os.environ),
    }


def fail(request: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    raise RuntimeError("the layer is missing")


def disappear(request: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    os._exit(0)


def sleep(request: dict[str, Any], progress: Callable[[str], None]) -> dict[str, Any]:
    """Sleeps, as a child of it does; says both process ids first."""
    with subprocess.Popen(["sleep", "600"]) as child:
        Path(request["file"]).write_text(f"{os.getpid()} {child.pid}")
        progress("asleep")
        time.sleep(600)
    return {}
