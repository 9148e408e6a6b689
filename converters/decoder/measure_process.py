"""The fresh process that measures a decoder's memory; see :mod:`converters.decoder.speed`.

Imports as little as a device would: numpy and the engine.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from converters.measure_process import Footprint
from edge_sdk.bundle.record import Generation
from edge_sdk.runtime import process
from edge_sdk.runtime.engine import SessionOptions, find_engine
from edge_sdk.runtime.generation.decoder import CHUNK, Decoder, kv_dtype
from edge_sdk.runtime.generation.kv import KVCache

Question = tuple[str, Generation, list[int], int, int]


def main() -> None:
    """Reads graph, shape, prompt, length of the answer and threads; prints a Footprint."""
    graph, generation, prompt, answer, threads = msgspec.json.decode(
        sys.stdin.buffer.read(), type=Question
    )
    started = time.perf_counter()
    session = find_engine("onnx").open(Path(graph), SessionOptions(threads=threads, arena=False))
    cache = KVCache(generation, 1, len(prompt) + answer, kv_dtype(session))
    decoder = Decoder(session, cache, generation.vocab)
    for past in range(0, len(prompt), CHUNK):
        decoder.prefill(0, prompt[past : past + CHUNK], past)
    first_run_ms = (time.perf_counter() - started) * 1e3
    for past in range(len(prompt), len(prompt) + answer):
        decoder.decode(0, [prompt[0]], [past])
    found = Footprint(
        peak_rss_bytes=process.peak_rss(), pss_bytes=process.pss(), first_run_ms=first_run_ms
    )
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
