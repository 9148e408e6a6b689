"""The configuration of the fleet's server."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_sdk.errors import ConfigError
from edge_sdk.fleet.config import FleetConfig, read_config


def test_without_anything_it_is_a_cloud_in_one_folder_on_loopback():
    config = read_config(None, {})
    assert config == FleetConfig()
    assert config.broker_address is None
    assert config.listen == ("127.0.0.1", 8080)
    assert config.database_url == "sqlite:///fleet-data/fleet.db"
    assert config.store_folder == Path("fleet-data/store")


def test_a_file_says_it_and_options_go_before_it(tmp_path):
    file = tmp_path / "fleet.toml"
    file.write_text(
        'data = "kept"\ndatabase = "postgresql://edge@db/fleet"\n'
        '[broker]\nurl = "mqtt://broker"\n[http]\nlisten = "[::]:80"\n[shadow]\nlevels = 8\n'
    )
    config = read_config(file, {"broker.url": "mqtt://other:1", "store": "/srv/store"})
    assert config.folder == tmp_path / "kept"
    assert str(config.broker_address) == "mqtt://other:1"
    assert config.listen == ("::", 80)
    assert config.database_url == "postgresql://edge@db/fleet"
    assert config.store_folder == Path("/srv/store")
    assert config.limits.levels == 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"broker.url": "http://broker"}, "no address of a broker"),
        ({"broker.url": "mqtt://broker", "broker.ca": "/ca.crt"}, "without TLS"),
        ({"http.listen": "8080"}, "http.listen: '8080' is not host:port"),
        ({"http.listen": "localhost:99999"}, "is not host:port"),
        ({"shadow.roots": ["edge/+"]}, "shadow.roots[0]"),
        ({"shadow.in_flight": 0}, "shadow.in_flight"),
        ({"broker.client_id": ""}, "broker.client_id"),
    ],
)
def test_a_wrong_value_is_named(options, said):
    with pytest.raises(ConfigError) as caught:
        read_config(None, options)
    assert said in str(caught.value)
