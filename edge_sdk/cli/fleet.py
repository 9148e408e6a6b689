"""``edge-sdk fleet``: devices and rollouts of a fleet, asked of its server."""

from __future__ import annotations

import argparse
import os
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_sdk.cli import fleet_serve
from edge_sdk.cli.output import answer, emit_json, note
from edge_sdk.errors import InputError

if TYPE_CHECKING:
    from edge_sdk.fleet.client import FleetClient

EPILOG = """\
examples:
  edge-sdk fleet serve
  edge-sdk fleet devices
  edge-sdk fleet deploy registry.example/digits:1.1.0 --stages 5,25,100 --watch
  edge-sdk fleet deploy digits:1.1.0 --to 'label.site=berlin and profile=arm64*' --dry-run
  edge-sdk fleet rollouts 3 --watch
  edge-sdk fleet abort 3

The server is http://127.0.0.1:8080 unless --server or EDGE_SDK_SERVER says otherwise; what it
asks for as a token comes from --token or EDGE_SDK_TOKEN.
"""
_OPERATIONS = {
    "pause": "ask no further devices; a gate that breaks still ends the rollout",
    "resume": "go on with a paused rollout",
    "approve": "let a rollout take the step that it waits before",
    "abort": "end a rollout and take its devices back to what they had",
    "rollback": "take the devices of a completed rollout back to what they had",
}
_SECONDS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}
Run = Callable[["FleetClient", argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the sub-commands and their options."""
    parser.epilog = EPILOG
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, run: Run, line: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        sub.add_argument("--server", metavar="URL", help="the fleet's server")
        sub.add_argument("--token", metavar="TEXT", help="what the server asks for, if it does")
        sub.add_argument(
            "--ca", metavar="FILE", help="certificates to trust in place of the system's"
        )
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.set_defaults(ask=run)
        return sub

    serve = actions.add_parser("serve", help=fleet_serve.LINE, description=fleet_serve.LINE)
    fleet_serve.add_arguments(serve)
    devices = action("devices", _devices, "list devices: who is there, and what each runs")
    devices.add_argument("--to", default="all", metavar="SELECTOR", help="only these devices")
    show = action("show", _show, "show one device, its errors and its last events")
    show.add_argument("thing", metavar="THING")
    label = action("label", _label, "give a device labels for selectors, or take some away")
    label.add_argument("thing", metavar="THING")
    label.add_argument("labels", nargs="+", metavar="NAME=VALUE", help="NAME= takes it away")
    forget = action("forget", _forget, "forget a device that is gone, and what it should run")
    forget.add_argument("thing", metavar="THING")
    _add_deploy(action("deploy", _deploy, "bring a version of a model to devices, in stages"))
    rollouts = action("rollouts", _rollouts, "list rollouts, or show one")
    rollouts.add_argument("id", nargs="?", type=int, metavar="ID")
    rollouts.add_argument("--watch", action="store_true", help="follow it until it has ended")
    for name, line in _OPERATIONS.items():
        action(name, _operate, line).add_argument("id", type=int, metavar="ID")
    audit = action("audit", _audit, "list what happened, and who did it")
    audit.add_argument("--rollout", type=int, metavar="ID", help="only of one rollout")
    audit.add_argument("--thing", metavar="THING", help="only of one device")
    audit.add_argument("--before", type=int, metavar="N", help="only entries older than number N")


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command.

    Returns:
        1 where a rollout that was watched did not complete.
    """
    if args.action == "serve":
        return fleet_serve.run(args)
    from edge_sdk.fleet.client import FleetClient

    server, token = server_of(args)
    code: int = args.ask(FleetClient(server, token, args.ca), args)
    return code


def server_of(args: argparse.Namespace) -> tuple[str, str | None]:
    """The server, and what it asks for: from options, else the environment."""
    from edge_sdk.fleet.client import DEFAULT_SERVER

    server = args.server or os.environ.get("EDGE_SDK_SERVER") or DEFAULT_SERVER
    return server, args.token or os.environ.get("EDGE_SDK_TOKEN")


def _add_deploy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ref", metavar="REF", help="host/repository:tag, or NAME:VERSION of the server's own store"
    )
    parser.add_argument(
        "--model", metavar="NAME", help="name on the devices; the bundle's own unless given"
    )
    parser.add_argument(
        "--to", default="all", metavar="SELECTOR",
        help="which devices: all (default), or thing=A,B  profile=P  label.NAME=VALUE  joined by"
        " ' and ', with * and ?",
    )  # fmt: skip
    parser.add_argument(
        "--stages", default="5,25,100", metavar="P,P,100|N/min",
        help="percents of devices, each waited for before the next (default 5,25,100), or a rate",
    )  # fmt: skip
    parser.add_argument(
        "--canary", type=int, metavar="P",
        help="each device first gives P percent of its requests to the version",
    )  # fmt: skip
    parser.add_argument(
        "--gate", action="append", default=[], metavar="NAME=VALUE",
        help="a limit other than the default one, such as max_failed=0.1; repeat for several",
    )  # fmt: skip
    parser.add_argument(
        "--soak", type=_duration, metavar="TIME", help="gate soak_s: 30s, 10min, 1h"
    )
    for name, line in (
        ("--approve", "wait for somebody's word before each step after the first"),
        ("--allow-older", "also replace newer versions"),
        ("--keep", "stay in force once completed: devices that appear later get it too"),
        ("--plain-http", "the registry speaks HTTP and not HTTPS"),
        ("--dry-run", "only say what would be done"),
        ("--watch", "follow the rollout until it has ended"),
    ):
        parser.add_argument(name, action="store_true", help=line)


def _devices(client: FleetClient, args: argparse.Namespace) -> int:
    from edge_sdk.cli import fleet_text

    found = client.devices(args.to)
    if args.json:
        emit_json(found)
    elif found.devices:
        print(fleet_text.devices(found.devices))
    else:
        note("no devices")
    return 0


def _show(client: FleetClient, args: argparse.Namespace) -> int:
    from edge_sdk.cli import fleet_text

    found = client.device(args.thing)
    answer(found, fleet_text.device(found), args.json)
    return 0


def _label(client: FleetClient, args: argparse.Namespace) -> int:
    labels: dict[str, str | None] = {}
    for word in args.labels:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise InputError(f"{word!r} is not NAME=VALUE", remedy="NAME= takes a label away")
        labels[name] = value or None
    found = client.label(args.thing, labels)
    text = " ".join(f"{name}={value}" for name, value in found.device.labels.items())
    answer(found, text, args.json)
    return 0


def _forget(client: FleetClient, args: argparse.Namespace) -> int:
    found = client.forget(args.thing)
    answer(found, f"{args.thing} is forgotten", args.json)
    return 0


def _deploy(client: FleetClient, args: argparse.Namespace) -> int:
    from edge_sdk.cli import fleet_text
    from edge_sdk.fleet.views import DeployRequest

    gates = (*args.gate, *([] if args.soak is None else [f"soak_s={args.soak}"]))
    request = DeployRequest(
        ref=args.ref, model=args.model, selector=args.to, stages=args.stages, gates=gates,
        canary=args.canary, approve=args.approve, allow_older=args.allow_older,
        keep=args.keep, plain_http=args.plain_http, dry_run=args.dry_run,
    )  # fmt: skip
    deployment = client.deploy(request)
    for line in deployment.notes:
        note(line)
    if args.watch and deployment.rollout is not None:
        note(fleet_text.deployment(deployment))
        return _watch(client, deployment.rollout, args.json)
    answer(deployment, fleet_text.deployment(deployment), args.json)
    return 0


def _rollouts(client: FleetClient, args: argparse.Namespace) -> int:
    from edge_sdk.cli import fleet_text

    if args.id is None:
        found = client.rollouts()
        if args.json:
            emit_json(found)
        elif found.rollouts:
            print(fleet_text.rollouts(found.rollouts))
        else:
            note("no rollouts")
        return 0
    return _watch(client, args.id, args.json) if args.watch else _print(client, args)


def _print(client: FleetClient, args: argparse.Namespace) -> int:
    from edge_sdk.cli import fleet_text

    found = client.rollout(args.id)
    answer(found, fleet_text.rollout(found), args.json)
    return 0


def _operate(client: FleetClient, args: argparse.Namespace) -> int:
    from edge_sdk.cli import fleet_text

    found = client.operate(args.id, args.action)
    answer(found, fleet_text.line(found.rollout), args.json)
    return 0


def _audit(client: FleetClient, args: argparse.Namespace) -> int:
    from edge_sdk.cli import fleet_text

    found = client.audit(rollout=args.rollout, thing=args.thing, before=args.before)
    answer(found, fleet_text.audit(found.entries), args.json)
    return 0


def _watch(client: FleetClient, number: int, as_json: bool) -> int:
    """Follows a rollout; 1 where it ends otherwise than completed."""
    from edge_sdk.cli import fleet_text

    said = ""
    for view in client.progress(number):
        if (line := fleet_text.line(view)) != said:
            note(line)
        said = line
    found = client.rollout(number)
    answer(found, fleet_text.rollout(found), as_json)
    return 0 if found.rollout.status == "completed" else 1


def _duration(text: str) -> float:
    """Seconds of ``30s``, ``10min`` or ``1h``.

    Raises:
        ArgumentTypeError: It is something else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|)", text)
    if not match:
        raise ArgumentTypeError(f"{text!r} is no time such as 30s, 10min or 1h")
    return float(match[1]) * _SECONDS[match[2]]
