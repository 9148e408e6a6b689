"""The page on rollouts does what it says."""

from __future__ import annotations

from pathlib import Path

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from edge_sdk.fleet.client import FleetClient
from edge_sdk.fleet.config import read_config
from edge_sdk.fleet.rollout.gates import Gates
from edge_sdk.fleet.webhooks import signature
from tests.bundle.conftest import tmp_path
from tests.bundle.samples import make_bundle
from tests.docs.runner import ROOT, run_page
from tests.fleet.gateways import gateways
from tests.fleet.server import servers
from tests.fleet.test_rollout_serve import online

__all__ = ["tmp_path"]


def test_the_page_works_as_it_stands(mosquitto, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle = make_bundle(tmp_path / "bundle", version="1.1.0")
    Store(tmp_path / "data" / "store").install(open_bundle(bundle))
    with servers() as start, gateways() as gateway:
        server = start(tmp_path / "data", "--broker", mosquitto.url)
        monkeypatch.setenv("EDGE_SDK_SERVER", server.serving["http"])
        for thing in ("gw-1", "gw-2"):
            gateway(mosquitto.url, thing, site="berlin")
        online(FleetClient(server.serving["http"]), 2)
        run_page("docs/rollouts.md")
    [hook] = read_config(Path("fleet.toml"), {}).webhooks
    assert signature(hook.secret, "id", 0, b"")


def test_the_page_has_every_gate_with_its_default():
    page = (ROOT / "docs/rollouts.md").read_text(encoding="utf-8")
    for name in Gates.__struct_fields__:
        value = getattr(Gates(), name)
        shown = "none" if value is None else f"{value:g}"
        assert f"| `{name}` | {shown} |" in page
