"""What ``push`` and ``pull`` have in common: options, and a line that shows how far it is."""

from __future__ import annotations

import argparse
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.cli.output import human_bytes, note
from edge_sdk.errors import InputError
from edge_sdk.transport.source import Reference

if TYPE_CHECKING:
    from edge_sdk.transport.transfer import Progress

MOST_PARALLEL = 64
_LIVE, _SPOKEN = 0.1, 5.0  # seconds between two lines on a terminal, and elsewhere


def add_transfer_arguments(parser: argparse.ArgumentParser, parallel: int) -> None:
    """Adds the options of both commands."""
    parser.add_argument(
        "--parallel", type=_parallel, default=parallel, metavar="N",
        help=f"blobs that travel at a time (default: {parallel})",
    )  # fmt: skip
    parser.add_argument(
        "--rate-limit", type=_rate, metavar="SIZE", help="bytes per second: 500k, 2MiB"
    )
    parser.add_argument(
        "--plain-http", action="store_true",
        help="speak HTTP and not HTTPS; on this machine that is done anyway",
    )  # fmt: skip
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="certificates to trust in place of the system's"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def reference(args: argparse.Namespace) -> Reference:
    """The reference that the command names.

    Raises:
        ConfigError: It is none.
    """
    found = Reference.parse(args.reference)
    return replace(found, plain=True) if args.plain_http else found


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    """How far a transfer is, on stderr: one live line on a terminal, few lines elsewhere."""
    live = sys.stderr.isatty()
    began = said = time.monotonic()
    if not live:
        said += _SPOKEN  # short transfers are done before there is something to say
    start: int | None = None

    def show(progress: Progress) -> None:
        nonlocal said, start
        start = progress.bytes_done if start is None else start
        now = time.monotonic()
        if now < said or not progress.bytes_total:
            return
        said = now + (_LIVE if live else _SPOKEN)
        line = progress_line(progress, (progress.bytes_done - start) / max(now - began, 1e-3))
        if live:
            print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            note(line)

    try:
        yield show
    finally:
        if live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def progress_line(progress: Progress, rate: float) -> str:
    """One line: share, bytes, blobs, speed, and the time that is left.

    Args:
        progress: How far it is.
        rate: Bytes per second so far.
    """
    left = progress.bytes_total - progress.bytes_done
    eta = f", {left / rate:.0f} s left" if rate > 0 else ""
    return (
        f"{progress.bytes_done * 100 // progress.bytes_total:3} %  "
        f"{human_bytes(progress.bytes_done)} of {human_bytes(progress.bytes_total)}, "
        f"blob {min(progress.blobs_done + 1, progress.blobs_total)} of {progress.blobs_total}, "
        f"{human_bytes(rate)}/s{eta}"
    )


def _parallel(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_PARALLEL:
        raise ArgumentTypeError(f"{text!r} is no number from 1 to {MOST_PARALLEL}")
    return int(text)


def _rate(text: str) -> int:
    from edge_sdk.runtime.memory import parse_size

    try:
        return parse_size(text)
    except InputError:
        raise ArgumentTypeError(f"{text!r} is no number of bytes, like 500k or 2MiB") from None
