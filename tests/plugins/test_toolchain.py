"""The example toolchain."""

from __future__ import annotations

import json

import pytest

CALL = """
import json, sys
from converters.toolchains import find
request = {"model": sys.argv[1], "out": sys.argv[2]}
print(json.dumps(find("onnxsim").call("simplify", request, lambda line: None, timeout=300)))
"""


def test_the_example_toolchain_is_listed(edge_sdk, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_SDK_CACHE", str(tmp_path))
    done = edge_sdk("toolchain", "ls", "--json")
    assert done.returncode == 0, done.stderr
    found = {each["name"]: each for each in json.loads(done.stdout)["toolchains"]}
    assert found["onnxsim"]["state"] == "absent"
    assert "onnxsim==0.6.5" in found["onnxsim"]["packages"]


@pytest.mark.slow
def test_the_example_toolchain_is_built_and_called(python, squares, tmp_path):
    out = tmp_path / "simple.onnx"
    done = python("-c", CALL, squares, out)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"nodes": 2, "checked": True}
    assert out.stat().st_size
