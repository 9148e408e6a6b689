"""The device profile of this machine, found by a process of its own.

What engines there are is known only by importing them, which would cost an agent that serves
no model most of its memory.
"""

from __future__ import annotations

import subprocess
import sys

PATIENCE = 120.0  # seconds; importing an engine takes a slow board some


def profile_name(configured: str) -> str:
    """The profile that variants are chosen for.

    Args:
        configured: A name, or ``auto`` for this machine's; empty where none is known.
    """
    if configured != "auto":
        return configured
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            stdout=subprocess.PIPE, timeout=PATIENCE, check=False, text=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _main() -> None:
    from device_profiles.loader import profiles
    from device_profiles.machine import detect_machine
    from device_profiles.select import select
    from edge_sdk.errors import ProfileError

    known = {name: profile.platform for name, profile in profiles().items()}
    try:
        print(select(known, detect_machine()))
    except ProfileError as error:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    _main()
