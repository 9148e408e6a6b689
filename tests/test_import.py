"""What starting up must not cost on a device."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    *("numpy", "onnxruntime", "onnx", "onnx_ir", "tokenizers", "msgspec", "tomli", "tomllib"),
    *("socket", "ssl", "http", "asyncio", "paho", "multiprocessing", "converters"),
}
REPORT = "; import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def loaded_by(code: str) -> set[str]:
    """Top-level modules that are loaded after ``code`` has run in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code + REPORT],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def command(*arguments: str) -> str:
    return (
        "import contextlib\nfrom edge_sdk.cli.main import main\n"
        f"with contextlib.suppress(SystemExit): main({list(arguments)!r})\n"
        "pass"
    )


def test_a_heavy_module_would_be_seen():
    assert {"socket", "msgspec"} <= loaded_by("import socket, msgspec")


def test_import_loads_nothing_heavy():
    assert loaded_by("import edge_sdk") & HEAVY == set()


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_nothing_heavy(option):
    assert loaded_by(command(option)) & HEAVY == set()
