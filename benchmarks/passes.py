"""What each float rewrite gains on a network that has what it undoes.

Size, nodes and latency of each network before and after one pass alone; what has
to run before it is in both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from benchmarks.networks import (
    CLASSES,
    TOKENS,
    Array,
    decoder_of_images,
    encoder,
    one_hot,
    recurrent,
    scaled_convolutions,
    twins,
)
from benchmarks.result import Outcome, Row
from converters.materialize import open_path, save
from converters.measure import latency
from converters.passes.base import Context, build, each_graph
from edge_sdk.bundle.record import Recipe, Step

SECONDS, QUICK_SECONDS = 2.0, 0.2
NOTICEABLE = 1.05
NORMAL = ("cleanup", "infer-shapes", "fold-constants")
ATTENTION = (*NORMAL, "constant-reshape", "infer-shapes", "fuse-layer-norm")


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One pass on one network.

    Attributes:
        name: The pass.
        network: The network it was measured on.
        speedup: Median over rounds of the time before over the time after.
        bytes_before: Bytes of the files before.
        bytes_after: Bytes of the files after.
        nodes_before: Nodes before, subgraphs included.
        nodes_after: Nodes after.
    """

    name: str
    network: str
    speedup: float
    bytes_before: int
    bytes_after: int
    nodes_before: int
    nodes_after: int


@dataclass(frozen=True)
class Case:
    """A pass and the network it is measured on.

    Attributes:
        step: The pass with its options.
        network: Builds the network.
        after: Passes that come before it, in both measurements.
        then: Passes that come after it, in both measurements.
    """

    step: Step
    network: Callable[[], ir.Model]
    after: tuple[str, ...] = NORMAL
    then: tuple[str, ...] = ()


RATE = {"fixed": {"rate": 16000}}
CASES = (
    Case(Step(op="cleanup"), decoder_of_images, ()),
    Case(Step(op="fuse-batch-norm"), decoder_of_images),
    Case(Step(op="fold-constants"), recurrent, ("cleanup", "infer-shapes")),
    Case(Step(op="share-initializers"), twins),
    Case(Step(op="splice-branches", options=RATE), recurrent),
    Case(Step(op="one-hot-to-gather"), one_hot),
    Case(Step(op="constant-reshape"), encoder),
    # One LayerNormalization is only faster if it is not fused on into the slow kernel.
    Case(Step(op="fuse-layer-norm"), encoder, then=("residual-sum",)),
    Case(Step(op="fuse-gelu"), encoder),
    Case(Step(op="fold-attention-scale"), scaled_convolutions),
    Case(Step(op="residual-sum"), encoder, ATTENTION),
    Case(Step(op="fuse-attention"), encoder, ATTENTION),
    Case(Step(op="merge-projections"), encoder, ATTENTION, then=("dynamic-int8",)),
    Case(Step(op="store-small"), encoder, ATTENTION),
)


def run(quick: bool) -> Outcome:
    """Measures every case."""
    effects = []
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
            effects.append(measure(case, Path(folder), QUICK_SECONDS if quick else SECONDS))
    quickest = sorted(effects, key=lambda effect: -effect.speedup)
    gains = [f"{e.name} {e.speedup:.2f}×" for e in quickest if e.speedup >= NOTICEABLE]
    return Outcome(
        rows=(
            Row(
                f"{len(effects)} rewrites, each alone on a network that has what it undoes: speed",
                ", ".join(gains),
            ),
        ),
        figures={
            f"{effect.name}_{field}": getattr(effect, field)
            for effect in effects
            for field in Effect.__struct_fields__[2:]
        },
    )


def measure(case: Case, folder: Path, seconds: float) -> Effect:
    """Builds a case's network before and after its pass, and times them in turn."""
    first, last = ([Step(op=name) for name in names] for names in (case.after, case.then))
    before = _rewritten(case.network(), [*first, *last])
    after = _rewritten(case.network(), [*first, case.step, *last])
    paths = {"before": _saved(before, folder / "before"), "after": _saved(after, folder / "after")}
    sessions = {name: open_path(path) for name, path in paths.items()}
    times = latency(sessions, [_feeds(before)], seconds)
    return Effect(
        name=case.step.op,
        network=case.network.__name__,
        speedup=round(times["after"].speedup, 3),
        bytes_before=_size(paths["before"]),
        bytes_after=_size(paths["after"]),
        nodes_before=_nodes(before),
        nodes_after=_nodes(after),
    )


def _rewritten(model: ir.Model, steps: Sequence[Step]) -> ir.Model:
    for pass_ in build(Recipe(name="benchmark", steps=tuple(steps)), Context()):
        pass_(model)
    return model


def _saved(model: ir.Model, folder: Path) -> Path:
    folder.mkdir()
    return save(model.clone(), folder)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.iterdir())


def _nodes(model: ir.Model) -> int:
    return sum(len(graph) for graph in each_graph(model.graph))


def _feeds(model: ir.Model) -> Mapping[str, Array]:
    random = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        sizes = {"N": 1, "T": TOKENS}
        dims = value.shape or ()
        shape = [dim if isinstance(dim, int) else sizes[str(dim.value)] for dim in dims]
        name = value.name or ""
        if value.dtype == ir.DataType.FLOAT:
            feeds[name] = random.standard_normal(shape).astype(np.float32)
        else:
            feeds[name] = random.integers(0, CLASSES, shape) if shape else np.array(16000)
    return feeds
