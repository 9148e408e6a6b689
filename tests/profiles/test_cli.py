"""``edge-sdk profiles``: list, show, detect."""

from __future__ import annotations

import json

import pytest

from device_profiles.loader import BUILTIN, load_profile
from device_profiles.machine import detect_machine
from edge_sdk.cli.main import main


def test_list_shows_every_profile_with_its_memory(capsys):
    assert main(["profiles", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    board = next(line for line in lines if line.startswith("board-512mb"))
    assert board.split()[1:5] == ["linux/arm64/v8", "4", "512", "384"]


def test_list_as_json_holds_whole_profiles(capsys):
    assert main(["profiles", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["schema"] == "org.edge-sdk.profiles/1"
    by_name = {profile["name"]: profile for profile in listed["profiles"]}
    assert by_name["armv7-512mb"]["engines"][0]["name"] == "litert"


def test_show_prints_the_file_with_its_comments(capsys):
    assert main(["profiles", "show", "arm64"]) == 0
    assert capsys.readouterr().out == (BUILTIN / "arm64.toml").read_text()


def test_show_as_json_names_the_file(capsys):
    assert main(["profiles", "show", "arm64", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "org.edge-sdk.profile/1"
    assert shown["profile"]["memory"]["total_mib"] == 4096
    assert shown["file"].endswith("arm64.toml")


def test_show_of_an_unknown_name_is_bad_input(capsys):
    assert main(["profiles", "show", "arm46"]) == 2
    assert "did you mean 'arm64'" in capsys.readouterr().err


def test_detect_writes_a_profile_that_loads(tmp_path, capsys):
    file = tmp_path / "My Board.toml"
    assert main(["profiles", "detect", "-o", str(file), "--json"]) == 0
    detected = json.loads(capsys.readouterr().out)
    assert detected["schema"] == "org.edge-sdk.detected-profile/1"
    assert detected["file"] == str(file)
    profile = load_profile(file)
    machine = detect_machine()
    assert profile.name == detected["profile"]["name"] == "my-board"
    assert profile.platform == machine.platform
    assert profile.cpu.cores == machine.cores
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("where", ["taken.toml", "absent/new.toml"])
def test_detect_refuses_a_target_before_measuring(tmp_path, capsys, where):
    (tmp_path / "taken.toml").write_text("precious")
    assert main(["profiles", "detect", "-o", str(tmp_path / where)]) == 2
    assert capsys.readouterr().err
    assert (tmp_path / "taken.toml").read_text() == "precious"


def test_detect_replaces_a_file_when_forced(tmp_path, capsys):
    file = tmp_path / "taken.toml"
    file.write_text("precious")
    assert main(["profiles", "detect", "-o", str(file), "--force"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"wrote {file}\n")
    assert load_profile(file).name == "taken"
