"""Runs benchmarks by name, all by default."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module

from benchmarks.result import write

NAMES = ("footprint", "passes", "fit", "digits", "encoder")
# On request (``llm`` means all): they take half an hour, and build environments for the peers.
LLM = tuple(
    f"llm.{name}"
    for name in (
        "speed", "memory", "limits", "versions", "start", "streams", "perplexity", "fit",
    )
)  # fmt: skip
# Likewise; they start brokers, servers and agents.
FLEET = tuple(f"fleet.{name}" for name in ("shadow", "idle", "rollout", "wire", "swap"))
# Likewise; needs control groups, and the dialogue model of ``llm``.
BOARD = ("board512",)
# Likewise; builds environments of two gigabytes for other quantizers.
PEERS = ("peers",)
GROUPS = {"llm": LLM, "fleet": FLEET}
ALL = (*NAMES, *LLM, *FLEET, *BOARD, *PEERS)


def main() -> int:
    """Runs them one after another; nothing else should run on the machine."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join((*ALL, *GROUPS))}",
    )
    parser.add_argument("--quick", action="store_true", help="less data and fewer repeats")
    args = parser.parse_args()
    wanted = [one for name in args.names for one in GROUPS.get(name, (name,))]
    unknown = set(wanted) - set(ALL)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    for name in wanted or NAMES:
        started = time.monotonic()
        outcome = import_module(f"benchmarks.{name}").run(args.quick)
        path = write(name, outcome, quick=args.quick, seconds=time.monotonic() - started)
        print(f"{name}: {path.name}")
        for row in outcome.rows:
            print(f"  {row.what}: {row.measured}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
