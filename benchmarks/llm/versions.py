"""A second version that differs in one layer: on disk, in memory, in time."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.llm import assets
from benchmarks.llm.contest import Contestant, Memory, running
from benchmarks.llm.memory import RECIPE
from benchmarks.result import Outcome, Row
from edge_sdk.bundle.reader import Bundle, open_bundle
from edge_sdk.bundle.record import Blob
from edge_sdk.bundle.store import Store

MB = 1_000_000
CONTEXT = 512


@dataclass(frozen=True)
class Loaded:
    """A version as it was loaded: how long that took, and the process's memory then."""

    seconds: float
    memory: Memory


def run(quick: bool) -> Outcome:
    """Both versions installed in one store; loaded in one process, then in two at once."""
    shape = "135m" if quick else "360m"
    bundles = [
        open_bundle(assets.bundle(shape, RECIPE, changed=changed)) for changed in (False, True)
    ]
    with tempfile.TemporaryDirectory(prefix="store-", dir=assets.CACHE) as folder:
        return measure(shape, Path(folder), bundles)


def measure(shape: str, folder: Path, bundles: Sequence[Bundle]) -> Outcome:
    """The figures of a version and its successor."""
    store, packed = Store(folder), [0]
    first, second = (bundle.name for bundle in bundles)
    for bundle in bundles:
        store.install(bundle)
        load(store, bundle.name)  # packs what is not packed yet
        packed.append(_size(folder / "prepared"))
    one, two, back = load(store, first, second, first)
    pair = load_twice(store, first)
    fetched = sum(blob.size for blob in new_blobs(*bundles))
    grown = two.memory.pss - one.memory.pss
    return Outcome(
        rows=(
            Row(
                f"SmolLM2-{shape.upper()} shape, {RECIPE}, a version with one layer changed: "
                "bytes to fetch; loaded beside the first in one process",
                f"{fetched / MB:.1f} MB; +{grown / MB:.0f} MB PSS, {two.seconds * 1e3:.0f} ms",
            ),
            Row(
                "the same model in two processes at once: PSS and private memory of each",
                f"{pair.pss / MB:.0f} MB, {pair.private / MB:.0f} MB",
            ),
        ),
        figures={
            "fetched_mb": round(fetched / MB, 2),
            "packed_mb": round((packed[2] - packed[1]) / MB, 2),
            "first_pss_mb": round(one.memory.pss / MB, 1),
            "second_more_pss_mb": round(grown / MB, 1),
            "back_more_pss_mb": round((back.memory.pss - two.memory.pss) / MB, 1),
            "first_ms": round(one.seconds * 1e3, 1),
            "second_ms": round(two.seconds * 1e3, 1),
            "two_processes_pss_mb": round(pair.pss / MB, 1),
            "two_processes_private_mb": round(pair.private / MB, 1),
        },
    )


def load(store: Store, *names: str) -> list[Loaded]:
    """Loads versions one after another in one fresh process."""
    with running([_process(store, "versions")]) as workers:
        [worker] = workers.values()
        return [Loaded(worker.ask({"name": name})["seconds"], worker.memory()) for name in names]


def load_twice(store: Store, name: str) -> Memory:
    """Memory of a process while another one has the same version loaded."""
    with ExitStack() as stack:
        workers = stack.enter_context(running([_process(store, "one"), _process(store, "other")]))
        for worker in workers.values():
            worker.ask({"name": name})
        return workers["one"].memory()


def new_blobs(first: Bundle, second: Bundle) -> list[Blob]:
    """What a device that has the first version fetches for the second."""
    known = set(first.variant(assets.PROFILE).all_blobs)
    return [blob for blob in second.variant(assets.PROFILE).all_blobs if blob not in known]


def _process(store: Store, name: str) -> Contestant:
    settings = {
        "store": str(store.root),
        "profile": assets.PROFILE,
        "threads": 1,
        "context": CONTEXT,
    }
    return Contestant(name, Path(sys.executable), "benchmarks.llm.worker_versions", settings)


def _size(folder: Path) -> int:
    """Bytes of all files, each once however many names it has."""
    files = {file.stat().st_ino: file.stat() for file in folder.rglob("*") if file.is_file()}
    return sum(status.st_size for status in files.values())
