"""``edge-sdk profiles list | show NAME | detect``: what devices there are, and what this one is."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import msgspec

from device_profiles.loader import load_profile, profile_path, profiles
from device_profiles.machine import InstalledEngine
from device_profiles.schema import Profile
from edge_sdk.bundle.files import replace, writing
from edge_sdk.cli.output import emit_json, note, table
from edge_sdk.errors import InputError


class ProfileList(msgspec.Struct, frozen=True, kw_only=True):
    """What ``profiles list --json`` prints: every profile by name."""

    profiles: tuple[Profile, ...]
    schema: str = "org.edge-sdk.profiles/1"


class ShownProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What ``profiles show --json`` prints: a profile and the file it stands in."""

    profile: Profile
    file: str
    schema: str = "org.edge-sdk.profile/1"


class DetectedProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What ``profiles detect --json`` prints.

    ``file`` is where the profile was written, if anywhere; ``engines`` are the inference engines
    found here with their versions, also those the profile has no use for.
    """

    profile: Profile
    engines: tuple[InstalledEngine, ...]
    file: str | None = None
    schema: str = "org.edge-sdk.detected-profile/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-commands and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="one line per profile")
    show = actions.add_parser("show", help="print one profile as TOML")
    show.add_argument("name", metavar="NAME", help="a profile's name, or the path of a .toml file")
    detect = actions.add_parser("detect", help="measure this machine and print a profile of it")
    detect.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it to FILE")
    detect.add_argument("--force", action="store_true", help="replace FILE if it exists")
    for action in (listing, show, detect):
        action.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Runs the chosen sub-command."""
    if args.action == "list":
        return _list(as_json=args.json)
    if args.action == "show":
        return _show(args.name, as_json=args.json)
    return _detect(args.output, force=args.force, as_json=args.json)


def _list(*, as_json: bool) -> int:
    known = tuple(profiles().values())
    if as_json:
        emit_json(ProfileList(profiles=known))
        return 0
    header = ("name", "platform", "cores", "memory MiB", "budget MiB", "engines", "title")
    print(table(header, (_row(profile) for profile in known)))
    return 0


def _row(profile: Profile) -> tuple[str, ...]:
    platform = profile.platform
    return (
        profile.name,
        "/".join(filter(None, (platform.os, platform.architecture, platform.variant))),
        str(profile.cpu.cores),
        str(profile.memory.total_mib),
        str(profile.memory.model_budget_mib),
        ", ".join(_engine(choice.name, choice.providers) for choice in profile.engines),
        profile.title,
    )


def _engine(name: str, providers: tuple[str, ...]) -> str:
    short = (provider.removesuffix("ExecutionProvider") for provider in providers)
    return f"{name} ({' > '.join(short)})" if providers else name


def _show(name: str, *, as_json: bool) -> int:
    profile, file = load_profile(name), profile_path(name)
    if as_json:
        emit_json(ShownProfile(profile=profile, file=str(file)))
    else:
        print(file.read_text(encoding="utf-8"), end="")  # with its comments
    return 0


def _detect(output: Path | None, *, force: bool, as_json: bool) -> int:
    if output is not None:
        _check_target(output, force=force)
    from device_profiles.detect import detect
    from device_profiles.machine import installed_engines
    from device_profiles.parse import to_toml

    profile = detect(_name_for(output))
    engines = tuple(installed_engines())
    if output is not None:
        with writing(output):
            replace(output, to_toml(profile).encode(), output.parent)
        note(f"wrote {output}")
    if as_json:
        file = str(output) if output is not None else None
        emit_json(DetectedProfile(profile=profile, engines=engines, file=file))
    elif output is None:
        print(to_toml(profile), end="")
    return 0


def _name_for(output: Path | None) -> str:
    """The file's name makes the profile's, so that the file can stand in a plug-in's folder."""
    stem = re.sub(r"[^a-z0-9._-]+", "-", output.stem.lower()).lstrip("._-") if output else ""
    return stem or "detected"


def _check_target(output: Path, *, force: bool) -> None:
    """Before a second is spent on measuring."""
    if output.exists() and not force:
        raise InputError("already exists", where=str(output), remedy="add --force to replace it")
    if not output.parent.is_dir():
        raise InputError("no such folder", where=str(output.parent), remedy="create it first")
