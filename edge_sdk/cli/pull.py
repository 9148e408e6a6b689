"""``edge-sdk pull``: a bundle out of an OCI registry, into a directory or a device's store."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from edge_sdk.bundle.reader import Bundle
from edge_sdk.bundle.store import Store
from edge_sdk.cli.output import emit_json, human_bytes
from edge_sdk.cli.transfers import add_transfer_arguments, reference, shown_progress
from edge_sdk.errors import ConfigError
from edge_sdk.transport.fetch import Fetched, ProfileChoice, fetch
from edge_sdk.transport.source import BlobSource

EPILOG = """\
examples:
  edge-sdk pull registry.example/models/digits:1.0.0 digits.bundle
  edge-sdk pull registry.example/models/digits:1.1.0 digits.bundle --force
  edge-sdk pull localhost:5000/digits:1.0.0 --store /var/lib/edge-sdk --profile auto

Only missing blobs travel, and what was interrupted goes on where it was: give the same
command again. Credentials are those of `docker login`, or EDGE_SDK_REGISTRY_USER and
EDGE_SDK_REGISTRY_PASSWORD.
"""


class PullResult(msgspec.Struct, frozen=True, kw_only=True):
    """What ``pull --json`` prints.

    Attributes:
        path: Where the bundle opens from: its directory, or ``STORE#name:version``.
        digest: Of its image index.
        name: The model's name.
        version: The model's version.
        profiles: Device profiles of the variants that are here.
        fetched_bytes: Bytes that travelled.
        reused_bytes: Bytes that were here.
    """

    path: str
    digest: str
    name: str
    version: str
    profiles: tuple[str, ...]
    fetched_bytes: int
    reused_bytes: int
    schema: str = "org.edge-sdk.pull/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = EPILOG
    parser.add_argument("reference", metavar="REF", help="host[:port]/repository[:tag][@digest]")
    parser.add_argument("directory", metavar="DIR", nargs="?", type=Path, help="for the bundle")
    parser.add_argument(
        "--store", type=Path, metavar="DIR", help="a device's store to install it in"
    )
    parser.add_argument("--profile", help="only this variant; auto: the best one for this machine")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    add_transfer_arguments(parser, parallel=4)


def run(args: argparse.Namespace) -> int:
    """Pulls, and says what travelled."""
    from edge_sdk.transport.registry import RegistrySource
    from edge_sdk.transport.registry_http import RegistryClient

    if (args.directory is None) == (args.store is None):
        raise ConfigError("is pulled into one place", remedy="give either DIR or --store DIR")
    source = RegistrySource(RegistryClient(ca=args.ca, connections=args.parallel))
    bundle, fetched = (_into_directory if args.store is None else _into_store)(source, args)
    source.close()
    name = f"#{bundle.name}:{bundle.version}" if args.store else ""
    result = PullResult(
        path=f"{args.store or args.directory}{name}",
        digest=fetched.bundle.digest,
        name=bundle.name,
        version=bundle.version,
        profiles=tuple(variant.profile for variant in bundle.variants),
        fetched_bytes=fetched.fetched_bytes,
        reused_bytes=fetched.reused_bytes,
    )
    if args.json:
        emit_json(result)
    else:
        print(
            f"{result.path} is {result.name} {result.version} "
            f"for {', '.join(result.profiles)}, {result.digest}\n"
            f"fetched {human_bytes(result.fetched_bytes)}; "
            f"{human_bytes(result.reused_bytes)} were here"
        )
    return 0


def _profile(name: str | None) -> ProfileChoice:
    if name != "auto":
        return name
    from device_profiles.select import select_here

    return select_here


def _into_directory(source: BlobSource, args: argparse.Namespace) -> tuple[Bundle, Fetched]:
    from edge_sdk.transport.pull import pull

    with shown_progress() as progress:
        return pull(
            source,
            reference(args),
            args.directory,
            profile=_profile(args.profile),
            overwrite=args.force,
            parallel=args.parallel,
            rate_limit=args.rate_limit,
            progress=progress,
        )


def _into_store(source: BlobSource, args: argparse.Namespace) -> tuple[Bundle, Fetched]:
    store = Store(args.store)
    with shown_progress() as progress:
        fetched = fetch(
            source,
            reference(args),
            store.root,
            profile=_profile(args.profile),
            parallel=args.parallel,
            rate_limit=args.rate_limit,
            progress=progress,
        )
    entry = store.enter(fetched.descriptor, fetched.bundle.digest)
    return store.open(entry.name, entry.version), fetched
