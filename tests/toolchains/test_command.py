"""``edge-sdk toolchain`` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import answer, edge_sdk

pytestmark = pytest.mark.converts

BUILT_IN = {"hugging-face", "onnx2tf", "tensorrt-rtx"}


def test_ls_names_all_toolchains_and_what_they_take(offline: Path) -> None:
    found = answer("toolchain", "ls")["toolchains"]
    assert {each["name"] for each in found} >= BUILT_IN
    assert {each["state"] for each in found} == {"absent"}
    assert all(Path(each["folder"]).is_relative_to(offline) for each in found)
    assert all(each["size"] > 1e8 for each in found)


def test_a_dry_run_says_what_would_be_installed(offline: Path) -> None:
    found = answer("toolchain", "install", "hugging-face", "--dry-run")
    assert found["dry_run"]
    assert "torch==2.13.0" in found["toolchains"][0]["packages"]
    done = edge_sdk("toolchain", "install", "hugging-face", "--dry-run")
    assert "would install torch==2.13.0" in done.stdout
    assert not offline.exists()


def test_a_failed_installation_is_one_error(offline: Path) -> None:
    done = edge_sdk("toolchain", "install", "hugging-face")
    assert done.returncode == 1
    assert "No matching distribution found for torch==2.13.0" in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr


def test_removing_what_is_not_there_removes_nothing(offline: Path) -> None:
    found = answer("toolchain", "rm", "onnx2tf")
    assert (found["removed"], found["bytes"]) == ([], 0)


def test_leftovers_are_listed_and_removed(offline: Path) -> None:
    old = offline / "toolchains" / "onnx2tf-0123456789ab"
    old.mkdir(parents=True)
    (old / "file").write_bytes(b"x" * 8192)
    view = next(v for v in answer("toolchain", "ls")["toolchains"] if v["state"] == "outdated")
    assert (view["name"], view["folder"]) == ("onnx2tf", str(old))
    kept = answer("toolchain", "rm", "onnx2tf", "--dry-run")
    assert kept["removed"] == [str(old)]
    assert kept["bytes"] >= 8192
    assert old.exists()
    answer("toolchain", "rm", "onnx2tf")
    assert not old.exists()


@pytest.mark.parametrize("action", ["install", "rm"])
def test_an_unknown_name_is_bad_input(offline: Path, action: str) -> None:
    done = edge_sdk("toolchain", action, "huggingface")
    assert done.returncode == 2
    assert "did you mean 'hugging-face'?" in done.stderr


def test_a_missing_folder_of_wheels_is_bad_input(offline: Path, tmp_path: Path) -> None:
    done = edge_sdk("toolchain", "install", "onnx2tf", "--from-wheels", tmp_path / "none")
    assert done.returncode == 2
    assert "no such folder" in done.stderr
