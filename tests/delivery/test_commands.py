"""``edge-sdk push`` and ``pull`` as a user gives them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.cli.transfers import progress_line
from edge_sdk.transport.transfer import Progress
from tests.bundle.samples import make_bundle


@pytest.fixture
def edge_sdk(tmp_path):
    """Runs a command; ``given`` are further environment variables."""

    def run(*words, code=0, **given):
        done = subprocess.run(
            [sys.executable, "-m", "edge_sdk.cli.main", *map(str, words)],
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(tmp_path), **given},
            timeout=150,  # it tries again, with delays drawn at random, for over a minute
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_push_and_pull(edge_sdk, registry, bundle, tmp_path):
    ref = f"{registry.host}/models/digits:1.0.0"
    pushed = json.loads(edge_sdk("push", bundle.path, ref, "--json").stdout)
    assert pushed["schema"] == "org.edge-sdk.push/1"
    assert (pushed["ref"], pushed["digest"]) == (ref, bundle.descriptor.digest)
    pulled = json.loads(edge_sdk("pull", ref, tmp_path / "copy", "--json").stdout)
    assert pulled["schema"] == "org.edge-sdk.pull/1"
    assert pulled["profiles"] == ["x86-64", "board"]
    assert (tmp_path / "copy/index.json").read_bytes() == (bundle.path / "index.json").read_bytes()
    blobs = [
        {file.name for file in (p / "blobs/sha256").iterdir()}
        for p in (bundle.path, tmp_path / "copy")
    ]
    assert blobs[0] == blobs[1]
    assert {entry.name for entry in (tmp_path / "copy").iterdir()} == {
        "oci-layout",
        "index.json",
        "blobs",
    }
    open_bundle(tmp_path / "copy").verify()


def test_what_people_read_says_what_travelled(edge_sdk, registry, bundle, tmp_path):
    ref = f"{registry.host}/digits:1.0.0"
    assert "sent" in edge_sdk("push", bundle.path, ref).stdout
    assert "0 B were here" in edge_sdk("pull", ref, tmp_path / "copy").stdout


def test_a_pull_does_not_replace_a_bundle_unless_told(edge_sdk, registry, bundle, tmp_path):
    ref = f"{registry.host}/digits"
    edge_sdk("push", bundle.path, f"{ref}:1.0.0")
    tuned = make_bundle(tmp_path / "v2", version="2.0.0", head=b"tuned")
    edge_sdk("push", tuned, f"{ref}:2.0.0")
    edge_sdk("pull", f"{ref}:1.0.0", tmp_path / "copy")
    refused = edge_sdk("pull", f"{ref}:2.0.0", tmp_path / "copy", code=2)
    assert "the bundle exists" in refused.stderr
    done = edge_sdk("pull", f"{ref}:2.0.0", tmp_path / "copy", "--force", "--json")
    assert open_bundle(tmp_path / "copy").version == "2.0.0"
    assert json.loads(done.stdout)["reused_bytes"] > 1500
    assert sorted(entry.name for entry in tmp_path.iterdir() if "copy" in entry.name) == ["copy"]


def test_one_profile_of_a_bundle_remembers_the_bundle(edge_sdk, registry, bundle, tmp_path):
    ref = f"{registry.host}/digits:1.0.0"
    edge_sdk("push", bundle.path, ref)
    edge_sdk("pull", ref, tmp_path / "copy", "--profile", "board")
    opened = open_bundle(tmp_path / "copy")
    assert [variant.profile for variant in opened.variants] == ["board"]
    assert opened.variants[0].report is not None
    store = Store(tmp_path / "store")
    assert store.install(opened).bundle_digest == bundle.descriptor.digest


def test_a_pull_into_a_store_installs(edge_sdk, registry, bundle, tmp_path):
    ref = f"{registry.host}/digits:1.0.0"
    edge_sdk("push", bundle.path, ref)
    words = ("pull", ref, "--store", tmp_path / "store", "--profile", "board", "--json")
    pulled = json.loads(edge_sdk(*words).stdout)
    assert pulled["path"] == f"{tmp_path / 'store'}#digits:1.0.0"
    assert open_bundle(pulled["path"]).version == "1.0.0"
    (entry,) = Store(tmp_path / "store").ls()
    assert entry.bundle_digest == bundle.descriptor.digest == pulled["digest"]


def test_credentials_from_the_environment_and_docker_login(
    edge_sdk, start_registry, bundle, tmp_path
):
    ref = f"{start_registry(password=True).host}/digits:1.0.0"
    refused = edge_sdk("push", bundle.path, ref, code=1)
    assert "docker login" in refused.stderr
    known = {"EDGE_SDK_REGISTRY_USER": "device", "EDGE_SDK_REGISTRY_PASSWORD": "secret"}
    edge_sdk("push", bundle.path, ref, **known)
    (tmp_path / ".docker").mkdir()
    config = {"auths": {ref.partition("/")[0]: {"auth": "ZGV2aWNlOnNlY3JldA=="}}}
    (tmp_path / ".docker/config.json").write_text(json.dumps(config))
    edge_sdk("pull", ref, tmp_path / "copy")


def test_a_ca_of_ones_own(edge_sdk, start_registry, certificates, bundle, tmp_path):
    ref = f"https://{start_registry(certificates=certificates).host}/digits:1.0.0"
    assert "--ca" in edge_sdk("push", bundle.path, ref, code=1).stderr
    edge_sdk("push", bundle.path, ref, "--ca", certificates.ca)
    edge_sdk("pull", ref, tmp_path / "copy", "--ca", certificates.ca)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("push", "BUNDLE", "no reference"), "is no reference"),
        (("push", "none", "localhost:1/a:1"), "cannot be read"),
        (("pull", "localhost:1/a:1"), "either DIR or --store"),
        (("pull", "localhost:1/a:1", "x", "--store", "y"), "either DIR or --store"),
        (("pull", "localhost:1/A:1", "x"), "is no reference"),
        (("pull", "localhost:1/a:1", "x", "--parallel", "0"), "is no number"),
        (("pull", "localhost:1/a:1", "x", "--rate-limit", "fast"), "is no number of bytes"),
        (("pull", "localhost:1/a:1", "BUNDLE"), "the bundle exists"),
        (("pull", "localhost:1/a:1", "x", "--ca", "none.pem"), "no such file"),
    ],
)
def test_bad_input_is_told(edge_sdk, bundle, tmp_path, words, said):
    places = {"BUNDLE": bundle.path, "x": tmp_path / "x", "y": tmp_path / "y"}
    assert said in edge_sdk(*(places.get(word, word) for word in words), code=2).stderr
    assert not (tmp_path / "x").exists()


def test_a_registry_that_is_away_is_told_with_its_address(edge_sdk, start_registry, tmp_path):
    registry = start_registry()
    registry.stop()
    done = edge_sdk("pull", f"{registry.host}/a:1", tmp_path / "x", code=1)
    assert registry.host in done.stderr
    assert "is not reached" in done.stderr
    assert "trying again" in done.stderr
    assert not list(tmp_path.glob(".x*")), "nothing came, and something stayed"


def test_the_line_of_progress():
    line = progress_line(Progress(1_048_576, 4_194_304, 2, 9), 1_048_576)
    assert line == " 25 %  1 MiB of 4 MiB, blob 3 of 9, 1 MiB/s, 3 s left"
