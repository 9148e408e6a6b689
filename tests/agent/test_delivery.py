"""What an agent says to a registry that asks who it is: the fleet names the registry."""

from __future__ import annotations

import base64
import json

import pytest

from edge_sdk.agent.config import DeliveryConfig, read_config
from edge_sdk.agent.delivery import credentials_for, open_delivery
from edge_sdk.agent.plan import Target
from edge_sdk.errors import TransferError
from edge_sdk.transport.credentials import Credentials
from edge_sdk.transport.memory import MemoryBroker, MemoryLink
from tests.delivery.servers import Answer, serving

OURS, OTHER = "registry.example:5000", "elsewhere.example"
DEVICE = Credentials("device", "secret")


@pytest.fixture(autouse=True)
def docker(tmp_path, monkeypatch):
    """One that logged in to the other registry."""
    auth = base64.b64encode(b"docker:login").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {OTHER: {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("EDGE_SDK_REGISTRY_USER", raising=False)


def test_the_configured_user_is_for_its_registry_alone():
    settings = DeliveryConfig(registry=OURS, user="device", password="secret")
    assert credentials_for(settings, OURS) == DEVICE
    assert credentials_for(settings, OTHER) == Credentials("docker", "login")
    assert credentials_for(settings, "evil.example") is None


def test_so_is_the_environments(monkeypatch):
    monkeypatch.setenv("EDGE_SDK_REGISTRY_USER", "device")
    monkeypatch.setenv("EDGE_SDK_REGISTRY_PASSWORD", "secret")
    assert credentials_for(DeliveryConfig(registry=OURS), OURS) == DEVICE
    assert credentials_for(DeliveryConfig(registry=OURS), "evil.example") is None
    assert credentials_for(DeliveryConfig(), OURS) is None


@pytest.mark.parametrize("ours", [True, False])
def test_a_registry_that_asks_is_told_only_if_it_is_ours(ours, tmp_path):
    asks = Answer(401, headers={"WWW-Authenticate": "Basic realm=all"})
    with serving(lambda _: asks) as server:
        options = {
            "thing": "gate-7",
            "store": str(tmp_path / "store"),
            "broker.url": "mqtt://broker.test",
            "delivery.via": "http",
            "delivery.registry": server.host if ours else OURS,
            "delivery.user": "device",
            "delivery.password": "secret",
        }
        link = MemoryLink(MemoryBroker())
        delivery = open_delivery(read_config(None, options), link)
        target = Target("sha256:" + "0" * 64, "1.0.0", f"{server.host}/digits:1.0.0")
        with pytest.raises(TransferError):
            delivery.fetch(target, lambda _: None, lambda: False)
        delivery.close()
        told = {
            asked.headers["authorization"]
            for asked in server.asked
            if "authorization" in asked.headers
        }
    assert told == ({DEVICE.basic} if ours else set())
