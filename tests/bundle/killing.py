"""Kills a process at every one of its file-system calls in turn, and looks at what is left.

``python -m tests.bundle.killing SCENARIO DIR`` runs one scenario: for N = 1, 2, …
a forked child does the work on a fresh copy and gets SIGKILL just before its
N-th call that opens, renames, links or removes; the parent then checks what the
product promises. Ends when a child survives; prints the number of kills.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from edge_sdk.bundle.reader import open_bundle
from edge_sdk.bundle.store import Store
from tests.bundle.samples import make_bundle

CALLS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock"}


def killed(number: int, work: Callable[[], object], within: str = "") -> bool:
    """Runs ``work`` in a child; whether it was killed at its ``number``-th call.

    Only calls on paths that contain ``within`` count.
    """
    child = os.fork()
    if child == 0:
        calls = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal calls
            if event in CALLS and within in str(arguments[0]):
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def check(store: Store, *needed: str) -> None:
    """Every installed bundle is intact, and those needed are installed."""
    assert list(store.verify()) == []
    assert set(needed) <= {entry.version for entry in store.ls()}


def install(folder: Path, number: int) -> bool:
    """A bundle beside another: the other one stays, and a second try completes."""
    store = Store(shutil.copytree(folder / "store", folder / f"try-{number}"))
    bundle = open_bundle(folder / "new")
    if not killed(number, lambda: store.install(bundle)):
        return False
    check(store, "1.0.0")
    store.install(bundle)
    check(store, "1.0.0", "2.0.0")
    store.gc()
    assert list(store.blobs.temporary.iterdir()) == []
    return True


def first_install(folder: Path, number: int) -> bool:
    """Into a store that does not exist yet: a second try completes."""
    store = Store(folder / f"try-{number}")
    bundle = open_bundle(folder / "new")
    if not killed(number, lambda: store.install(bundle)):
        return False
    store.install(bundle)
    check(store, "2.0.0")
    return True


def gc(folder: Path, number: int) -> bool:
    """With garbage of every kind: what is installed stays, and a second run ends the job."""
    store = Store(shutil.copytree(folder / "store", folder / f"try-{number}"))
    store.install(open_bundle(folder / "new"))
    store.remove("digits", "1.0.0")
    (store.blobs.temporary / "stale").touch()
    (store.prepared / ("0" * 64)).mkdir(parents=True)
    (store.prepared / ("0" * 64) / "packed").touch()
    if not killed(number, store.gc):
        return False
    check(store, "2.0.0")
    store.gc()
    check(store, "2.0.0")
    new = {file.name for file in (folder / "new" / "blobs" / "sha256").iterdir()}
    assert {file.name for file in store.blobs.folder.iterdir()} == new
    assert not list(store.blobs.temporary.iterdir()) + list(store.prepared.iterdir())
    return True


def write(folder: Path, number: int) -> bool:
    """Writing a bundle: it is complete or absent, and the next writer clears the remains."""
    target = folder / f"try-{number}" / "bundle"
    if not killed(number, lambda: make_bundle(target)):
        return False
    if target.exists():
        open_bundle(target).verify()
    make_bundle(target, version="2.0.0", overwrite=True)
    assert open_bundle(target).version == "2.0.0"
    assert [entry.name for entry in target.parent.iterdir()] == ["bundle"]
    return True


def main(scenario: str, folder: Path) -> None:
    """Runs one scenario to its end."""
    old = make_bundle(folder / "old")
    make_bundle(folder / "new", version="2.0.0", head=b"tuned")
    Store(folder / "store").install(open_bundle(old))
    scenarios = {"install": install, "first_install": first_install, "gc": gc, "write": write}
    number = 1
    while scenarios[scenario](folder, number):
        shutil.rmtree(folder / f"try-{number}", ignore_errors=True)
        number += 1
    print(number - 1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
