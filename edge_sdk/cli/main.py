"""Entry point: finds the command, imports only that one, and turns errors into exit codes.

Exit codes: 0 done, 1 the work failed, 2 bad input. Results go to stdout,
progress and errors to stderr.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from edge_sdk import __version__
from edge_sdk.errors import EdgeSdkError

# command -> one line of help; the module is edge_sdk.cli.<command>, with
# add_arguments(parser) and run(args) -> int.
COMMANDS = {
    "demo": "the whole story on this machine, in a minute or two: from a model to a fleet",
    "profiles": "list, show or detect device profiles",
    "fit": "predict size, memory and speed of a model per profile before converting it",
    "convert": "turn a model into one verified bundle for one or more profiles",
    "inspect": "show what is inside a bundle, why, and the report",
    "run": "run a bundle on an .npz of inputs, on text or on a prompt",
    "chat": "talk with a dialogue model",
    "bench": "measure a bundle's latency, throughput and memory",
    "compare": "models, bundles or variants side by side: accuracy, speed, memory, size",
    "push": "push a bundle to an OCI registry",
    "pull": "pull a bundle from an OCI registry, only what is missing",
    "store": "list, verify or clean a device's store",
    "agent": "run on a device what its shadow in the cloud says",
    "fleet": "serve a fleet of devices; list them, and bring versions to them in stages",
    "toolchain": "list, install or remove environments of exporters, apart from your own",
    "completion": "print a shell completion script",
}

FULL = (errno.ENOSPC, errno.EDQUOT)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The argument parser, with the options of ``command`` filled in (all when ``None``)."""
    parser = argparse.ArgumentParser(
        prog="edge-sdk",
        description="Convert models for edge devices, run them there, keep fleets of them in step.",
        epilog="Start with `edge-sdk demo`; `edge-sdk COMMAND --help` teaches each command.",
    )
    parser.add_argument("--version", action="version", version=f"edge-sdk {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_line in COMMANDS.items():
        sub = subparsers.add_parser(
            name,
            help=help_line,
            description=help_line[0].upper() + help_line[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if command in (None, name):
            import_module(f"edge_sdk.cli.{name}").add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _terminate)
    command = next((word for word in arguments if word in COMMANDS), "")
    args = build_parser(command).parse_args(arguments)
    try:
        code: int = import_module(f"edge_sdk.cli.{args.command}").run(args)
        sys.stdout.flush()  # while somebody can be told that it failed
    except EdgeSdkError as error:
        print(f"edge-sdk {args.command}: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our stdout went away (`| head`): not an error of ours.
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in FULL or error.filename is not None:
            raise
        problem = f"error: standard output: cannot write: {error.strerror}"
        print(f"edge-sdk {args.command}: {problem}", file=sys.stderr)
        _drop_output()
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return code


def _drop_output() -> None:
    """Sends what is left for stdout nowhere: Python writes it once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(number: int, _: object) -> NoReturn:
    """Leaves by way of every ``finally``, so that nothing half-written stays."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
