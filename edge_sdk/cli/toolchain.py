"""``edge-sdk toolchain``: environments of exporters, apart from the user's own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_sdk.cli.convert import require_converters, spoken_progress
from edge_sdk.cli.output import answer, human_bytes, table
from edge_sdk.errors import InputError

if TYPE_CHECKING:
    from converters.toolchains import Environment

EPILOG = """\
examples:
  edge-sdk toolchain ls
  edge-sdk toolchain install hugging-face
  edge-sdk toolchain install hugging-face --from-wheels /media/wheels   # without a network
  edge-sdk toolchain rm hugging-face

Commands that need a toolchain build it on first use. It is a virtual environment with pinned
packages in the user's cache folder (EDGE_SDK_CACHE to have it elsewhere); pip takes its index,
proxy and wheel folders from where it always does (PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf).
"""


class ToolchainView(msgspec.Struct, frozen=True, kw_only=True):
    """One toolchain.

    Attributes:
        name: What it is found by.
        title: What it is for.
        state: ``installed``, ``absent``, ``torn`` where a build was cut off, or ``outdated``
            where no toolchain that is known here has these pins.
        folder: Where it is, or would be.
        size: Bytes on disk with what it cached; about what it takes where it is absent.
        python: Version that it is built on, or Python versions that it runs on.
        packages: What is installed, or what it asks for.
    """

    name: str
    title: str
    state: str
    folder: str
    size: int
    python: str
    packages: tuple[str, ...]


class ToolchainList(msgspec.Struct, frozen=True, kw_only=True):
    """What ``toolchain ls`` and ``toolchain install`` print with ``--json``."""

    toolchains: tuple[ToolchainView, ...]
    dry_run: bool = False
    schema: str = "org.edge-sdk.toolchain-list/1"


class ToolchainRemoval(msgspec.Struct, frozen=True, kw_only=True):
    """What ``toolchain rm --json`` prints."""

    removed: tuple[str, ...]
    bytes: int
    dry_run: bool
    schema: str = "org.edge-sdk.toolchain-removal/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the sub-commands and their options."""
    parser.epilog = EPILOG
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(
        name: str, run: Callable[[argparse.Namespace], int], line: str
    ) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.set_defaults(act=run)
        return sub

    action("ls", _ls, "list toolchains, with what is installed")
    install = action("install", _install, "build toolchains now, and not on first use")
    install.add_argument("names", nargs="+", metavar="NAME")
    install.add_argument("--dry-run", action="store_true", help="only say what would be built")
    install.add_argument(
        "--from-wheels", type=Path, metavar="DIR", help="take wheels from a folder, no index"
    )
    remove = action("rm", _remove, "remove toolchains, older versions of them and their cache")
    remove.add_argument("names", nargs="+", metavar="NAME")
    remove.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command."""
    require_converters()
    code: int = args.act(args)
    return code


def _ls(args: argparse.Namespace) -> int:
    views = tuple(_view(each) for each in _everything())
    rows = [
        (
            view.name,
            view.state,
            view.python,
            f"{'~' if view.state == 'absent' else ''}{human_bytes(view.size)}",
            view.title,
        )
        for view in views
    ]
    text = table(("name", "state", "python", "size", "for"), rows)
    answer(ToolchainList(toolchains=views), text, args.json)
    return 0


def _install(args: argparse.Namespace) -> int:
    from converters.toolchains import find
    from converters.toolchains.interpreters import choose

    if args.from_wheels and not args.from_wheels.is_dir():
        raise InputError("no such folder", where=f"--from-wheels {args.from_wheels}")
    environments = [find(name) for name in dict.fromkeys(args.names)]
    lines = []
    for environment in environments:
        toolchain = environment.toolchain
        if not args.dry_run:
            with spoken_progress() as progress:
                marker = environment.install(progress, args.from_wheels)
            lines.append(
                f"{toolchain.name}: installed on Python {marker.python}, "
                f"{human_bytes(marker.size_bytes)} in {environment.folder}"
            )
        elif environment.state == "installed":
            lines.append(f"{toolchain.name}: is installed in {environment.folder}")
        else:
            python = choose(toolchain.python, toolchain.name)
            lines.append(
                f"{toolchain.name}: would install {', '.join(toolchain.packages)} on Python "
                f"{python} ({python.path}), about {human_bytes(toolchain.size_bytes)} "
                f"in {environment.folder}"
            )
    views = tuple(map(_view, environments))
    answer(ToolchainList(toolchains=views, dry_run=args.dry_run), "\n".join(lines), args.json)
    return 0


def _remove(args: argparse.Namespace) -> int:
    from converters.toolchains import find
    from converters.toolchains.environment import disk_usage, remove

    known = [_view(each) for each in _everything()]
    for name in args.names:
        if name not in {view.name for view in known}:
            find(name)  # says which there are
    views = [view for view in known if view.name in args.names and view.state != "absent"]
    folders = [Path(view.folder) for view in views]
    freed = sum(map(disk_usage if args.dry_run else remove, folders))
    result = ToolchainRemoval(removed=tuple(map(str, folders)), bytes=freed, dry_run=args.dry_run)
    verb = "would free" if args.dry_run else "freed"
    text = f"{verb} {human_bytes(freed)}" if folders else "nothing of that is installed"
    answer(result, text, args.json)
    return 0


def _everything() -> list[Environment | Path]:
    """All toolchains, and environments that are of none."""
    from converters.toolchains import Environment, registered
    from converters.toolchains.environment import leftovers

    known = [Environment(toolchain) for toolchain in registered()]
    return [*known, *leftovers(known)]


def _view(found: Environment | Path) -> ToolchainView:
    from converters.toolchains.environment import disk_usage

    if isinstance(found, Path):
        return ToolchainView(
            name=found.name.rpartition("-")[0],
            title="another version, or a plug-in that is gone",
            state="outdated",
            folder=str(found),
            size=disk_usage(found),
            python="-",
            packages=(),
        )
    toolchain, marker, state = found.toolchain, found.marker, found.state
    return ToolchainView(
        name=toolchain.name,
        title=toolchain.title,
        state=state,
        folder=str(found.folder),
        size=toolchain.size_bytes if state == "absent" else disk_usage(found.folder),
        python=marker.python if marker else str(toolchain.python),
        packages=marker.packages if marker else toolchain.packages,
    )
