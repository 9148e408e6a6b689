"""Configurations, the examples among them, and what is said of wrong ones."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from edge_sdk.agent.config import read_config
from edge_sdk.cli.main import build_parser, main
from edge_sdk.errors import ConfigError, InputError

EXAMPLES = Path(__file__).parents[2] / "examples" / "agent"
NEEDED = {"thing": "gate-7", "store": "s", "broker.url": "mqtt://broker.test"}


def test_the_example_is_right(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text((EXAMPLES / "agent.toml").read_text())
    for name in ("ca.crt", "gate-7.crt", "gate-7.key"):
        (tmp_path / name).touch()
    config = read_config(path, {})
    assert config.address.tls.ca == tmp_path / "ca.crt", "paths are relative to the file"
    assert config.memory == 400 * 2**20
    assert config.rate_limit == 2 * 2**20
    assert config.listen == ("127.0.0.1", 8090)


def test_the_units_command_is_one():
    text = (EXAMPLES / "edge-sdk-agent.service").read_text()
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    program, *arguments = shlex.split(line.partition("=")[2])
    assert Path(program).name == "edge-sdk"
    args = build_parser("agent").parse_args(arguments)
    assert args.config == Path("/etc/edge-sdk/agent.toml")


def test_options_go_before_the_file(tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(
        'thing = "a"\nstore = "/s"\n[broker]\nurl = "mqtt://one.test"\nkeepalive = 60\n'
    )
    config = read_config(path, {"broker.url": "mqtt://two.test", "thing": None, "labels.site": "x"})
    assert (config.thing, config.broker.url) == ("a", "mqtt://two.test")
    assert config.broker.keepalive == 60
    assert config.labels == {"site": "x"}


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"thing": "a/b"}, "thing"),
        ({"broker.url": "http://x"}, ""),
        ({"http.listen": "nowhere"}, "http.listen"),
        ({"memory_limit": "much"}, "memory_limit"),
        ({"delivery.via": "post"}, "delivery.via"),
        ({"delivery.user": "device"}, "delivery.registry"),
        ({"report.heartbeat": 0}, "report.heartbeat"),
        ({"gate.max_error_rat": 1}, "gate.max_error_rat"),
        ({"broker.key": "/nowhere"}, ""),
    ],
)
def test_wrong_values_are_named(options, where):
    with pytest.raises(InputError) as error:
        read_config(None, NEEDED | options)
    assert where in str(error.value)


def test_what_is_missing_is_named():
    with pytest.raises(ConfigError) as error:
        read_config(None, {"thing": "gate-7"})
    assert "store" in str(error.value)
    assert "broker" in str(error.value)


def test_no_local_api():
    assert read_config(None, NEEDED | {"http.listen": ""}).listen is None


def test_the_command_names_the_options_that_it_lacks(capsys):
    assert main(["agent", "--store", "s"]) == 2
    assert "--thing, --broker missing" in capsys.readouterr().err
