"""``edge-sdk fleet serve``: the cloud side in one process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.cli.output import emit_json
from edge_sdk.errors import MissingEngineError

if TYPE_CHECKING:
    from edge_sdk.fleet.serve import Serving

LINE = "serve a fleet: shadows, rollouts, bundles; without options, for this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options; they go before what the file says."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (TOML)")
    parser.add_argument(
        "--broker", metavar="URL", help="mqtt[s]://[user:password@]host[:port]; else one is started"
    )
    parser.add_argument("--ca", metavar="FILE", help="authorities of the broker's certificate")
    parser.add_argument("--certificate", metavar="FILE", help="own certificate, for mutual TLS")
    parser.add_argument("--key", metavar="FILE", help="its private key")
    parser.add_argument(
        "--broker-port", type=int, metavar="PORT", help="of the broker that is started"
    )
    parser.add_argument(
        "--db",
        metavar="URL",
        help="sqlite:///FILE or postgresql://…; a file in --data unless given",
    )
    parser.add_argument("--http", metavar="HOST:PORT", help="API; 127.0.0.1:8080 unless given")
    parser.add_argument("--data", metavar="DIR", help="all that is kept; fleet-data unless given")
    parser.add_argument(
        "--store", metavar="DIR", help="bundles to hand out; in --data unless given"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object once everything is reached"
    )
    parser.set_defaults(act=run)


def run(args: argparse.Namespace) -> int:
    """Serves until it is told to stop by SIGTERM or SIGINT."""
    try:
        from edge_sdk.fleet.config import read_config
        from edge_sdk.fleet.serve import serve
    except ImportError as error:
        raise MissingEngineError(
            f"the fleet's server needs {error.name}", remedy="pip install 'edge-sdk[fleet]'"
        ) from error
    config = read_config(
        args.config,
        {
            "broker.url": args.broker,
            "broker.ca": args.ca,
            "broker.certificate": args.certificate,
            "broker.key": args.key,
            "broker.port": args.broker_port,
            "database": args.db,
            "http.listen": args.http,
            "data": args.data,
            "store": args.store,
        },
    )
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("edge_sdk").setLevel(logging.INFO)

    async def until_told() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(config, stop, emit_json if args.json else _say)

    asyncio.run(until_told())
    return 0


def _say(serving: Serving) -> None:
    """The first lines: what this is, and how a device comes to it."""
    started = f" ({serving.broker_kind}, started here, for this machine only)"
    token = "" if serving.token else " (no token: whoever reaches it may change the fleet)"
    lines = (
        f"broker    {serving.broker}{started if serving.broker_kind else ''}",
        f"shadows   {' and '.join(serving.roots)}",
        f"database  {serving.database}",
        f"API       {serving.http}{token}",
        f"bundles   {serving.http}/v2/ from {serving.store}",
        f"          add one: edge-sdk push BUNDLE {serving.http}/NAME:VERSION",
        f"devices   edge-sdk agent --thing NAME --broker {serving.broker} --store DIR",
    )
    print("\n".join(lines), file=sys.stdout, flush=True)
