"""What starting up, and a plain model, must not cost on a device."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.runtime import bundles

HEAVY = {
    *("numpy", "onnxruntime", "onnx", "onnx_ir", "tokenizers", "msgspec", "tomli", "tomllib"),
    *("socket", "ssl", "http", "asyncio", "paho", "multiprocessing", "converters"),
}
# What only some engines need, or only what starts processes of its own.
UNUSED = {"subprocess", "edge_sdk.runtime.compiled", "edge_sdk.runtime.engines.litert"}
REPORT = "; import sys; print(*sorted(sys.modules))"


def loaded_by(code: str) -> set[str]:
    """Modules that are loaded after ``code`` has run in a fresh interpreter."""
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


def test_a_plain_model_loads_nothing_that_it_does_not_use(tmp_path):
    path = bundles.linear(tmp_path / "bundle")
    code = f"import edge_sdk; m = edge_sdk.load({str(path)!r}, {bundles.HERE!r}); m.self_test()"
    used = loaded_by(f"{code}; m.settle(); m.close()")
    assert "edge_sdk.runtime.engines.onnx" in used
    assert used & UNUSED <= loaded_by("import numpy, onnxruntime"), "of its own accord"
