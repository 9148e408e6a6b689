"""Loads versions out of a store one after another, the new one before the old one goes.

Settings: ``store``, ``profile``, ``threads``, ``context``. A request names a bundle of the
store. Only what a device has is imported.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from edge_sdk.bundle.store import Store
from edge_sdk.runtime.generation.generator import Generator
from edge_sdk.runtime.generation.opening import open_generator

ANSWER = 8


def load(store: Store, name: str, settings: dict[str, Any]) -> Generator:
    """Opens a version as a running agent does: its blobs were verified when installed."""
    variant = store.open(name).variant(settings["profile"])
    return open_generator(variant, settings["threads"], None, settings["context"], 1)


def answer(generator: Generator) -> None:
    """A few greedy tokens."""
    generator.generate(
        list(range(300, 332)),
        max_new_tokens=ANSWER,
        sampling={"temperature": 0.0},
        stop=(),
        stop_tokens=(),
        raw=True,
        adapter=None,
    ).read()


def main() -> None:
    """Answers one line per request with the seconds until the version was loaded."""
    settings = json.loads(sys.argv[1])
    store = Store(settings["store"])
    print(json.dumps({"open_ms": 0.0}), flush=True)
    running = None
    for line in sys.stdin:
        started = time.perf_counter()
        standby = load(store, json.loads(line)["name"], settings)
        seconds = time.perf_counter() - started
        answer(standby)
        running, standby = standby, running
        del standby
        print(json.dumps({"seconds": seconds}), flush=True)
    del running


if __name__ == "__main__":
    main()
