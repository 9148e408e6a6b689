"""``edge-sdk demo`` from the checkout, and the files it needs in a wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.cli.demo import DemoResult, _for_people
from tests.cli.conftest import answer, edge_sdk

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return answer("demo", "--out", tmp_path_factory.mktemp("demo") / "new")


def test_the_bundle_is_intact_and_has_every_profile_that_can_be_converted_for(demo):
    bundle = open_bundle(demo["bundle"])
    bundle.verify()
    assert [variant.profile for variant in bundle.variants] == [
        variant["profile"] for variant in demo["variants"]
    ]
    assert {"x86-64", "arm64", "board-512mb", "jetson-orin-nano"} <= {
        variant["profile"] for variant in demo["variants"]
    }
    assert demo["left_out"] == ["armv7-512mb"]


def test_held_out_images_are_classified_as_well_as_by_the_source(demo):
    held_out = demo["held_out"]
    assert held_out["samples"] == 500
    assert held_out["accuracy"] >= 0.98
    assert held_out["accuracy"] >= held_out["source_accuracy"] - 0.01


def test_every_variant_is_smaller_and_shares_blobs(demo):
    assert all(variant["size_ratio"] > 1.5 for variant in demo["variants"])
    assert demo["size_bytes"] < demo["unshared_bytes"]
    assert demo["shared"][0]["blobs"] > 0


@pytest.fixture(scope="module")
def printed(demo):
    """What people read, of the same demo: converting again would take half a minute."""
    return "\n\n".join(_for_people(msgspec.convert(demo, DemoResult), "drawing"))


def test_people_read_what_was_chosen_and_how_it_did(demo, printed):
    for variant in demo["variants"]:
        assert f"{variant['profile']} " in printed
    assert "Left out: armv7-512mb" in printed
    assert f"{demo['held_out']['accuracy']:.1%}" in printed


def test_what_to_try_next_works_when_pasted(printed):
    lines = printed.partition("Try next:")[2].strip().splitlines()
    assert [Path(line.split()[0]).name for line in lines] == ["cd", *["edge-sdk"] * 4, "python"]
    lines[2] += " --seconds 0.2"
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines[:-1])], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").touch()
    done = edge_sdk("demo", "--out", tmp_path)
    assert done.returncode == 2
    assert "new folder" in done.stderr


def test_a_wheel_carries_the_model_and_its_data(tmp_path):
    tree = shutil.copytree(
        ROOT, tmp_path / "tree", symlinks=True,
        ignore=shutil.ignore_patterns(".*", "build", "tests", "benchmarks", "*.egg-info"),
    )  # fmt: skip
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path]
    subprocess.run([*pip, *offline, tree], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in ("digits.onnx", "calibration.npz", "heldout.npz"):
            expected = (ROOT / "examples/digits" / name).read_bytes()
            assert archive.read(f"edge_sdk/demo_data/{name}") == expected
