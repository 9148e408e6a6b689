"""``edge-sdk agent``: a device runs what its shadow says."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from edge_sdk.cli.arguments import positive
from edge_sdk.cli.output import emit_json, note, table
from edge_sdk.errors import ConfigError
from edge_sdk.shadow.models import ReportedModel

EPILOG = """\
examples:
  edge-sdk agent --thing gate-7 --broker mqtt://10.0.0.2 --store /var/lib/edge-sdk
  edge-sdk agent --config /etc/edge-sdk/agent.toml
  edge-sdk agent --config agent.toml --once      # from cron: does what is to be done, and ends
"""


class AgentRun(msgspec.Struct, frozen=True, kw_only=True):
    """What ``agent --once --json`` prints: what was reported of each model."""

    thing: str
    models: dict[str, ReportedModel]
    schema: str = "org.edge-sdk.agent-once/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EPILOG
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of all settings")
    parser.add_argument("--thing", metavar="NAME", help="name of this device")
    parser.add_argument("--broker", metavar="URL", help="mqtt[s]://[user:password@]host[:port]")
    parser.add_argument("--store", metavar="DIR", help="where bundles and the agent's state are")
    parser.add_argument(
        "--http", metavar="HOST:PORT", help="the local API (default 127.0.0.1:8090; '' for none)"
    )
    parser.add_argument("--profile", help="device profile (default: chosen for this machine)")
    parser.add_argument("--memory-limit", metavar="SIZE", help="such as 400MiB")
    parser.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", type=_label,
        help="a label for selectors of rollouts; may be repeated",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="do what is to be done, then end")
    parser.add_argument(
        "--patience", type=positive, default=30.0, metavar="SECONDS",
        help="with --once: wait this long for the cloud (default 30)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="with --once: print one JSON object")
    parser.add_argument("--log", choices=("json", "text"), help="format of the log on stderr")


def run(args: argparse.Namespace) -> int:
    """Runs the agent until it is ended; with ``--once`` gives 1 where something is not done."""
    from edge_sdk.agent.config import read_config
    from edge_sdk.agent.logs import set_up
    from edge_sdk.agent.process import run as run_agent
    from edge_sdk.agent.process import run_once

    lacking = [f"--{name}" for name in ("thing", "broker", "store") if getattr(args, name) is None]
    if args.config is None and lacking:
        raise ConfigError(
            f"{', '.join(lacking)} missing", remedy="give them, or a file that has them by --config"
        )
    config = read_config(args.config, _options(args))
    set_up(config.log)
    if not args.once:
        run_agent(config)
        return 0
    models = run_once(config, args.patience)
    if args.json:
        emit_json(AgentRun(thing=config.thing, models=models))
    elif models:
        rows = [
            (name, model.version or "-", model.status, model.error or "")
            for name, model in models.items()
        ]
        print(table(("model", "version", "status", "error"), rows))
    else:
        note("nothing is desired")
    return 0 if all(_done(model) for model in models.values()) else 1


def _options(args: argparse.Namespace) -> dict[str, object]:
    options: dict[str, object] = {
        "thing": args.thing,
        "store": args.store,
        "broker.url": args.broker,
        "http.listen": args.http,
        "profile": args.profile,
        "memory_limit": args.memory_limit,
        "log.format": args.log,
    }
    return options | {f"labels.{key}": value for key, value in args.label}


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals or "." in key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _done(model: ReportedModel) -> bool:
    trial = model.canary
    return model.status == "running" and (trial is None or trial.status == "running")
