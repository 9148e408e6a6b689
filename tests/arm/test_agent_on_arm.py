"""``edge-sdk agent`` itself on emulated ARM cores, with a real broker and a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("sqlalchemy", reason="the cloud's side needs the extra [fleet]")

from edge_sdk.bundle.reader import Bundle, open_bundle
from edge_sdk.bundle.store import Store
from tests.agent.cloud_process import RealCloud, real_cloud
from tests.arm.boards import BOARDS, PATIENCE
from tests.arm.converted import converted

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
