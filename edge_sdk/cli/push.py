"""``edge-sdk push``: a bundle into an OCI registry."""

from __future__ import annotations

import argparse

import msgspec

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.cli.output import emit_json, human_bytes
from edge_sdk.cli.transfers import add_transfer_arguments, reference, shown_progress

EPILOG = """\
examples:
  edge-sdk push digits.bundle registry.example/models/digits:1.0.0
  edge-sdk push STORE#digits:1.0.0 localhost:5000/digits:1.0.0

Only what the registry lacks travels. Credentials are those of `docker login`, or
EDGE_SDK_REGISTRY_USER and EDGE_SDK_REGISTRY_PASSWORD.
"""


class PushResult(msgspec.Struct, frozen=True, kw_only=True):
    """What ``push --json`` prints.

    Attributes:
        ref: Where the bundle is now.
        digest: Of its image index: what devices are told to run.
        name: The model's name.
        version: The model's version.
        pushed_bytes: Bytes that travelled.
        reused_bytes: Bytes of blobs that the registry had.
    """

    ref: str
    digest: str
    name: str
    version: str
    pushed_bytes: int
    reused_bytes: int
    schema: str = "org.edge-sdk.push/1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.epilog = EPILOG
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle, or STORE#name:version")
    parser.add_argument("reference", metavar="REF", help="host[:port]/repository:tag")
    add_transfer_arguments(parser, parallel=8)


def run(args: argparse.Namespace) -> int:
    """Pushes, and says what travelled."""
    from edge_sdk.transport.push import push
    from edge_sdk.transport.registry_http import RegistryClient

    bundle = open_bundle(args.bundle)
    target = reference(args)
    client = RegistryClient(ca=args.ca, connections=args.parallel)
    with shown_progress() as progress:
        pushed = push(
            client,
            bundle,
            target,
            parallel=args.parallel,
            rate_limit=args.rate_limit,
            progress=progress,
        )
    client.close()
    result = PushResult(
        ref=str(target),
        digest=pushed.digest,
        name=bundle.name,
        version=bundle.version,
        pushed_bytes=pushed.pushed_bytes,
        reused_bytes=pushed.reused_bytes,
    )
    if args.json:
        emit_json(result)
    else:
        print(
            f"{result.ref} is {result.name} {result.version}, {result.digest}\n"
            f"sent {human_bytes(result.pushed_bytes)}; "
            f"{human_bytes(result.reused_bytes)} were there"
        )
    return 0
