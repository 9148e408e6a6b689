"""``edge-sdk demo``: the whole story on one machine, from a model to a fleet that runs it."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from edge_sdk.bundle.files import writing
from edge_sdk.cli.convert import require_converters
from edge_sdk.cli.output import emit_json, note
from edge_sdk.errors import InputError, MissingEngineError

EPILOG = """\
Converts a small dialogue model for several devices, serves a fleet of three agents on this
machine, deploys a version in stages, a broken one that comes back by itself, and a tuned one
while a device is away. Everything is left in a folder to try things on.

examples:
  edge-sdk demo
  edge-sdk demo --out fleet-demo --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="new folder for it (default: a temporary one)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Tells the story on stdout; with ``--json`` on stderr, and one object on stdout."""
    require_converters()
    if missing := [name for name in ("sqlalchemy", "uvicorn", "amqtt") if not find_spec(name)]:
        raise MissingEngineError(
            f"a fleet needs {', '.join(missing)}", remedy="pip install 'edge-sdk[all]'"
        )
    from edge_sdk.cli.demo.story import Story

    folder = _new_folder(args.out)
    own = _own_profile()
    result = Story(folder, own, note if args.json else _say).tell()
    if args.json:
        emit_json(result)
    else:
        print(f"{result.seconds:.0f} s in all. Try next:\n")
        print("\n".join(f"  {line}" for line in _try_next(folder, own)))
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _new_folder(out: Path | None) -> Path:
    if out is None:
        return Path(tempfile.mkdtemp(prefix="edge-sdk-demo-"))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("is not empty", where=str(out), remedy="give a new folder")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    return out.absolute()


def _own_profile() -> str:
    """This machine's own among the built-in profiles."""
    from device_profiles.loader import BUILTIN, profiles
    from device_profiles.machine import detect_machine
    from device_profiles.select import select

    built_in = profiles(only={path.stem for path in BUILTIN.glob("*.toml")})
    platforms = {name: profile.platform for name, profile in built_in.items()}
    return select(platforms, detect_machine())


def _try_next(folder: Path, own: str) -> Iterator[str]:
    command = _command()
    yield shlex.join(["cd", str(folder)])
    for words in (
        f"inspect assistant-1.2.0.bundle --profile {own}",
        f"run gateway-1#assistant:1.2.0 --profile {own} --prompt 'set the boiler to 65'",
        "fleet serve --data fleet",
    ):
        yield f"{command} {words}"


def _command() -> str:
    """How to call ``edge-sdk`` of this environment in the user's shell."""
    script = Path(sys.executable).with_name("edge-sdk")
    if shutil.which("edge-sdk") == str(script):
        return "edge-sdk"
    found = [str(script)] if script.exists() else [sys.executable, "-m", "edge_sdk.cli.main"]
    return shlex.join(found)
