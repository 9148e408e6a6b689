"""Every command on a converted bundle, in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.cli.main import COMMANDS
from tests.cli.conftest import Converted, answer, edge_sdk


def test_help_names_every_command():
    done = edge_sdk("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    done = edge_sdk(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"edge-sdk {command}" in done.stdout


def test_no_command_is_bad_input():
    done = edge_sdk()
    assert done.returncode == 2
    assert "usage: edge-sdk" in done.stderr


@pytest.mark.parametrize("options", [("list",), ("list", "--json"), ("show", "x86-64")])
def test_output_that_finds_no_space_is_one_clear_error(options):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "edge_sdk.cli.main", "profiles", *options]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    message = "edge-sdk profiles: error: standard output: cannot write: No space left on device"
    assert done.stderr == f"{message}\n"


def test_inspect_shows_what_convert_reported(classifier: Converted):
    found = answer("inspect", classifier.bundle)
    assert [v["report"] for v in found["variants"]] == [
        v["report"] for v in classifier.report["variants"]
    ]
    assert [v["profile"] for v in found["variants"]] == ["x86-64", "board-512mb"]


def test_inspect_for_people_explains_the_choice(classifier: Converted):
    done = edge_sdk("inspect", classifier.bundle, "--profile", classifier.profile)
    report = classifier.report["variants"][0]["report"]
    assert report["reason"] in done.stdout
    assert all(row["name"] in done.stdout for row in report["candidates"])


def test_classifier_names_its_classes(classifier: Converted):
    record = open_bundle(classifier.bundle).variant(classifier.profile).record
    labels = next(step for step in record.postprocess if step.op == "labels")
    assert labels.options["names"] == ["oak", "ash", "elm", "fir"]


def test_run_keeps_the_samples_of_a_list(classifier: Converted, tmp_path):
    data = classifier.source.parent / "data.npz"
    files = ("--input", data, "--output", tmp_path / "y.npz")
    found = answer("run", classifier.bundle, "--profile", classifier.profile, *files)
    assert found["schema"] == "org.edge-sdk.run/1"
    with np.load(tmp_path / "y.npz") as outputs, np.load(data) as given:
        right = (outputs["y"].argmax(-1).ravel() == given["labels"]).mean()
    assert right > 0.9


def test_text_becomes_a_vector(encoder: Converted):
    def vector(text: str) -> np.ndarray:
        found = answer("run", encoder.bundle, "--profile", encoder.profile, "--text", text)
        return np.array(found["embedding"])

    first, same, other = vector("w5 w6 w7"), vector("w5 w6 w7"), vector("w200 w201")
    assert first.shape == (128,)
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


def test_state_rolls_along_a_sequence(recurrent: Converted, tmp_path):
    record = open_bundle(recurrent.bundle).variant(recurrent.profile).record
    assert [(s.output, s.input) for s in record.states] == [("hn", "h0")]
    frame = np.ones((1, 1, 1, 40), np.float32)
    np.savez(tmp_path / "x.npz", x=np.repeat(frame, 3, axis=0))
    files = ("--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    assert edge_sdk("run", recurrent.bundle, "--profile", recurrent.profile, *files).returncode == 0
    with np.load(tmp_path / "y.npz") as outputs:
        steps = outputs["y"]
    assert len(steps) == 3
    assert not np.allclose(steps[0], steps[1], atol=1e-3)  # the same frame, another state


def test_fixed_input_leaves_one_branch(branching: Converted):
    recipe = open_bundle(branching.bundle).variant(branching.profile).record.recipe
    splice = next(step for step in recipe.steps if step.op == "splice-branches")
    assert splice.options == {"fixed": {"mode": 1.0}}
    [variant] = branching.report["variants"]
    assert variant["report"]["source_size_bytes"] > 2 * 160 * 32 * 4
    float_row = next(r for r in variant["report"]["candidates"] if r["name"] == "fp32")
    assert float_row["size_bytes"] < 2 * 160 * 32 * 4  # the other branch's weights are gone


def test_store_holds_what_was_converted(classifier: Converted, tmp_path):
    store = ("--store", tmp_path / "store")
    answer("store", "install", classifier.bundle, *store)
    [entry] = answer("store", "ls", *store)["installed"]
    assert (entry["name"], entry["profiles"]) == ("classifier", ["x86-64", "board-512mb"])
    assert answer("store", "verify", *store)["intact"]
    assert answer("store", "gc", *store)["blobs"] == []


def test_damaged_store_is_failed_work(quantized: Converted, tmp_path):
    store = ("--store", tmp_path / "store")
    edge_sdk("store", "install", quantized.bundle, *store)
    largest = max((tmp_path / "store/blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[-1] ^= 1
    largest.unlink()  # a link to the bundle's own file, which stays as it is
    largest.write_bytes(data)
    done = edge_sdk("store", "verify", *store, "--json")
    assert done.returncode == 1
    assert not json.loads(done.stdout)["intact"]


def test_bench_compares_with_the_source(classifier: Converted):
    options = ("--profile", classifier.profile, "--against", classifier.source, "--seconds", 0.1)
    found = answer("bench", classifier.bundle, *options)
    assert found["speedup"] > 0
    assert found["bundle"]["latency"]["p50_ms"] > 0


def test_fit_predicts_what_convert_ships(classifier: Converted):
    predicted = answer("fit", classifier.source, "-p", classifier.profile)["profiles"][0][
        "families"
    ]
    [row] = [r for r, _ in classifier.rows if r["name"] == "int8-stored"][:1]
    size = next(f for f in predicted if f["recipe"] == "int8-stored")["size_bytes"]
    assert row["size_bytes"] == pytest.approx(size["value"], rel=0.2)


def test_profiles_are_listed():
    names = {profile["name"] for profile in answer("profiles", "list")["profiles"]}
    assert {"x86-64", "board-512mb", "arm64", "jetson-orin-nano"} <= names


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_options(tmp_path):
    script = edge_sdk("completion", "bash").stdout
    ask = """
        COMP_WORDS=(edge-sdk {words}); COMP_CWORD={index}; _edge_sdk; echo "${{COMPREPLY[@]}}"
    """

    def complete(words: str, index: int) -> list[str]:
        asked = ["bash", "-c", script + ask.format(words=words, index=index)]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()

    assert complete("ins", 1) == ["inspect"]
    assert complete("convert --max", 2) == ["--max-drop"]
    assert complete("chat --repet", 2) == ["--repetition-penalty"]
    assert complete("fleet de", 2) == ["devices", "deploy"]
    assert complete("fleet deploy digits:1.0.0 --allow", 4) == ["--allow-older"]
    assert "list" in complete("profiles ''", 2)
