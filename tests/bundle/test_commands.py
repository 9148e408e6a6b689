from __future__ import annotations

import json

import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.cli.main import main
from tests.bundle.forge import blob_file, flip
from tests.bundle.samples import make_bundle


@pytest.fixture
def path(tmp_path):
    return make_bundle(tmp_path / "b")


@pytest.fixture
def edge_sdk(capsys):
    """Runs a command; gives exit code, stdout and stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_inspect_lists_variants_and_what_they_share(edge_sdk, path):
    code, out, _ = edge_sdk("inspect", path)
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("board"))
    assert {"linux/arm/v7", "int8-static", "0.001", "0.99910", "1.40"} <= set(row.split())


def test_inspect_shows_all_of_one_variant(edge_sdk, path):
    code, out, _ = edge_sdk("inspect", path, "--profile", "board")
    assert code == 0
    for expected in (
        "x  float32[batch, 4]",
        "predicted peak",
        "at batch=1",
        "fp16         onnx    failed",
        "head (Gemm): too sensitive",
        "tokenizer.json",
        "measured on this machine",
        "licence  Apache-2.0",
    ):
        assert expected in out


def test_inspect_json_accounts_for_every_byte_once(edge_sdk, path):
    code, out, _ = edge_sdk("inspect", path, "--json")
    view = json.loads(out)
    assert code == 0
    assert view["schema"] == "org.edge-sdk.inspect/1"
    first, second = view["variants"]
    assert first["size"] == first["own"] + first["shared"]
    assert first["shared"] == second["shared"] > 0
    assert view["size"] == first["own"] + second["own"] + first["shared"]
    shared = {file["path"] for file in first["files"] if file["shared_with"] == ["board"]}
    assert {"tokenizer.json", "README.md"} < shared
    assert first["record"]["recipe"]["name"] == "int8-static"
    assert first["report"]["candidates"][1]["status"] == "failed"


def test_inspect_of_a_damaged_bundle_names_the_blob_and_exits_2(edge_sdk, path):
    digest = open_bundle(path).variants[0].digest
    flip(blob_file(path, digest))
    code, out, err = edge_sdk("inspect", path)
    assert (code, out) == (2, "")
    assert digest in err
    assert "remedy:" in err


def test_store_installs_lists_verifies_removes_and_collects(edge_sdk, path, tmp_path):
    store = ("--store", tmp_path / "store")
    assert edge_sdk("store", "install", path, *store)[:2] == (0, "installed digits 1.0.0\n")
    code, out, _ = edge_sdk("store", "ls", *store, "--json")
    (view,) = json.loads(out)["installed"]
    assert (view["version"], view["profiles"]) == ("1.0.0", ["x86-64", "board"])
    assert edge_sdk("store", "verify", *store)[0] == 0
    assert edge_sdk("store", "rm", "digits", "1.0.0", *store)[0] == 0
    code, out, _ = edge_sdk("store", "gc", *store, "--dry-run", "--json")
    foreseen = json.loads(out)
    assert foreseen.pop("dry_run")
    assert foreseen["bytes"] > 0
    code, out, _ = edge_sdk("store", "gc", *store, "--json")
    swept = json.loads(out)
    assert not swept.pop("dry_run")
    assert swept == foreseen
    assert code == 0


def test_store_ls_names_what_is_here_as_registries_and_fleets_do(edge_sdk, path, tmp_path):
    store, bundle = ("--store", tmp_path / "store"), open_bundle(path)
    edge_sdk("store", "install", path, "--profile", "board", *store)
    (view,) = json.loads(edge_sdk("store", "ls", *store, "--json")[1])["installed"]
    assert view["digest"] == bundle.variant("board").digest
    assert view["bundle_digest"] == bundle.descriptor.digest
    assert bundle.descriptor.digest in edge_sdk("store", "ls", *store)[1]


def test_store_verify_exits_1_and_names_what_is_damaged(edge_sdk, path, tmp_path):
    store = tmp_path / "store"
    edge_sdk("store", "install", path, "--store", store)
    weight = open_bundle(path).variants[0].record.graphs[0].weights[0]
    flip(blob_file(store, weight.digest))
    code, out, err = edge_sdk("store", "verify", "--store", store, "--json")
    assert code == 1
    assert weight.digest in err
    result = json.loads(out)
    assert not result["intact"]
    assert weight.digest in result["problems"][0]["where"]


def test_store_ls_shows_a_damaged_bundle_as_such(edge_sdk, path, tmp_path):
    store = tmp_path / "store"
    edge_sdk("store", "install", path, "--store", store)
    blob_file(store, open_bundle(path).variants[0].digest).unlink()
    code, out, _ = edge_sdk("store", "ls", "--store", store)
    assert code == 0
    assert "DAMAGED" in out


def test_store_of_a_bundle_directory_is_refused(edge_sdk, path):
    code, _, err = edge_sdk("store", "ls", "--store", path)
    assert code == 2
    assert "not a bundle" in err
