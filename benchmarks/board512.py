"""A board of 512 MB: an agent and its model in a control group of that size, without swap.

Broker and server run outside of it, as they do in the field. The agent starts with an empty
store, so download, verification and the packing of weights are within the limit as well. The
page cache is charged too, so a large model may touch the limit (``limit_hits``) with files that
the kernel then drops; what must not happen is that it kills. Pages of libraries that other
processes of this machine hold are charged to those; the agent's resident size counts them.

Variants are those of ``board-512mb``; the instructions are this machine's, so memory is the
board's and speed is not.
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.cgroup import Group, evict, limited, unavailable
from benchmarks.fleet import cloud
from benchmarks.llm import assets
from benchmarks.llm.contest import Memory
from benchmarks.llm.memory import RECIPE
from benchmarks.result import Outcome, Row
from converters import convert
from device_profiles.loader import load_profile
from edge_sdk.bundle.reader import Bundle, open_bundle
from edge_sdk.bundle.record import TensorSpec
from edge_sdk.errors import WorkError

PROFILE = "board-512mb"
MIB = 2**20
LIMIT = 512 * MIB
TOKENS = 64  # of an encoder's text, and of a dialogue model's answer
CALLS = 50
CACHE = Path(__file__).parents[1] / "build" / "benchmarks" / "board512"


@dataclass(frozen=True)
class Stay:
    """What a model's stay on the board came to.

    Attributes:
        peak: Most bytes charged, page cache included.
        hits: How often the limit was reached and pages had to go.
        kills: Processes killed by the kernel.
        swapped: Bytes in swap.
        resident: Largest resident size of the agent, in bytes.
        per_second: Calls per second, or tokens of an answer.
    """

    peak: int
    hits: int
    kills: int
    swapped: int
    resident: int
    per_second: float

    @property
    def headroom(self) -> int:
        """What is left of the board's memory by the larger of both counts, in bytes."""
        return LIMIT - max(self.peak, self.resident)

    def figures(self, name: str) -> dict[str, float]:
        """By name, units in the names."""
        return {
            f"{name}_peak_mib": round(self.peak / MIB, 1),
            f"{name}_headroom_mib": round(self.headroom / MIB, 1),
            f"{name}_agent_peak_rss_mib": round(self.resident / MIB, 1),
            f"{name}_limit_hits": float(self.hits),
            f"{name}_kills": float(self.kills),
            f"{name}_swapped_bytes": float(self.swapped),
            f"{name}_per_second": round(self.per_second, 1),
        }


def run(quick: bool) -> Outcome:
    """A convolutional network, an encoder and the dialogue model, each on a board of its own."""
    reason = unavailable()
    if reason is not None:
        raise WorkError(f"memory limits cannot be set: {reason}")
    shape = "135m" if quick else "360m"
    dialogue = open_bundle(assets.bundle(shape, RECIPE, profile=PROFILE))
    stays = {
        "resnet18": (stay(_network("resnet18"), called), "calls/s"),
        "encoder": (stay(_network("encoder"), called), f"calls/s of {TOKENS} tokens"),
        f"smollm2_{shape}_shape": (stay(dialogue, answered), "tok/s"),
    }
    rows = (
        Row(
            f"512 MiB with page cache, no swap: agent and {name}; charged at most, resident at "
            "most, left, killed; speed of this machine's cores",
            f"{found.peak / MIB:.0f} MiB, {found.resident / MIB:.0f} MiB, "
            f"{found.headroom / MIB:.0f} MiB, {found.kills}; {found.per_second:.0f} {unit}",
        )
        for name, (found, unit) in stays.items()
    )
    figures: dict[str, float] = {}
    for name, (found, _) in stays.items():
        figures |= found.figures(name)
    return Outcome(rows=tuple(rows), figures=figures)


def stay(bundle: Bundle, use: Callable[[int, Bundle], float], memory: int = LIMIT) -> Stay:
    """Deploys a bundle to an agent on a board, and uses it.

    Args:
        bundle: Has a variant for the board.
        use: Given the port of the local API and the bundle; gives what was done per second.
        memory: Of the board, in bytes.

    Raises:
        WorkError: The agent did not come to run it.
    """
    with cloud.cloud([bundle]) as here, board(here, memory) as (agent, group):
        here.deploy(bundle)
        per_second = use(agent.port, bundle)
        resident = Memory.of(agent.process).peak
        return Stay(group.peak, group.hits, group.kills, group.swapped, resident, per_second)


def called(port: int, bundle: Bundle) -> float:
    """Calls per second, one caller."""
    [variant] = (found for found in bundle.variants if found.record.profile == PROFILE)
    body = {"inputs": [_tensor(spec) for spec in variant.record.inputs]}
    _post(port, f"/v2/models/{bundle.name}/infer", body)
    started = time.perf_counter()
    for _ in range(CALLS):
        assert _post(port, f"/v2/models/{bundle.name}/infer", body)["outputs"]
    return CALLS / (time.perf_counter() - started)


def answered(port: int, bundle: Bundle) -> float:
    """Tokens per second of an answer, its prompt included."""
    question = {"role": "user", "content": "what does the boiler read? " * 8}
    body = {"model": bundle.name, "messages": [question], "max_tokens": TOKENS, "temperature": 0}
    started = time.perf_counter()
    tokens = _post(port, "/v1/chat/completions", body)["usage"]["completion_tokens"]
    return float(tokens) / (time.perf_counter() - started)


@contextmanager
def board(here: cloud.Cloud, memory: int = LIMIT) -> Iterator[tuple[cloud.Agent, Group]]:
    """An agent with an empty store in a group of its own; broker and server are outside."""
    budget = load_profile(PROFILE).memory.model_budget_mib
    port = 28_512
    with (
        tempfile.TemporaryDirectory(dir=cloud.CACHE) as store,
        limited(f"edge-sdk-board-{os.getpid()}", memory=memory) as group,
        cloud.running(
            "agent", "--thing", "board", "--broker", here.broker, "--profile", PROFILE,
            "--store", store, "--http", f"127.0.0.1:{port}", "--memory-limit", f"{budget}MiB",
            prefix=group.prefix,
        ) as process,
    ):  # fmt: skip
        evict([cloud.CACHE])  # pages belong to the group that reads them first
        cloud.until(lambda: any(one.online and one.profile for one in here.devices()))
        yield cloud.Agent("board", process.pid, port), group


def _network(name: str) -> Bundle:
    """A bundle of a network with random weights, made once."""
    made = CACHE / f"{name}.bundle"
    if not made.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        convert(models.MODELS[name](CACHE), [PROFILE], made)
    return open_bundle(made)


def _tensor(spec: TensorSpec) -> Mapping[str, Any]:
    """Ones for an input, a batch of one, free dimensions of as many tokens."""
    shape = [size if isinstance(size, int) else TOKENS if axis else 1
             for axis, size in enumerate(spec.shape or ())]  # fmt: skip
    data = np.ones(shape, spec.dtype).ravel().tolist()
    names = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}
    return {"name": spec.name, "datatype": names[spec.dtype], "shape": shape, "data": data}


def _post(port: int, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=cloud.PATIENCE)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    with closing(connection), connection.getresponse() as answer:
        found: dict[str, Any] = json.load(answer)
        return found
