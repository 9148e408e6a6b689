"""``edge-sdk store``: what is installed on this device, whether it is intact, and its space."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Installed, Store
from edge_sdk.cli.output import emit_json, human_bytes, note, table
from edge_sdk.errors import BundleError


class InstalledView(msgspec.Struct, frozen=True, kw_only=True):
    """One installed bundle; profiles and size are absent where it is damaged.

    Attributes:
        name: The model's name.
        version: The model's version.
        digest: Of its image index, or of the manifest of the one variant that is here.
        bundle_digest: Of its image index in any case: what registries and fleets know it by.
        profiles: Device profiles of the variants that are here.
        size: Bytes of their blobs.
        damage: What is wrong with it.
    """

    name: str
    version: str
    digest: str
    bundle_digest: str
    profiles: tuple[str, ...] = ()
    size: int | None = None
    damage: str | None = None


class StoreList(msgspec.Struct, frozen=True, kw_only=True):
    """What ``store ls``, ``install`` and ``rm`` print with ``--json``."""

    installed: tuple[InstalledView, ...]
    schema: str = "org.edge-sdk.store-list/1"


class ProblemView(msgspec.Struct, frozen=True, kw_only=True):
    """One damaged blob or document of an installed bundle."""

    name: str
    version: str
    where: str | None
    message: str


class StoreVerification(msgspec.Struct, frozen=True, kw_only=True):
    """What ``store verify --json`` prints."""

    intact: bool
    problems: tuple[ProblemView, ...]
    schema: str = "org.edge-sdk.store-verify/1"


class StoreSweep(msgspec.Struct, frozen=True, kw_only=True):
    """What ``store gc --json`` prints; ``bytes`` counts the blobs only."""

    blobs: tuple[str, ...]
    bytes: int
    prepared: int
    temporary: int
    dry_run: bool
    schema: str = "org.edge-sdk.store-gc/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the sub-commands and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(
        name: str, run: Callable[[Store, argparse.Namespace], int], line: str
    ) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        sub.add_argument("--store", type=Path, required=True, metavar="DIR", help="the store")
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.set_defaults(act=run)
        return sub

    action("ls", _ls, "list what is installed")
    action("verify", _verify, "read and hash every blob of every installed bundle")
    gc = action("gc", _gc, "delete the blobs that no installed bundle needs")
    gc.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    install = action("install", _install, "install a bundle, or one variant of it")
    install.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle directory")
    install.add_argument("--profile", help="install only this variant")
    remove = action("rm", _remove, "take a bundle off the list; gc then frees its space")
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("version", metavar="VERSION")


def run(args: argparse.Namespace) -> int:
    """Runs the sub-command; ``verify`` gives 1 where something is damaged."""
    code: int = args.act(Store(args.store), args)
    return code


def _ls(store: Store, args: argparse.Namespace) -> int:
    views = tuple(_view(store, entry) for entry in store.ls())
    if args.json:
        emit_json(StoreList(installed=views))
    elif not views:
        note("nothing is installed")
    else:
        rows = [
            (
                view.name,
                view.version,
                ", ".join(view.profiles) if view.damage is None else "DAMAGED",
                "-" if view.size is None else human_bytes(view.size),
                view.bundle_digest,
            )
            for view in views
        ]
        print(table(("name", "version", "profiles", "size", "digest"), rows))
    return 0


def _verify(store: Store, args: argparse.Namespace) -> int:
    problems = tuple(
        ProblemView(
            name=problem.name,
            version=problem.version,
            where=problem.error.where,
            message=problem.error.message,
        )
        for problem in store.verify()
    )
    if args.json:
        emit_json(StoreVerification(intact=not problems, problems=problems))
    for problem in problems:
        note(f"{problem.name} {problem.version}: {problem.where}: {problem.message}")
    if problems:
        note("remedy: install the damaged bundles again; that replaces only what is damaged")
    elif not args.json:
        print(f"{len(store.ls())} installed, all intact")
    return 1 if problems else 0


def _gc(store: Store, args: argparse.Namespace) -> int:
    swept = store.gc(dry_run=args.dry_run)
    view = StoreSweep(
        blobs=tuple(f"sha256:{path.name}" for path in swept.blobs),
        bytes=sum(swept.blobs.values()),
        prepared=len(swept.prepared),
        temporary=len(swept.temporary),
        dry_run=args.dry_run,
    )
    if args.json:
        emit_json(view)
    else:
        print(
            f"{'would free' if args.dry_run else 'freed'} {human_bytes(view.bytes)}: "
            f"{len(view.blobs)} blobs, {view.prepared} prepared variants, "
            f"{view.temporary} temporary files"
        )
    return 0


def _install(store: Store, args: argparse.Namespace) -> int:
    entry = store.install(open_bundle(args.bundle), args.profile)
    if args.json:
        emit_json(StoreList(installed=(_view(store, entry),)))
    else:
        print(f"installed {entry.name} {entry.version}")
    return 0


def _remove(store: Store, args: argparse.Namespace) -> int:
    store.remove(args.name, args.version)
    return _ls(store, args) if args.json else 0


def _view(store: Store, entry: Installed) -> InstalledView:
    view = InstalledView(
        name=entry.name,
        version=entry.version,
        digest=entry.descriptor.digest,
        bundle_digest=entry.bundle_digest,
    )
    try:
        bundle = store.open(entry.name, entry.version)
    except BundleError as error:
        return msgspec.structs.replace(view, damage=str(error))
    return msgspec.structs.replace(
        view,
        profiles=tuple(variant.profile for variant in bundle.variants),
        size=sum({blob: blob.size for v in bundle.variants for blob in v.all_blobs}.values()),
    )
