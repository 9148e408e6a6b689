"""``edge-sdk agent`` itself on emulated ARM cores, with a real broker and a real server."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("sqlalchemy", reason="the cloud's side needs the extra [fleet]")

from device_profiles.loader import profile_path
from edge_sdk.bundle.reader import Bundle, open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.fleet.client import FleetClient
from tests.agent.cloud_process import RealCloud, real_cloud
from tests.arm.boards import A76, BOARDS, PATIENCE, REPOSITORY
from tests.arm.converted import EXAMPLES, converted
from tests.cli.conftest import edge_sdk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.converts,
    pytest.mark.needs("qemu-aarch64-static", "qemu-user-static"),
    pytest.mark.needs("mosquitto", "mosquitto"),
]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Bundle:
    """A bundle for all boards, as the conversion chose."""
    return open_bundle(converted(tmp_path_factory.mktemp("digits"), "digits", list(BOARDS)))


@pytest.fixture(scope="module")
def cloud(digits, tmp_path_factory) -> Iterator[RealCloud]:
    with real_cloud(tmp_path_factory.mktemp("cloud"), [digits]) as made:
        yield made


@pytest.mark.parametrize("profile", BOARDS)
def test_the_agent_installs_and_tests_the_variant_of_its_core(
    board, cloud, digits, tmp_path, profile
):
    here = board(BOARDS[profile])
    cloud.want(profile, digits, model="digits")
    done = here.edge_sdk(
        "agent", "--once", "--json", "--patience", PATIENCE, "--thing", profile,
        "--broker", cloud.broker.url, "--store", tmp_path / "store", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)["models"]["digits"]
    assert (said["status"], said["version"]) == ("running", "1.0.0")
    reported = cloud.wait(profile, "running", "1.0.0", model="digits")
    assert reported.digest == digits.descriptor.digest
    assert cloud.reported(profile).agent.profile == profile
    installed = Store(tmp_path / "store").open("digits")
    assert [variant.record.profile for variant in installed.variants] == [profile]


def test_a_device_measures_the_finalists_of_a_conversion(board, cloud, tmp_path):
    here = board(A76)
    lean = tmp_path / "lean.toml"
    text = profile_path("arm64").read_text().replace('name = "arm64"', 'name = "lean"', 1)
    lean.write_text(re.sub(r"recipes = \[.*\]", 'recipes = ["int8-static"]', text))
    server = cloud.server.serving["http"]
    agent = [here.python, "-m", "edge_sdk.cli.main", "agent", "--thing", "measurer", "--http", ""]
    agent += ["--broker", cloud.broker.url, "--store", tmp_path / "store"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(agent, env=here.environment, cwd=REPOSITORY, stderr=log)
    try:
        client = FleetClient(server)
        deadline = time.monotonic() + PATIENCE
        while not any(one.thing == "measurer" and one.online for one in client.devices().devices):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        done = edge_sdk(
            "convert", EXAMPLES / "digits" / "digits.onnx", "-o", tmp_path / "bundle", "-p", lean,
            "--data", EXAMPLES / "digits" / "calibration.npz", "--on", "thing:measurer",
            "--server", server, "--json",
        )  # fmt: skip
    finally:
        process.terminate()
        process.wait(PATIENCE)
        print((tmp_path / "log").read_text())
    assert done.returncode == 0, done.stderr
    [variant] = json.loads(done.stdout)["variants"]
    report = variant["report"]
    assert report["decisive"]
    measured = {row["name"]: row["device"] for row in report["candidates"] if row.get("device")}
    assert {report["chosen"], "source"} <= measured.keys()
    assert all(figures["p50_ms"] > 0 for figures in measured.values())
