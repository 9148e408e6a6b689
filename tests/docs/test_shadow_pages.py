"""The pages on shadows: what they show happens, and what they tell AWS fits the agent."""

from __future__ import annotations

import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import convert

from edge_sdk.agent.config import read_config
from edge_sdk.agent.delivery import open_delivery
from edge_sdk.shadow.models import Desired, Reported
from edge_sdk.transport.link import Handler, Message
from edge_sdk.transport.memory import MemoryLink
from tests.agent.conftest import bundles, cloud, shelf
from tests.agent.releases import desired
from tests.agent.world import Device
from tests.docs.runner import blocks, run_page
from tests.fleet.server import servers
from tests.transport.waiting import until

__all__ = ["bundles", "cloud", "shelf"]


@pytest.mark.needs("mosquitto_rr", "mosquitto-clients")
def test_shadow(mosquitto, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOST", "127.0.0.1")
    monkeypatch.setenv("PORT", str(mosquitto.port))
    with servers() as start:
        server = start(tmp_path / "fleet", "--broker", mosquitto.url)
        until(lambda: server.health()[0] == 200)
        run_page("docs/shadow.md", {"host": "127.0.0.1", "port": mosquitto.port})


def test_examples_of_the_models_shadow_are_of_its_types():
    desired, reported = (block.text for block in blocks("docs/shadow.md") if block.kind == "json")
    for text, kind in ((desired, Desired), (reported, Reported)):
        content = msgspec.json.decode(text, type=kind, strict=True)
        # Nothing was ignored: every field is one of the types'.
        assert msgspec.to_builtins(content) == msgspec.json.decode(text)


class ListedLink(MemoryLink):
    """Notes what a policy must allow: (action, topic)."""

    used: set[tuple[str, str]]

    def subscribe(self, topic_filter: str, handler: Handler, qos: int = 1) -> None:
        self.used |= {("iot:Subscribe", topic_filter), ("iot:Receive", topic_filter)}
        super().subscribe(topic_filter, handler, qos)

    def publish(self, message: Message) -> bool:
        self.used |= published(message)
        return super().publish(message)


def published(message: Message) -> set[tuple[str, str]]:
    actions = {"iot:Publish"} | ({"iot:RetainPublish"} if message.retain else set())
    return {(action, message.topic) for action in actions}


class AwsDevice(Device):
    """A device whose cloud is on AWS's topics."""

    def _open_link(self, will: Callable[[], Message]) -> MemoryLink:
        self.link = ListedLink(self.cloud.broker, will=will)
        self.link.used = published(will())
        open_delivery(self.config, self.link).close()
        return self.link


def test_aws_iot_core_lets_an_agent_do_all_it_does_and_no_more(
    cloud, shelf, bundles, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    page = list(blocks("docs/aws-iot-core.md"))
    policy, wish = (json.loads(block.text) for block in page if block.kind == "json")
    (toml,) = (block.text for block in page if block.kind == "toml")
    Path("agent.toml").write_text(toml)
    for name in ("AmazonRootCA1.pem", "gw-1.crt", "gw-1.key"):
        Path(name).touch()
    config = read_config(Path("agent.toml"), {})
    convert(wish["state"]["desired"], Desired)

    settings = {name: getattr(config, name) for name in ("broker", "delivery", "report")}
    device = AwsDevice(cloud, shelf, tmp_path / "store", config.thing, **settings)
    cloud.desire(config.thing, {"lookup": desired(bundles["1"])}, root="$aws/things")
    device.settle()
    assert cloud.reported(config.thing, "$aws/things").models["lookup"].status == "running"
    device.close()
    needed = device.link.used
    assert len(needed) > 10
    assert {one for one in needed if not allowed(policy, *one, thing="gw-1")} == set()
    assert not any(allowed(policy, *one, thing="gw-2") for one in needed)


def allowed(policy: Any, action: str, topic: str, thing: str) -> bool:
    """Whether a policy of AWS IoT lets a thing do this."""
    kind = "topicfilter" if action == "iot:Subscribe" else "topic"
    for statement in policy["Statement"]:
        actions, resources = (
            [value] if isinstance(value, str) else value
            for value in (statement["Action"], statement["Resource"])
        )
        for resource in resources if action in actions else ():
            arn = resource.replace("${iot:Connection.Thing.ThingName}", thing)
            if fnmatchcase(f"{arn.rpartition(':')[0]}:{kind}/{topic}", arn):
                return True
    return False
