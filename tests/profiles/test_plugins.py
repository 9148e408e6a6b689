"""Profiles from plug-ins, found by their installed metadata as pip would leave it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from device_profiles.loader import BUILTIN, load_profile, profiles
from edge_sdk.errors import ProfileError
from edge_sdk.toml_files import loads

EXAMPLE = Path(__file__).parents[2] / "examples/plugins/profile"


def _install(site: Path, name: str, points: dict[str, str]) -> None:
    info = site / f"{name}-1.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[edge_sdk.profiles]\n{lines}")


def _install_example(site: Path) -> None:
    project = loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    _install(site, "acme_profiles", project["entry-points"]["edge_sdk.profiles"])
    shutil.copytree(EXAMPLE / "acme_profiles", site / "acme_profiles")


def test_the_example_plug_in_is_listed_by_the_command(tmp_path):
    _install_example(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "edge_sdk.cli.main", "profiles", "list"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "acme-gateway" in done.stdout
    assert "x86-64" in done.stdout


def test_a_plug_in_profile_loads_by_name(tmp_path, monkeypatch):
    _install_example(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_profile("acme-gateway").memory.total_mib == 1024


def test_a_broken_plug_in_is_named(tmp_path, monkeypatch):
    _install(tmp_path, "broken", {"bad": "module_that_is_not_there:FOLDER"})
    monkeypatch.syspath_prepend(tmp_path)
    for use in (profiles, lambda: load_profile("acme-gateway")):
        with pytest.raises(ProfileError, match="bad = module_that_is_not_there"):
            use()
    assert load_profile("x86-64").name == "x86-64"  # its name is known without plug-ins


def test_two_profiles_of_one_name_are_refused(tmp_path, monkeypatch):
    (tmp_path / "twin_profiles.py").write_text(
        "from pathlib import Path\nFOLDER = Path(__file__).parent / 'twins'\n"
    )
    (tmp_path / "twins").mkdir()
    shutil.copy(BUILTIN / "arm64.toml", tmp_path / "twins/arm64.toml")
    _install(tmp_path, "twin", {"twin": "twin_profiles:FOLDER"})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ProfileError, match="also defined by"):
        profiles()
    shutil.move(tmp_path / "twins/arm64.toml", tmp_path / "twins/renamed.toml")
    with pytest.raises(ProfileError, match="not the file's name"):
        profiles()
